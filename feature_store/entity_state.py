"""What the log adds to state: decisions to their merchants, labels to card and merchant, each exactly once."""

from collections.abc import Sequence
from typing import Protocol

from feature_store.definitions import Entity
from feature_store.formulas import counted_at_merchant
from feature_store.keys import Keys
from feature_store.redis_client import Client
from feature_store.scripts import Call, flat, load, run_all
from feature_store.transaction import Label, Transaction


class LabelConflictError(ValueError):
    """Another label stands for the same transaction."""


Position = tuple[int, Transaction]
"""A decided transaction and its sequence in a partition of the log."""


class EntityState(Protocol):
    """Where the updater applies the log."""

    async def count(self, partition: int, decisions: Sequence[Position]) -> int:
        """Count decisions of one partition, in order, for their merchants; give how many were new."""

    async def label(self, label: Label) -> bool:
        """Apply a label to card and merchant; False if it had been.

        Raises:
            LabelConflictError: another label stands for this transaction.
        """


class RedisEntityState:
    """The state in Redis: `lua/count_merchant.lua`, `lua/label.lua`."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._count = load("count_merchant")
        self._label = load("label")

    async def count(self, partition: int, decisions: Sequence[Position]) -> int:
        """See `EntityState.count`: one round trip for all."""
        calls: list[Call] = [
            (
                self._count,
                (self._keys.merchant(t.merchant_id),),
                (partition, sequence, t.second, *flat(counted_at_merchant(t))),
            )
            for sequence, t in decisions
        ]
        return sum(await run_all(self._client, calls))

    async def label(self, label: Label) -> bool:
        """See `EntityState.label`: a script for each entity, each applying the label once by itself."""
        calls: list[Call] = []
        for entity in Entity:
            owner = self._keys.card(label.card_id) if entity is Entity.CARD else self._keys.merchant(label.merchant_id)
            said = f"{label.second} {int(label.is_fraud)} {label.merchant_id}"
            arguments = (entity, label.second, said, int(label.is_fraud))
            calls.append((self._label, (owner, self._keys.label(entity, label)), arguments))
        replies = await run_all(self._client, calls)
        if -1 in replies:
            raise LabelConflictError(f"another label stands for transaction {label.transaction_id}")
        return 1 in replies
