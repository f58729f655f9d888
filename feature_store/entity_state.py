"""What the log adds to state: decisions to their merchants, labels to card and merchant, each exactly once."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from feature_store.definitions import Entity
from feature_store.formulas import counted_at_merchant
from feature_store.gate import Gate
from feature_store.keys import Keys, owner
from feature_store.redis_client import Client
from feature_store.scripts import Argument, flat, load, run_all
from feature_store.transaction import Label, Transaction


class LabelConflictError(ValueError):
    """Another label stands for the same transaction."""


Position = tuple[int, Transaction]
"""A decided transaction and its sequence in a partition of the log."""
Place = tuple[int, int]
"""Partition and offset of a label in its topic."""


_ANOTHER_STANDS = -1


def said(label: Label) -> str:
    """Give what two labels of one transaction must agree in: when, whether fraud, and which merchant."""
    return f"{label.second} {int(label.is_fraud)} {label.merchant_id}"


class EntityState(Protocol):
    """Where the updater applies the log."""

    async def count(self, partition: int, decisions: Sequence[Position]) -> int:
        """Count decisions of one partition, in order, for their merchants; give how many were new."""

    async def label(self, label: Label, place: Place) -> bool:
        """Apply a label to card and merchant; False if it had been.

        Raises:
            LabelConflictError: another label stands for this transaction.
        """


class RedisEntityState:
    """The state in Redis: `lua/count_merchant.lua`, `lua/label.lua`.

    Raises:
        ClosedError: a gate is not as in `gates` any more: state may have gone back since.
    """

    def __init__(self, client: Client, keys: Keys, gates: Sequence[Gate]) -> None:
        self._client = client
        self._keys = keys
        self._gates = gates
        self._count = load("count_merchant")
        self._label = load("label")

    async def count(self, partition: int, decisions: Sequence[Position]) -> int:
        """See `EntityState.count`: one round trip, one call a merchant."""
        by_merchant: defaultdict[str, list[Argument]] = defaultdict(list)
        for sequence, t in decisions:
            values = flat(counted_at_merchant(t))
            by_merchant[t.merchant_id] += [sequence, t.second, len(values), *values]
        calls = []
        for merchant, batch in by_merchant.items():
            gate, text = self._gate(merchant)
            key = self._keys.history_of(Entity.MERCHANT, merchant)
            calls.append((self._count, (key, gate), (text, partition, *batch)))
        return sum(await run_all(self._client, calls))

    async def label(self, label: Label, place: Place) -> bool:
        """See `EntityState.label`: the card first, whose word stands; then the merchant. Each applies it once."""
        applied = False
        for entity in Entity:
            gate, text = self._gate(owner(entity, label))
            reply = await self._label.run(
                self._client,
                (self._keys.history(entity, label), self._keys.label(entity, label), gate),
                (text, entity, label.second, said(label), int(label.is_fraud), *place),
            )
            if reply == _ANOTHER_STANDS:
                raise LabelConflictError(f"another label stands for transaction {label.transaction_id}")
            applied = applied or reply == 1
        return applied

    def _gate(self, name: str) -> tuple[str, str]:
        """Give key and text of the gate that the card's or merchant's state is behind."""
        partition = self._keys.partition(name)
        return self._keys.gate(partition), self._gates[partition].text
