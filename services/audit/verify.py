"""Recomputes decisions from the log: features from the events each decision names, then score, then action.

A decision's record says how far the state it read had followed the log (`Held`). That makes it a function of the log,
whatever was late, in between or running beside it.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from feature_store.definitions import Entity, Measure
from feature_store.feature_set import FeatureSet, counted_anywhere
from feature_store.features import SHIPPED
from feature_store.history import History
from services.audit.timeline import Event, Source, Timeline, position
from services.audit.whole_log import Log
from services.decision.policy import LATE, Policy
from services.decision.ports import Model
from services.decision.record import Record, features_of
from services.topics import DECISIONS, LABELS

Place = tuple[int, int]
"""Partition and sequence: a decision's place in the log."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something in a record that is not what the log makes it."""

    partition: int
    sequence: int
    what: str
    recorded: object
    recomputed: object


@dataclass
class Verdict:
    """What came out."""

    verified: int = 0
    """Decisions whose features, score and action were recomputed."""
    features_only: int = 0
    """Those whose model or policy is not at hand: features recomputed, score and action not."""
    other_features: int = 0
    """Those of another features_version: not recomputed."""
    differences: list[Difference] = field(default_factory=list)
    missing: list[Place] = field(default_factory=list)
    """Sequence numbers that are not in the log."""

    @property
    def holds(self) -> bool:
        """Whether every decision is what it says."""
        return not self.differences and not self.missing


def verify(
    log: Log,
    model: Model,
    policy: Policy,
    *,
    features: FeatureSet = SHIPPED,
    last: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Verdict:
    """Recompute the `last` decisions of the log by time, or all; `advance` is called after each."""
    chosen = sorted(log, key=lambda record: record.decided_at)[-last if last else None :]
    verdict = Verdict(missing=log.missing)
    recomputed = _Recomputed(log, chosen, features)
    for record in chosen:
        if record.answer.features_version != features.fingerprint:
            verdict.other_features += 1
        else:
            scored = (record.answer.model, record.answer.policy) == (model.version, policy.version)
            verdict.verified += scored
            verdict.features_only += not scored
            verdict.differences += recomputed.differences(record, model if scored else None, policy)
        advance()
    return verdict


class _Recomputed:
    """What each decision must have read, from the events alone, and what follows from it."""

    def __init__(self, log: Log, chosen: Collection[Record], features: FeatureSet) -> None:
        self._features = features
        self._timelines = _timelines(log, features)
        self._followers: dict[tuple[Entity, Place], tuple[Sequence[int], bool]] = {}
        for entity in features.followers:
            self._read_followers(entity, chosen)

    def differences(self, record: Record, model: Model | None, policy: Policy) -> Iterator[Difference]:
        """Compare a record with what its events make of it."""
        transaction, answer = record.transaction, record.answer
        found = [self._of(entity, record) for entity in self._features.entities]
        reads = [read for read, _ in found]
        row = self._features.row(transaction, reads)
        of_card = reads[self._features.entities.index(self._features.committed)]
        pairs: list[tuple[str, object, object]] = [
            ("features", record.features, features_of(row.tolist())),
            ("counted", record.counted, self._features.counted(transaction, of_card)),
            ("late", LATE in answer.degraded, not all(covers for _, covers in found)),
        ]
        if model is not None:
            score = model.score(row)
            judgement = policy.judge(score, row.tolist(), answer.degraded)
            pairs.append(("score", answer.score, None if math.isnan(score) else score))
            pairs.append(("action", (answer.action, answer.reasons), (judgement.action, judgement.reasons)))
        for what, recorded, recomputed in pairs:
            if recorded != recomputed:
                yield Difference(record.partition, record.sequence, what, recorded, recomputed)

    def _read_followers(self, entity: Entity, chosen: Collection[Record]) -> None:
        """Value after value, each in the order in which its state grew: one pass over its events."""
        by_value: defaultdict[str, list[Record]] = defaultdict(list)
        for record in chosen:
            if value := getattr(record.transaction, entity.key):
                by_value[value].append(record)
        for records in by_value.values():
            for record in sorted(records, key=lambda record: sum(_position(entity, record).values())):
                self._followers[entity, (record.partition, record.sequence)] = self._read(entity, record)

    def _of(self, entity: Entity, record: Record) -> tuple[Sequence[int], bool]:
        known = self._followers.get((entity, (record.partition, record.sequence)))
        return known or self._read(entity, record)

    def _read(self, entity: Entity, record: Record) -> tuple[Sequence[int], bool]:
        """Read what a decision must have read of an entity, and whether that reached back far enough."""
        t = record.transaction
        value = getattr(t, entity.key)
        nothing = History(self._features.plans[entity])
        history = self._timelines[entity][value].at(_position(entity, record)) if value else nothing
        return history.read(t.second), history.covers(t.second)


def _timelines(log: Log, features: FeatureSet) -> dict[Entity, defaultdict[str, Timeline]]:
    """Give every entity its events."""
    made: dict[Entity, defaultdict[str, Timeline]] = {
        entity: defaultdict(partial(Timeline, features.plans[entity])) for entity in features.entities
    }
    for record in log:
        t, source = record.transaction, (DECISIONS, record.partition)
        for entity, value in zip(features.entities, features.keys_of(t), strict=True):
            if value:
                values = record.counted if entity is features.committed else counted_anywhere(t)
                made[entity][value].add(source, record.sequence, Event(t.second, values))
    for logged in sorted(log.labels.values(), key=lambda each: (each.partition, each.offset)):
        label = logged.label
        for entity in features.labelled:
            event = Event(label.second, {Measure.FRAUDS: int(label.is_fraud)}, is_label=True)
            made[entity][getattr(label, entity.key)].add((LABELS, logged.partition), logged.offset, event)
    return made


def _position(entity: Entity, record: Record) -> dict[Source, int]:
    held = record.held.get(entity.name)
    return position(held, DECISIONS, LABELS) if held else {}
