"""What a set of entities and features may not be: its values could not be the same online and offline, or at all."""

import inspect
from collections.abc import Sequence
from typing import get_args, get_type_hints

from feature_store.definitions import LABELLED, ORDERED, Aggregate, Entity, Feature, Measure, Op, Writer
from feature_store.formulas import FORMULAS
from feature_store.transaction import Label, Transaction

RESERVED = frozenset(
    {"decided", "label", "sequence", "outbox", "pending", "pending_since", "gate", "progress", "relay", "layout"}
)
"""Kinds of key in Redis that no entity may be named like, see `keys.py`."""
KEY_FIELDS = frozenset(
    name for name, kind in get_type_hints(Transaction).items() if kind is str or str in get_args(kind)
)
"""Fields of a transaction that can name an entity: text, required or optional."""


def check(entities: Sequence[Entity], features: Sequence[Feature]) -> Entity:
    """Give the entity that commit writes.

    Raises:
        ValueError: the definitions cannot be meant; the message names the entity or the feature.
    """
    _check_entities(entities)
    names = [feature.name for feature in features]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two features are named {twice[0]}")
    for feature in features:
        for a in feature.of:
            for broken, holds in _broken(a, entities).items():
                if holds:
                    raise ValueError(f"{feature.name}: {broken}")
        _check_formula(feature)
    return next(entity for entity in entities if entity.written_by is Writer.COMMIT)


def _check_entities(entities: Sequence[Entity]) -> None:
    names = [entity.name for entity in entities]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two entities are named {twice[0]}")
    if taken := [name for name in names if name in RESERVED or not name.isidentifier()]:
        raise ValueError(f"no entity can be named {taken[0]}: it is part of the names of keys")
    if unknown := [entity.key for entity in entities if entity.key not in KEY_FIELDS]:
        raise ValueError(f"a transaction has no field {unknown[0]} of text")
    if [entity.key for entity in entities if entity.written_by is Writer.COMMIT] != ["card_id"]:
        raise ValueError("commit writes exactly one entity, keyed by card_id: its keys share the card's slot")


def _check_formula(feature: Feature) -> None:
    if feature.formula not in FORMULAS:
        raise ValueError(f"{feature.name}: there is no formula {feature.formula}")
    takes = len(inspect.signature(FORMULAS[feature.formula]).parameters) - 1
    if takes != len(feature.of):
        raise ValueError(f"{feature.name}: formula {feature.formula} is of {takes} aggregates, not {len(feature.of)}")


def _broken(a: Aggregate, entities: Sequence[Entity]) -> dict[str, bool]:
    """Give what would be wrong with an aggregate, and whether it is."""
    follows = a.entity.written_by is Writer.UPDATER
    labelled = bool(LABELLED & set(a.needs))
    reach = a.window + (-(-a.delay // a.tile.seconds) + 1 if a.delay else 0)
    return {
        f"its entity {a.entity.name} is not among those of the set": a.entity not in entities,
        "a window has one tile or more, and ends at the event or before": a.window < 1 or a.delay < 0,
        f"it reaches back {reach} {a.tile} tiles, and {a.tile.kept} are kept (KEPT)": reach > a.tile.kept,
        "what the updater writes needs a delay, which hides the updater's lag": follows and not a.delay,
        "labels are written by the updater: they need a delay": labelled and not a.delay,
        f"{a.measure} needs the card's order": follows and bool(ORDERED & set(a.needs)),
        "elapsed time has no delay, so it needs an entity that commit writes": follows and a.op is Op.ELAPSED,
        f"labels do not name {a.entity.key}": labelled and a.entity.key not in Label.__struct_fields__,
        "genuine ones are a difference of two measures: no total": a.op is Op.TOTAL and a.measure is Measure.GENUINE,
    }
