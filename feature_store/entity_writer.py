"""What the log adds to state: decisions to the entities that follow it, labels to those they name, each exactly once.

Everything is the same compare-and-set: read the entity, count in Python, write if it has not moved, else try again. A
batch of events costs one read and one write an entity, however many of them are its own.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from feature_store.codec import HEAD, CorruptStateError, decode, encode_stamped, head
from feature_store.decision_store import EXPIRE_SECONDS
from feature_store.definitions import Entity, Measure
from feature_store.feature_set import FeatureSet, counted_anywhere
from feature_store.gate import Gate
from feature_store.history import History
from feature_store.keys import Keys
from feature_store.round_trips import RoundTrips
from feature_store.scripts import Argument, WrongTypeError, load
from feature_store.transaction import Label, Transaction

MOST_IN_A_SCRIPT = 100
"""Entities that one script writes: what else waits for Redis gets its turn after them."""


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """A decided transaction at its place in topic decisions."""

    partition: int
    sequence: int
    transaction: Transaction


@dataclass(frozen=True, slots=True)
class LoggedLabel:
    """A label at its place in topic labels."""

    partition: int
    offset: int
    label: Label

    @property
    def content(self) -> bytes:
        """What two labels of one transaction must agree in: when, whether fraud, and which merchant."""
        return f"{self.label.second} {int(self.label.is_fraud)} {self.label.merchant_id}".encode()


@dataclass(frozen=True, slots=True)
class RestoredDecision:
    """A decision as `commit` wrote it; kept under its id for `keep_seconds` more (0: no longer)."""

    sequence: int
    transaction: Transaction
    counted: dict[Measure, int]
    stored: bytes
    keep_seconds: int


class EntityWriter(Protocol):
    """Where the updater applies the log."""

    async def count(self, decisions: Sequence[LoggedDecision]) -> int:
        """Count decisions, each partition's in order, for every entity the updater writes; give how many were new."""

    async def label(self, labels: Sequence[LoggedLabel]) -> list[bool | None]:
        """Apply labels; for each: True if it is new, False if it had been applied, None if another one contradicts."""


@dataclass(frozen=True, slots=True)
class _Put:
    """A key that is written with an entity."""

    key: str
    value: bytes
    seconds: int


@dataclass(slots=True)
class _Change:
    """A change of one entity. `apply` counts, given what stands under `beside`; it gives None if nothing is new."""

    entity: Entity
    value: str
    apply: Callable[[History, list[bytes | None]], list[_Put] | None]
    beside: list[str] = field(default_factory=list)


class RedisEntityWriter:
    """The state in Redis: plain reads, and `lua/write.lua`.

    Raises, in every method:
        ClosedError: a gate is not as in `gates` any more: state may have gone back since.
        CorruptStateError: the bytes of an entity are damaged, or another layout's.
    """

    def __init__(self, trips: RoundTrips, keys: Keys, features: FeatureSet, gates: Sequence[Gate]) -> None:
        self._trips = trips
        self._keys = keys
        self._features = features
        self._gates = gates
        self._write = load("write")

    async def count(self, decisions: Sequence[LoggedDecision]) -> int:
        """See `EntityWriter.count`."""
        counts = _Counts()
        by_entity: defaultdict[tuple[Entity, str], list[LoggedDecision]] = defaultdict(list)
        for decision in decisions:
            for entity in self._features.followers:
                if value := getattr(decision.transaction, entity.key):
                    by_entity[entity, value].append(decision)
        await self._change(_Change(*named, counts.of(batch)) for named, batch in by_entity.items())
        return len(counts.new)

    async def label(self, labels: Sequence[LoggedLabel]) -> list[bool | None]:
        """See `EntityWriter.label`: the card first, whose word stands; then the others. Each applies it once."""
        outcomes: dict[LoggedLabel, bool | None] = {}
        ordered = sorted(self._features.labelled, key=lambda entity: entity is not self._features.committed)
        for entity in ordered:
            by_value: defaultdict[str, list[LoggedLabel]] = defaultdict(list)
            for logged in labels:
                if outcomes.get(logged, False) is not None:
                    by_value[getattr(logged.label, entity.key)].append(logged)
            await self._change(self._labelled(entity, value, batch, outcomes) for value, batch in by_value.items())
        return [outcomes[logged] for logged in labels]

    def _labelled(
        self, entity: Entity, value: str, batch: list[LoggedLabel], outcomes: dict[LoggedLabel, bool | None]
    ) -> _Change:
        names = [self._keys.label(entity, value, logged.label) for logged in batch]
        before = {logged: outcomes.get(logged, False) for logged in batch}

        def apply(history: History, found: list[bytes | None]) -> list[_Put] | None:
            known = dict(zip(names, found, strict=True))
            puts = []
            for name, logged in zip(names, batch, strict=True):
                if known[name] is None:
                    known[name] = logged.content
                    puts.append(_Put(name, logged.content, EXPIRE_SECONDS))
                    history.add(logged.label.second, {Measure.FRAUDS: int(logged.label.is_fraud)})
                    history.labels[logged.partition] = logged.offset
                    outcomes[logged] = True
                else:
                    outcomes[logged] = before[logged] if known[name] == logged.content else None
            return puts or None

        return _Change(entity, value, apply, names)

    async def restore(self, partition: int, decisions: Sequence[RestoredDecision]) -> None:
        """Put decisions of one partition, in order, back into cards that lack them: what `commit` wrote."""
        card = self._features.committed
        by_card: defaultdict[str, list[RestoredDecision]] = defaultdict(list)
        for decision in decisions:
            by_card[decision.transaction.card_id].append(decision)
        await self._change(_Change(card, name, self._restored(partition, batch)) for name, batch in by_card.items())
        await self._raise_sequence(partition, max((decision.sequence for decision in decisions), default=0))

    def _restored(
        self, partition: int, batch: list[RestoredDecision]
    ) -> Callable[[History, list[bytes | None]], list[_Put] | None]:
        def apply(history: History, _: list[bytes | None]) -> list[_Put] | None:
            puts, last = [], history.decisions.get(partition, 0)
            for decision in batch:
                if decision.sequence > last:
                    t, last = decision.transaction, decision.sequence
                    history.count(t.second, decision.counted)
                    if decision.keep_seconds:
                        name = self._keys.decided(t.card_id, t.transaction_id)
                        puts.append(_Put(name, decision.stored, decision.keep_seconds))
            if last == history.decisions.get(partition, 0):
                return None
            history.decisions = {partition: last}
            return puts

        return apply

    async def _raise_sequence(self, partition: int, sequence: int) -> None:
        """Set the last sequence given, unless it is higher: the number itself is what compare-and-set compares."""
        key = self._keys.sequence(partition)
        while True:
            (now,) = await self._trips.get([key])
            if sequence <= int(now or 0):
                return
            arguments = (self._gates[partition].text, (now or b"")[:HEAD], sequence, 0, 0)
            await self._trips.run(self._write, (self._keys.gate(partition), key), arguments)

    async def sequence(self, partition: int) -> int:
        """Give the last sequence that the cards of a partition have."""
        (now,) = await self._trips.get([self._keys.sequence(partition)])
        return int(now or 0)

    async def _change(self, changes: Iterable[_Change]) -> None:
        """Make changes, each again until its entity had not moved between read and write."""
        left = list(changes)
        while left:
            left = await self._try(left)

    async def _try(self, changes: Sequence[_Change]) -> list[_Change]:
        """Read all, count, and write all; gives those whose entity had moved."""
        names = [[self._keys.history(change.entity, change.value), *change.beside] for change in changes]
        values = iter(await self._trips.get([name for several in names for name in several]))
        by_partition: defaultdict[int, list[tuple[_Change, list[str], list[Argument]]]] = defaultdict(list)
        for change, (key, *beside) in zip(changes, names, strict=True):
            raw, found = next(values), [next(values) for _ in beside]
            partition = self._keys.partition(change.value)
            history = decode(raw, key, self._features.plans[change.entity], self._features.layout, partition)
            puts = change.apply(history, found)
            if puts is not None:
                arguments = self._arguments(history, key, puts)
                by_partition[partition].append((change, [key, *(put.key for put in puts)], arguments))
        parts = [
            (partition, several[first : first + MOST_IN_A_SCRIPT])
            for partition, several in by_partition.items()
            for first in range(0, len(several), MOST_IN_A_SCRIPT)
        ]
        moved = await asyncio.gather(*(self._write_part(partition, part) for partition, part in parts))
        return [change for several in moved for change in several]

    def _arguments(self, history: History, key: str, puts: Sequence[_Put]) -> list[Argument]:
        layout, revision = self._features.layout, history.revision
        raw = encode_stamped(history, key, layout, revision + 1)
        with_them = [part for put in puts for part in (put.value, put.seconds)]
        return [head(layout, revision), raw, EXPIRE_SECONDS, len(puts), *with_them]

    async def _write_part(
        self, partition: int, part: Sequence[tuple[_Change, list[str], list[Argument]]]
    ) -> list[_Change]:
        keys = [self._keys.gate(partition), *(name for _, names, _ in part for name in names)]
        arguments = [self._gates[partition].text, *(argument for *_, several in part for argument in several)]
        try:
            written = await self._trips.run(self._write, keys, arguments)
        except WrongTypeError:
            raise CorruptStateError(", or ".join(names[0] for _, names, _ in part), "is no string") from None
        return [change for (change, *_), done in zip(part, written, strict=True) if not done]


class _Counts:
    """Which decisions were new to any of the entities that count them."""

    def __init__(self) -> None:
        self._by_entity: list[set[tuple[int, int]]] = []

    @property
    def new(self) -> set[tuple[int, int]]:
        return set().union(*self._by_entity)

    def of(self, batch: Sequence[LoggedDecision]) -> Callable[[History, list[bytes | None]], list[_Put] | None]:
        new: set[tuple[int, int]] = set()
        self._by_entity.append(new)

        def apply(history: History, _: list[bytes | None]) -> list[_Put] | None:
            new.clear()  # a write that was refused counted nothing
            for decision in batch:
                if decision.sequence > history.decisions.get(decision.partition, 0):
                    history.count(decision.transaction.second, counted_anywhere(decision.transaction))
                    history.decisions[decision.partition] = decision.sequence
                    new.add((decision.partition, decision.sequence))
            return [] if new else None

        return apply
