"""Recomputes decisions from the log: features from the events each decision names, then score, then action.

A decision's record says how far the state it read had followed the log (`Held`). That makes it a function of the log,
whatever was late, in between or running beside it.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial

from feature_store.definitions import AGGREGATES, FINGERPRINT, Entity, Measure
from feature_store.formulas import Aggregates, counted, counted_at_merchant, feature_vector
from services.audit.timeline import Position, Timeline
from services.audit.whole_log import Log
from services.decision.policy import Policy
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
    log: Log, model: Model, policy: Policy, *, last: int | None = None, advance: Callable[[], None] = lambda: None
) -> Verdict:
    """Recompute the `last` decisions of the log by time, or all; `advance` is called after each."""
    chosen = sorted(log, key=lambda record: record.decided_at)[-last if last else None :]
    verdict = Verdict(missing=log.missing)
    read = _Reads(log, chosen)
    for record in chosen:
        if record.answer.features_version != FINGERPRINT:
            verdict.other_features += 1
        else:
            scored = (record.answer.model, record.answer.policy) == (model.version, policy.version)
            verdict.verified += scored
            verdict.features_only += not scored
            verdict.differences += _differences(record, read.of(record), model if scored else None, policy)
        advance()
    return verdict


def _differences(record: Record, read: Aggregates, model: Model | None, policy: Policy) -> Iterator[Difference]:
    vector = feature_vector(record.transaction, read)
    values = {measure.name.lower(): value for measure, value in counted(record.transaction, read).items()}
    pairs: list[tuple[str, object, object]] = [
        ("features", record.features, features_of(vector)),
        ("counted", record.counted, values),
    ]
    if model is not None:
        answer, score = record.answer, model.score(vector)
        judgement = policy.judge(score, vector, answer.degraded)
        pairs.append(("score", answer.score, score))
        pairs.append(("action", (answer.action, answer.reasons), (judgement.action, judgement.reasons)))
    for what, recorded, recomputed in pairs:
        if recorded != recomputed:
            yield Difference(record.partition, record.sequence, what, recorded, recomputed)


class _Reads:
    """What each decision must have read, from the events alone."""

    def __init__(self, log: Log, chosen: Collection[Record]) -> None:
        self._timelines = _timelines(log)
        self._merchant: dict[Place, tuple[int, ...]] = {}
        self._read_merchants(chosen)

    def _read_merchants(self, chosen: Collection[Record]) -> None:
        """Merchant after merchant, each in the order in which its state grew: one pass over its events."""
        by_merchant: defaultdict[str, list[Record]] = defaultdict(list)
        for record in chosen:
            by_merchant[record.transaction.merchant_id].append(record)
        for records in by_merchant.values():
            for record in sorted(records, key=lambda record: sum(_merchant_position(record).values())):
                place = (record.partition, record.sequence)
                self._merchant[place] = self._aggregates(Entity.MERCHANT, record, _merchant_position(record))

    def of(self, record: Record) -> Aggregates:
        """Give what the decision must have read."""
        card = self._aggregates(Entity.CARD, record, _card_position(record))
        return Aggregates(card, self._merchant[record.partition, record.sequence])

    def _aggregates(self, entity: Entity, record: Record, position: Position) -> tuple[int, ...]:
        t = record.transaction
        name = t.card_id if entity is Entity.CARD else t.merchant_id
        return self._timelines[entity][name].at(position).read(t.second, AGGREGATES[entity])


def _timelines(log: Log) -> dict[Entity, defaultdict[str, Timeline]]:
    """Give every entity its events. A card numbers its decisions itself: its version."""
    made: dict[Entity, defaultdict[str, Timeline]] = {
        entity: defaultdict(partial(Timeline, entity)) for entity in Entity
    }
    versions: defaultdict[str, int] = defaultdict(int)
    for record in log:
        t = record.transaction
        versions[t.card_id] += 1
        values = {Measure[name.upper()]: value for name, value in record.counted.items()}
        made[Entity.CARD][t.card_id].add((DECISIONS, 0), versions[t.card_id], t.second, values)
        source = (DECISIONS, record.partition)
        made[Entity.MERCHANT][t.merchant_id].add(source, record.sequence, t.second, counted_at_merchant(t))
    for (partition, offset), label in sorted(log.labels.values(), key=lambda each: each[0]):
        for entity, name in ((Entity.CARD, label.card_id), (Entity.MERCHANT, label.merchant_id)):
            frauds = {Measure.FRAUDS: int(label.is_fraud)}
            made[entity][name].add((LABELS, partition), offset, label.second, frauds)
    return made


def _card_position(record: Record) -> dict[tuple[str, int], int]:
    held = record.held
    return {(DECISIONS, 0): held.card_decisions, **{(LABELS, p): offset for p, offset in held.card_labels.items()}}


def _merchant_position(record: Record) -> dict[tuple[str, int], int]:
    held = record.held
    return {
        **{(DECISIONS, partition): sequence for partition, sequence in held.merchant_decisions.items()},
        **{(LABELS, partition): offset for partition, offset in held.merchant_labels.items()},
    }
