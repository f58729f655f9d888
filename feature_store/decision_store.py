"""What the decision needs of a store, and the store in Redis: one read, one write, both atomic on the card.

The write is a compare-and-set on the card's version. What it stores it takes as bytes: it knows cards and order, not
what a decision is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import msgspec

from feature_store.definitions import Entity, Measure
from feature_store.formulas import Aggregates
from feature_store.held import Held, positions
from feature_store.keys import Keys
from feature_store.pending import Pending
from feature_store.redis_client import Client
from feature_store.scripts import flat, load
from feature_store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Seen:
    """State as read: the integers of card and merchant, and which part of the log they are from."""

    aggregates: Aggregates
    held: Held
    pending_since: float
    """Second of the oldest committed event that merchant state may lack: infinity if there is none, minus infinity if
    it is not known."""

    @property
    def version(self) -> int:
        """The card's, which `commit` compares."""
        return self.held.card_decisions


@dataclass(frozen=True, slots=True)
class Decided:
    """The transaction was decided before: what is stored under its id."""

    stored: bytes


@dataclass(frozen=True, slots=True)
class Moved:
    """Another decision of the card was committed since the read; nothing was written. `seen` is the state now."""

    seen: Seen


@dataclass(frozen=True, slots=True)
class Committed:
    """Counted, stored and in the outbox, at this place of the log."""

    partition: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Write:
    """What `commit` writes: `counted` into the card's tiles, `stored` under the id, `record` into the outbox."""

    counted: Mapping[Measure, int]
    stored: bytes
    record: bytes


class DecisionStore(Protocol):
    """Where decisions are kept. Errors of the connection are the implementation's own."""

    async def read(self, transaction: Transaction) -> Seen | Decided:
        """Read card and merchant as of the transaction's time, or the decision if there is one."""

    async def commit(
        self, transaction: Transaction, seen: Seen, write: Write, *, force: bool = False
    ) -> Committed | Decided | Moved:
        """Write everything at once if the card is as `seen`, or anyhow with `force`; else write nothing."""

    async def decided(self, card_id: str, transaction_id: str) -> bytes | None:
        """Look up what is stored under an id."""


class RedisDecisionStore:
    """The store in Redis: `lua/read_card.lua`, `lua/read_merchant.lua`, `lua/commit.lua`.

    Raises:
        redis.exceptions.RedisError: Redis did not answer in time or refused. A commit may or may not have
            happened then; deciding the same transaction again is safe. `ClosedError`: nothing can be committed
            until a recovery has brought state up to the log.
    """

    def __init__(self, client: Client, keys: Keys, *, keep_seconds: int) -> None:
        self._client = client
        self._keys = keys
        self._keep_seconds = keep_seconds
        self._pending = Pending(client, keys)
        self._read_card = load("read_card")
        self._read_merchant = load("read_merchant")
        self._commit = load("commit")

    async def prepare(self) -> None:
        """Give Redis the scripts, so that the first transaction does not wait for their compilation."""
        for script in (self._read_card, self._read_merchant, self._commit):
            await self._client.script_load(script.text)

    async def read(self, transaction: Transaction) -> Seen | Decided:
        """See `DecisionStore.read`: one round trip (two on a cluster)."""
        t = transaction
        card_keys = (self._keys.history(Entity.CARD, t), self._keys.decided(t.card_id, t.transaction_id))
        gate = self._keys.gate(self._keys.partition(t.merchant_id))
        pending_since, (card, merchant) = await self._pending.since(
            [
                (self._read_card, card_keys, (t.second,)),
                (self._read_merchant, (self._keys.history(Entity.MERCHANT, t), gate), (t.second,)),
            ]
        )
        stored, *of_card = card
        return Decided(stored) if stored is not None else _seen(of_card, merchant, pending_since)

    async def commit(
        self, transaction: Transaction, seen: Seen, write: Write, *, force: bool = False
    ) -> Committed | Decided | Moved:
        """See `DecisionStore.commit`: one script in the card's slot."""
        t = transaction
        partition = self._keys.partition(t.card_id)
        keys = (
            self._keys.history(Entity.CARD, t),
            self._keys.decided(t.card_id, t.transaction_id),
            self._keys.sequence(partition),
            self._keys.outbox(partition),
            self._keys.pending(partition),
            self._keys.gate(partition),
        )
        expected = "*" if force else seen.version
        arguments = (t.second, expected, self._keep_seconds, write.stored, write.record, *flat(write.counted))
        outcome, *values = await self._commit.run(self._client, keys, arguments)
        if outcome == b"committed":
            return Committed(partition, values[0])
        if outcome == b"decided":
            return Decided(values[0])
        return Moved(_moved(seen, *values))

    async def decided(self, card_id: str, transaction_id: str) -> bytes | None:
        """See `DecisionStore.decided`."""
        stored: Any = await self._client.get(self._keys.decided(card_id, transaction_id))
        return stored if stored is None else bytes(stored)


def _seen(card: Sequence[Any], merchant: Sequence[Any], pending_since: float) -> Seen:
    """Put together what the scripts read: version, aggregates and positions; a merchant has no version."""
    version, of_card, card_positions = card
    of_merchant, merchant_positions, is_open = merchant
    _, card_labels = positions(card_positions)
    decisions, labels = positions(merchant_positions)
    held = Held(card_decisions=version, card_labels=card_labels, merchant_decisions=decisions, merchant_labels=labels)
    return Seen(Aggregates(tuple(of_card), tuple(of_merchant)), held, pending_since if is_open else -math.inf)


def _moved(seen: Seen, version: int, of_card: Sequence[int], card_positions: Sequence[bytes]) -> Seen:
    """Replace the card's part by its state now."""
    _, card_labels = positions(card_positions)
    held = msgspec.structs.replace(seen.held, card_decisions=version, card_labels=card_labels)
    return replace(seen, aggregates=Aggregates(tuple(of_card), seen.aggregates.merchant), held=held)
