"""A set of entities and features, made executable: what is kept, what is read, and the row that a model scores."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_store import rates
from feature_store.definitions import KEPT, Aggregate, Entity, Feature, Measure, Writer
from feature_store.formulas import FORMULAS, VALUE, Formula, Payment, ratio_to_mean
from feature_store.plan import Plan
from feature_store.rules import check
from feature_store.transaction import Event, Label, Transaction

FeatureVector = npt.NDArray[np.float32]
"""Shape (len(features),): the model's input for one transaction; NaN where a value is not known."""
Reads = Sequence[Sequence[int]]
"""For each entity, the integers of its plan's aggregates, in their order."""

FORMAT = 1
"""Raise it when `codec.py` writes other bytes."""
ARITHMETIC = 2
"""Raise it when code gives a feature another meaning: a formula, what is counted, how a window is cut or kept."""
HIGH_RATIO = 2_500
"""An amount above 2.5 times the card's mean (thousandths) is counted as high."""


class FeatureSet:
    """Entities and features, in the order of the model's input.

    Args:
        entities: whose history is kept. `commit` writes exactly one, keyed by card_id.
        features: the columns.
        own_mean: count and sum of the amounts that the committed entity's ratios compare with.

    Attributes:
        entities, features, names: as given, and the names of the features.
        plans: for each entity, what its tiles hold and which windows are read.
        fingerprint: names these features exactly. A model carries it, and is refused where another one runs.
        layout: four bytes that name what is kept and how. State carries it, and is refused where another one runs.
        least_delay: seconds that what the updater writes may lag before a feature shows it.

    Raises:
        ValueError: the definitions cannot be meant; the message names the feature.
    """

    def __init__(
        self, entities: Sequence[Entity], features: Sequence[Feature], *, own_mean: tuple[Aggregate, Aggregate]
    ) -> None:
        self.entities = tuple(entities)
        self.features = tuple(features)
        self.names = tuple(feature.name for feature in features)
        self.committed = check(self.entities, self.features)
        self.plans: Mapping[Entity, Plan] = {
            entity: Plan(entity, (a for feature in features for a in feature.of if a.entity == entity))
            for entity in entities
        }
        self.labelled = tuple(entity for entity in self.entities if entity.key in Label.__struct_fields__)
        self.followers = tuple(entity for entity in self.entities if entity.written_by is Writer.UPDATER)
        delays = [a.delay for feature in features for a in feature.of if a.entity in self.followers]
        self.least_delay = min(delays, default=math.inf)
        self._own_mean = [self.plans[self.committed].aggregates.index(a) for a in own_mean]
        self._columns = tuple(_column(feature.formula, self._places(feature.of)) for feature in features)
        kept = [[asdict(entity), self.plans[entity].stored] for entity in self.entities]
        meaning = (ARITHMETIC, KEPT, rates.VERSION, rates.RATES, [asdict(each) for each in own_mean])
        self.fingerprint = _digest(*meaning, [asdict(feature) for feature in features]).hex()[:16]
        self.layout = _digest(FORMAT, *meaning, kept)[:4]

    def row(self, transaction: Transaction, reads: Reads) -> FeatureVector:
        """Compute every feature in its order, as float32."""
        payment = Payment(transaction.cents, transaction.second)
        read = [value for of_entity in reads for value in of_entity]
        values = [read[pick] if formula is None else formula(payment, *pick(read)) for formula, pick in self._columns]
        return np.array(values, dtype=np.float32)

    def counted(self, transaction: Transaction, of_card: Sequence[int]) -> dict[Measure, int]:
        """Give what a transaction adds to its card, of which `of_card` was read.

        The ratio compares with the card's mean as read, so it depends on the card's earlier transactions in the log.
        """
        count, total = self._own_mean
        counted = counted_anywhere(transaction)
        ratio = ratio_to_mean(counted[Measure.AMOUNT], of_card[count], of_card[total])
        counted[Measure.LARGEST_RATIO] = ratio
        counted[Measure.HIGH_RATIOS] = int(ratio > HIGH_RATIO)
        return counted

    def keys_of(self, event: Event) -> list[str | None]:
        """Give, for each entity, the value of its key field; None where the event does not name one."""
        return [getattr(event, entity.key, None) for entity in self.entities]

    def _places(self, aggregates: Sequence[Aggregate]) -> tuple[int, ...]:
        """Where each aggregate is when all that was read stands in one row."""
        every = [a for entity in self.entities for a in self.plans[entity].aggregates]
        return tuple(every.index(a) for a in aggregates)


def _column(formula: str, places: tuple[int, ...]) -> tuple[Formula | None, Any]:
    """Give a formula and what picks its values; for the value itself, none and its place."""
    if formula == VALUE:
        return None, places[0]
    if len(places) == 1:
        return FORMULAS[formula], itemgetter(slice(places[0], places[0] + 1))
    return FORMULAS[formula], itemgetter(*places) if places else _nothing


def _nothing(_: Sequence[int]) -> tuple[int, ...]:
    return ()


def counted_anywhere(transaction: Transaction) -> dict[Measure, int]:
    """Give what a transaction adds to an entity that the updater writes. Nothing here depends on the log's order."""
    amount = transaction.cents
    return {Measure.COUNT: 1, Measure.AMOUNT: amount, Measure.SQUARES: amount * amount}


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()
