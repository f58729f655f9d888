"""The store in memory: what the Redis scripts are held against."""

import math
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from feature_store.decision_store import Committed, Decided, Moved, Seen, Write
from feature_store.definitions import Entity, Measure
from feature_store.entity_state import LabelConflictError, Place, Position, said
from feature_store.formulas import Aggregates, counted_at_merchant
from feature_store.held import Held, Offsets
from feature_store.histories import Histories
from feature_store.keys import Keys, owner
from feature_store.transaction import Label, Transaction


class MemoryStore:
    """A `DecisionStore` and an `EntityState` in one, in plain Python, with its log: (partition, sequence, record)."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self.histories = Histories()
        self.log: list[tuple[int, int, bytes]] = []
        self._versions: defaultdict[str, int] = defaultdict(int)
        self._stored: dict[tuple[str, str], bytes] = {}
        self._sequences: defaultdict[int, int] = defaultdict(int)
        self._counted: defaultdict[str, Offsets] = defaultdict(dict)
        self._labels: dict[tuple[str, str], str] = {}
        self._labelled: defaultdict[tuple[Entity, str], Offsets] = defaultdict(dict)

    async def read(self, transaction: Transaction) -> Seen | Decided:
        """See `DecisionStore.read`."""
        stored = await self.decided(transaction.card_id, transaction.transaction_id)
        if stored is not None:
            return Decided(stored)
        held = Held(
            card_decisions=self._versions[transaction.card_id],
            card_labels=dict(self._labelled[Entity.CARD, transaction.card_id]),
            merchant_decisions=dict(self._counted[transaction.merchant_id]),
            merchant_labels=dict(self._labelled[Entity.MERCHANT, transaction.merchant_id]),
        )
        return Seen(self.histories.read(transaction), held, math.inf)

    async def commit(
        self, transaction: Transaction, seen: Seen, write: Write, *, force: bool = False
    ) -> Committed | Decided | Moved:
        """See `DecisionStore.commit`."""
        now = await self.read(transaction)
        if isinstance(now, Decided):
            return now
        if now.version != seen.version and not force:
            card = {name: getattr(now.held, name) for name in ("card_decisions", "card_labels")}
            aggregates = Aggregates(now.aggregates.card, seen.aggregates.merchant)
            return Moved(Seen(aggregates, msgspec.structs.replace(seen.held, **card), seen.pending_since))
        self.histories.add(Entity.CARD, transaction, dict(write.counted))
        self._versions[transaction.card_id] += 1
        self._stored[transaction.card_id, transaction.transaction_id] = write.stored
        partition = self._keys.partition(transaction.card_id)
        self._sequences[partition] += 1
        self.log.append((partition, self._sequences[partition], write.record))
        return Committed(partition, self._sequences[partition])

    async def decided(self, card_id: str, transaction_id: str) -> bytes | None:
        """See `DecisionStore.decided`."""
        return self._stored.get((card_id, transaction_id))

    async def count(self, partition: int, decisions: Sequence[Position]) -> int:
        """See `EntityState.count`."""
        new = 0
        for sequence, t in decisions:
            if sequence > self._counted[t.merchant_id].get(partition, 0):
                self._counted[t.merchant_id][partition] = sequence
                self.histories.add(Entity.MERCHANT, t, counted_at_merchant(t))
                new += 1
        return new

    async def label(self, label: Label, place: Place) -> bool:
        """See `EntityState.label`."""
        identity = (label.card_id, label.transaction_id)
        if identity in self._labels:
            if self._labels[identity] != said(label):
                raise LabelConflictError(f"another label stands for transaction {label.transaction_id}")
            return False
        self._labels[identity] = said(label)
        for entity in Entity:
            self.histories.add(entity, label, {Measure.FRAUDS: int(label.is_fraud)})
            self._labelled[entity, owner(entity, label)][place[0]] = place[1]
        return True
