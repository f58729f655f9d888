"""Puts decisions of the log back into a card's state: what `commit` wrote, for a Redis that lost it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from feature_store.definitions import Entity, Measure
from feature_store.gate import Gate
from feature_store.keys import Keys
from feature_store.redis_client import Client
from feature_store.scripts import Argument, flat, load
from feature_store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Restored:
    """A decision as `commit` wrote it, at its sequence; kept under its id for `keep_seconds` more (0: no longer)."""

    sequence: int
    transaction: Transaction
    counted: Mapping[Measure, int]
    stored: bytes
    keep_seconds: int


class Cards:
    """The cards of all partitions, behind gates that a recovery has closed."""

    def __init__(self, client: Client, keys: Keys, gates: Sequence[Gate]) -> None:
        self._client = client
        self._keys = keys
        self._gates = gates
        self._restore = load("restore")

    async def restore(self, partition: int, decisions: Sequence[Restored]) -> int:
        """Restore the decisions of one partition, in order, that its cards lack; give how many those were.

        Raises:
            ClosedError: another recovery has begun, or the server was started again.
        """
        names = [self._keys.sequence(partition), self._keys.gate(partition)]
        arguments: list[Argument] = [self._gates[partition].text]
        for decision in decisions:
            t, values = decision.transaction, flat(decision.counted)
            names += [self._keys.history(Entity.CARD, t), self._keys.decided(t.card_id, t.transaction_id)]
            arguments += [decision.sequence, t.second, decision.keep_seconds, decision.stored, len(values), *values]
        return int(await self._restore.run(self._client, names, arguments))

    async def sequence(self, partition: int) -> int:
        """Give the last sequence that the cards of a partition have."""
        return int(await self._client.get(self._keys.sequence(partition)) or 0)
