"""A log as the system makes it, without a server: decisions over the store in memory, and an updater that runs late."""

import asyncio
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest

from feature_store.definitions import NAMES
from feature_store.keys import Keys
from feature_store.memory import MemoryStore
from feature_store.transaction import Label, Transaction
from services.audit.whole_log import Log
from services.decision.decide import Decide
from services.decision.policy import Action, Policy, Rule
from services.decision.record import decode_record, placed
from services.metrics import Metrics

KEYS = Keys(3)
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
POLICY = Policy(review=0.2, decline=0.5, rules=(Rule("busy", "merchant_count_1h", 3, Action.REVIEW),))


class Model:
    """Scores what a decision has seen: the card's velocity and the merchant's known frauds."""

    version = "model"

    def score(self, row):
        return min(1.0, float(row[NAMES.index("card_count_10m")] + row[NAMES.index("merchant_frauds_7d")]) / 10)


class Store(MemoryStore):
    """In memory; `meanwhile` is what other processes do between a read and its commit."""

    meanwhile = None

    async def commit(self, transaction, seen, write, *, force=False):
        if self.meanwhile:
            await self.meanwhile()
        return await super().commit(transaction, seen, write, force=force)


class Story:
    """What happens, in order; `log` is what is to be read of it in the end."""

    model, policy, keys = Model(), POLICY, KEYS

    def __init__(self):
        self.store = Store(KEYS)
        self._transactions = 0
        self._labels = {}
        self._offsets = defaultdict(int)
        self._counted = defaultdict(int)
        self._clock = NOON
        self._decide, self._decide_elsewhere = self._process(), self._process()

    def _process(self):
        return Decide(store=self.store, model=self.model, policy=self.policy, metrics=Metrics(), now=self._tick)

    def _tick(self):
        self._clock += timedelta(milliseconds=3)
        return self._clock

    def _transaction(self, *, card="c0", merchant="m0", amount=1_000, after=0):
        self._transactions += 1
        return Transaction(
            transaction_id=f"t{self._transactions}",
            card_id=card,
            merchant_id=merchant,
            amount=amount,
            currency="EUR",
            event_time=NOON + timedelta(seconds=after),
        )

    def decide(self, **changes):
        """Decide one more transaction, `after` seconds from noon; gives it."""
        transaction = self._transaction(**changes)
        asyncio.run(self._decide(transaction))
        return transaction

    def decide_while_the_card_keeps_moving(self, *, amount, **changes):
        """Decide one that is committed by force, because another of amount 1 always comes before its commit."""

        async def meanwhile():
            self.store.meanwhile = None
            await self._decide_elsewhere(self._transaction(amount=1, **changes))
            self.store.meanwhile = meanwhile

        self.store.meanwhile = meanwhile
        self.decide(amount=amount, **changes)
        self.store.meanwhile = None

    def label(self, of, *, is_fraud=True):
        """Apply a label of a transaction; a second one of the same has no effect."""
        label = Label(
            transaction_id=of.transaction_id,
            card_id=of.card_id,
            merchant_id=of.merchant_id,
            event_time=of.event_time,
            is_fraud=is_fraud,
        )
        identity, partition = (of.card_id, of.transaction_id), KEYS.partition(of.card_id)
        place = (partition, self._offsets[partition])
        self._offsets[partition] += 1
        if identity not in self._labels:
            self._labels[identity] = (place, label)
            asyncio.run(self.store.label(label, place))

    def follow(self, partition, most=1_000):
        """Have the updater count the next decisions of a partition for their merchants."""
        records = self.log().decisions[partition][self._counted[partition] :][:most]
        asyncio.run(self.store.count(partition, [(record.sequence, record.transaction) for record in records]))
        self._counted[partition] += len(records)

    def log(self):
        """Read it all."""
        log = Log([[] for _ in range(KEYS.partitions)], dict(self._labels))
        for partition, sequence, raw in self.store.log:
            log.decisions[partition].append(decode_record(placed(raw, 0, partition, sequence)))
        return log


@pytest.fixture
def new_story():
    """`new_story()`: nothing has happened yet."""
    return Story


@pytest.fixture
def story():
    """Forty decisions: four cards in three partitions, two merchants, chargebacks, an updater that is late."""
    made = Story()
    for number in range(40):
        of_last_week = 8 * 86_400 if number < 10 else 0
        t = made.decide(
            card=f"c{number % 4}",
            merchant=f"m{number % 2}",
            amount=100 * (number % 7 + 1),
            after=20 * number - of_last_week,
        )
        if number % 5 == 0:
            made.label(t)
        if number % 3 == 0:
            made.follow(number // 3 % KEYS.partitions, 5)
    return made
