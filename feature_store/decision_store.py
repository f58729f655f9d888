"""What the decision needs of a store, and the store in Redis: one read, one write, the write atomic on the card.

The write is a compare-and-set on the card's revision. What it stores under the id and appends to the outbox it takes as
bytes: it knows entities and order, not what a decision is.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from feature_store.codec import CorruptStateError, decode, encode, head
from feature_store.definitions import Entity
from feature_store.feature_set import FeatureSet, Reads
from feature_store.gate import is_open
from feature_store.held import Held
from feature_store.history import History
from feature_store.keys import Keys
from feature_store.redis_client import UNAVAILABLE
from feature_store.round_trips import RoundTrips
from feature_store.scripts import ClosedError, WrongTypeError, load
from feature_store.transaction import Transaction

EXPIRE_SECONDS = 45 * 86_400
"""How long an entity without traffic is kept. Longer than any window reaches back, so its going is never seen."""


@dataclass(frozen=True, slots=True)
class Seen:
    """State as read: the history of each entity, in the order of the feature set, empty where nothing is known."""

    histories: tuple[History, ...]
    held: dict[str, Held]
    """By entity that the transaction names: which part of the log its history is from."""
    pending_since: float
    """Second of the oldest committed event that merchant state may lack: infinity if there is none, minus infinity if
    it is not known."""
    gate: str
    """The gate of the card's partition, as it was found."""

    def reads(self, second: int) -> Reads:
        """Read what the features need, as of event time `second`."""
        return [history.read(second) for history in self.histories]

    def covers(self, second: int) -> bool:
        """Whether what is kept reaches back as far as every window of an event at `second`."""
        return all(history.covers(second) for history in self.histories)


class Decided(NamedTuple):
    """The transaction was decided before: what is stored under its id."""

    stored: bytes


class Moved(NamedTuple):
    """The card was written since the read; nothing was written now. `seen` is the state now."""

    seen: Seen


class Committed(NamedTuple):
    """Counted, stored and in the outbox, at this place of the log."""

    partition: int
    sequence: int


class Write(NamedTuple):
    """What `commit` writes: `card` is the history it leaves, `stored` goes under the id, `record` into the outbox."""

    card: History
    stored: bytes
    record: bytes


class DecisionStore(Protocol):
    """Where decisions are kept. Errors of the connection are the implementation's own."""

    async def read(self, transaction: Transaction) -> Seen | Decided:
        """Read every entity that the transaction names, or the decision if there is one."""

    async def commit(self, transaction: Transaction, seen: Seen, write: Write) -> Committed | Decided | Moved:
        """Write everything at once if the card is as `seen`; else write nothing."""

    async def decided(self, card_id: str, transaction_id: str) -> bytes | None:
        """Look up what is stored under an id."""


class RedisDecisionStore:
    """The store in Redis: plain reads, and `lua/commit.lua`.

    Raises:
        redis.exceptions.RedisError: Redis did not answer in time or refused. A commit may or may not have
            happened then; deciding the same transaction again is safe.
        ClosedError: nothing can be decided until a recovery has brought state up to the log.
        CorruptStateError: the bytes of an entity are damaged, or another layout's.
    """

    def __init__(self, trips: RoundTrips, keys: Keys, features: FeatureSet, *, keep_seconds: int) -> None:
        self._trips = trips
        self._keys = keys
        self._features = features
        self._keep_seconds = keep_seconds
        self._commit = load("commit")
        self._read_gate = load("read_gate")
        self._pending = [keys.pending_since(partition) for partition in range(keys.partitions)]

    async def prepare(self) -> None:
        """Give Redis the scripts, so that the first transaction does not wait for their compilation."""
        await self._trips.prepare(self._commit, self._read_gate)

    async def read(self, transaction: Transaction) -> Seen | Decided:
        """See `DecisionStore.read`: one round trip; on a cluster two, since what is pending must be read first."""
        t, keys_of = transaction, self._keys
        card_partition = keys_of.partition(t.card_id)
        named = [(e, v) for e, v in zip(self._features.entities, self._features.keys_of(t), strict=True) if v]
        names = [keys_of.history(entity, value) for entity, value in named]
        keys = (keys_of.decided(t.card_id, t.transaction_id), keys_of.gate(card_partition), *names)
        followed = {keys_of.gate(keys_of.partition(value)) for e, value in named if e in self._features.followers}
        if self._trips.on_cluster:
            since = await self._look_first()
            values, *texts = await asyncio.gather(
                self._trips.get(keys), *(self._trips.run(self._read_gate, (each,), ()) for each in followed)
            )
            if not all(texts):  # behind the values in the same round trip: their server has not been started again
                since = -math.inf
        else:
            values = await self._trips.get((*keys, *self._pending, *followed))
            since = _since(values[len(keys) :][: len(self._pending)])
            if not all(map(is_open, values[len(keys) + len(self._pending) :])):
                since = -math.inf
        stored, text, *histories = values[: len(keys)]
        if stored is not None:
            return Decided(stored)
        if not is_open(text):
            raise ClosedError(f"partition {card_partition} is not open")
        return self._seen(named, names, histories, since, (text or b"").decode())

    async def commit(self, transaction: Transaction, seen: Seen, write: Write) -> Committed | Decided | Moved:
        """See `DecisionStore.commit`: one script in the card's slot."""
        t, card = transaction, self._features.committed
        partition = self._keys.partition(t.card_id)
        key = self._keys.history(card, t.card_id)
        layout, revision = self._features.layout, write.card.revision
        keys = (
            self._keys.gate(partition),
            key,
            self._keys.decided(t.card_id, t.transaction_id),
            self._keys.sequence(partition),
            self._keys.outbox(partition),
            self._keys.pending(partition),
            self._keys.pending_since(partition),
        )
        arguments = (
            seen.gate,
            head(layout, revision),
            encode(write.card, key, layout, revision + 1),
            EXPIRE_SECONDS,
            write.stored,
            self._keep_seconds,
            write.record,
            t.second,
        )
        try:
            outcome, value = await self._trips.run(self._commit, keys, arguments)
        except WrongTypeError:
            raise CorruptStateError(key, "is no string") from None
        if outcome == b"committed":
            return Committed(partition, value)
        if outcome == b"decided":
            return Decided(value)
        history = decode(value, key, self._features.plans[card], layout, partition)
        return Moved(with_card(self._features, seen, history))

    async def decided(self, card_id: str, transaction_id: str) -> bytes | None:
        """See `DecisionStore.decided`."""
        (stored,) = await self._trips.get([self._keys.decided(card_id, transaction_id)])
        return stored

    async def _look_first(self) -> float:
        """Look up what is pending on all nodes."""
        try:
            return _since(await self._trips.get(self._pending))
        except UNAVAILABLE:  # a server is away, and with it what it knows
            return -math.inf

    def _seen(
        self,
        named: Sequence[tuple[Entity, str]],
        names: Sequence[str],
        found: Sequence[bytes | None],
        since: float,
        gate: str,
    ) -> Seen:
        plans, layout = self._features.plans, self._features.layout
        histories = {
            entity: decode(raw, name, plans[entity], layout, self._keys.partition(value))
            for (entity, value), name, raw in zip(named, names, found, strict=True)
        }
        return seen_of(self._features, histories, since, gate)


def seen_of(features: FeatureSet, histories: Mapping[Entity, History], since: float, gate: str) -> Seen:
    """Put together what was read; an entity that the transaction does not name has an empty history."""
    every = tuple(histories.get(entity) or History(features.plans[entity]) for entity in features.entities)
    return Seen(every, {entity.name: _held(history) for entity, history in histories.items()}, since, gate)


def with_card(features: FeatureSet, seen: Seen, card: History) -> Seen:
    """Replace the card's part by its state now."""
    index = features.entities.index(features.committed)
    histories = (*seen.histories[:index], card, *seen.histories[index + 1 :])
    return replace(seen, histories=histories, held={**seen.held, features.committed.name: _held(card)})


def _held(history: History) -> Held:
    return Held(decisions=history.decisions, labels=history.labels)


def _since(values: Sequence[bytes | None]) -> float:
    return min([int(value) for value in values if value is not None]) if any(values) else math.inf
