"""Transactions, labels and stores, as the contract tests make them."""

from dataclasses import dataclass
from datetime import UTC, datetime

from memory_store import MemoryStore

from feature_store.decision_store import Decided, DecisionStore, RedisDecisionStore, Write
from feature_store.entity_writer import EntityWriter, LoggedDecision, RedisEntityWriter
from feature_store.feature_set import FeatureSet
from feature_store.features import SHIPPED
from feature_store.keys import Keys
from feature_store.round_trips import RoundTrips
from feature_store.transaction import Label, Transaction

KEYS = Keys(12)
LEAP_DAY = int(datetime(2024, 2, 29, 23, 59, 30, tzinfo=UTC).timestamp())
"""Half a minute before it ends."""


def transaction(number=0, card="c0", merchant="m0", *, amount=1_000, second=LEAP_DAY, device=None):
    return Transaction(
        transaction_id=f"t{number}",
        card_id=card,
        merchant_id=merchant,
        amount=amount,
        currency="EUR",
        event_time=datetime.fromtimestamp(second, UTC),
        device_id=device,
    )


def label(of, *, is_fraud=True, merchant=None):
    return Label(
        transaction_id=of.transaction_id,
        card_id=of.card_id,
        merchant_id=merchant or of.merchant_id,
        event_time=of.event_time,
        is_fraud=is_fraud,
    )


def write(t, seen, features=SHIPPED, *, stored=b"answer"):
    """What a decision leaves: the card as seen, with `t` counted."""
    card, second = features.entities.index(features.committed), t.second
    history = seen.histories[card]
    history.count(second, features.counted(t, history.read(second)))
    return Write(history, stored, b"{}")


@dataclass(frozen=True)
class Stores:
    """A decision store and an entity writer that belong together."""

    decisions: DecisionStore
    writer: EntityWriter
    features: FeatureSet = SHIPPED

    async def commit(self, t, seen, *, stored=b"answer"):
        return await self.decisions.commit(t, seen, write(t, seen, self.features, stored=stored))

    async def decide(self, t, *, stored=b"answer"):
        """What `decide` does, without a model."""
        seen = await self.decisions.read(t)
        return seen if isinstance(seen, Decided) else await self.commit(t, seen, stored=stored)

    async def decide_and_count(self, t):
        """What `decide` and then the updater do."""
        committed = await self.decide(t)
        await self.writer.count([LoggedDecision(committed.partition, committed.sequence, t)])
        return committed


def in_memory(features=SHIPPED):
    store = MemoryStore(KEYS, features)
    return Stores(store, store.writer, features)


def in_redis(client, gates, features=SHIPPED, *, keys=KEYS, trips=None):
    trips = trips or RoundTrips(client)
    decisions = RedisDecisionStore(trips, keys, features, keep_seconds=3_600)
    return Stores(decisions, RedisEntityWriter(trips, keys, features, gates), features)


class Interrupted(RoundTrips):
    """Lets something happen right behind one of its gets."""

    def __init__(self, client, happen, *, behind=1):
        super().__init__(client)
        self._happen, self._behind = happen, behind

    async def get(self, keys):
        values = await super().get(keys)
        self._behind -= 1
        if self._behind == 0:
            await self._happen()
        return values
