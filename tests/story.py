"""A log as the system makes it, without a server: decisions over the store in memory, and an updater that runs late."""

import asyncio
from collections import defaultdict
from datetime import UTC, datetime, timedelta

from logged import label_of, paid
from memory_store import MemoryStore

from feature_store.entity_writer import LoggedDecision, LoggedLabel
from feature_store.features import SHIPPED
from feature_store.keys import Keys
from services.audit.whole_log import Log
from services.decision.decide import Decide
from services.decision.policy import Action, Policy, Rule
from services.decision.record import decode_record, placed
from services.metrics import Metrics

KEYS = Keys(3)
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Model:
    """Scores what a decision has seen: the card's velocity and the merchant's known frauds."""

    version = "model"

    def __init__(self, names):
        self._columns = [names.index("card_count_10m"), names.index("merchant_frauds_7d")]

    def score(self, row):
        return min(1.0, float(sum(row[column] for column in self._columns)) / 10)


class Client:
    """A synchronous client of the store in memory, as an audit has one of Redis."""

    def __init__(self, values):
        self._values = values

    def scan_iter(self, count):
        return [key.encode() for key in self._values]

    def type(self, _):
        return b"string"

    def get(self, key):
        return self._values[key.decode()]

    hgetall = xrange = zrange = get


class Story:
    """What happens, in order; `log` is what is to be read of it in the end."""

    keys = KEYS

    def __init__(self, features=SHIPPED):
        self.features = features
        self.model = Model(features.names)
        busy = Rule("busy", "merchant_count_1h", 3, Action.REVIEW)
        self.policy = Policy(review=0.2, decline=0.5, rules=(busy,), names=features.names)
        self.store = MemoryStore(KEYS, features)
        self.client = Client(self.store.state.values)
        self._transactions = 0
        self._labels = {}
        self._offsets = defaultdict(int)
        self._counted = defaultdict(int)
        self._clock = NOON
        self._decide = Decide(
            store=self.store,
            model=self.model,
            policy=self.policy,
            metrics=Metrics(),
            now=self._tick,
            features=features,
        )

    def _tick(self):
        self._clock += timedelta(milliseconds=3)
        return self._clock

    def decide(self, *, card="c0", merchant="m0", amount=1_000, after=0, **changes):
        """Decide one more transaction, `after` seconds from noon; gives it."""
        self._transactions += 1
        at = {"card_id": card, "merchant_id": merchant, "event_time": NOON + timedelta(seconds=after)}
        transaction = paid(f"t{self._transactions}", amount=amount, **at, **changes)
        asyncio.run(self._decide(transaction))
        return transaction

    def label(self, of, *, is_fraud=True):
        """Apply a label of a transaction; a second one of the same has no effect."""
        label, partition = label_of(of, is_fraud=is_fraud), KEYS.partition(of.card_id)
        logged = LoggedLabel(partition, self._offsets[partition], label)
        self._offsets[partition] += 1
        self._labels.setdefault((of.card_id, of.transaction_id), logged)
        asyncio.run(self.store.label([logged]))

    def follow(self, partition, most=1_000):
        """Have the updater count the next decisions of a partition."""
        records = self.log().decisions[partition][self._counted[partition] :][:most]
        batch = [LoggedDecision(partition, record.sequence, record.transaction) for record in records]
        asyncio.run(self.store.count(batch))
        self._counted[partition] += len(records)

    def follow_all(self):
        """Have the updater count all there is."""
        for partition in range(KEYS.partitions):
            self.follow(partition)

    def log(self):
        """Read it all."""
        log = Log([[] for _ in range(KEYS.partitions)], dict(self._labels))
        for partition, sequence, raw in self.store.log:
            log.decisions[partition].append(decode_record(placed(raw, 0, partition, sequence)))
        return log
