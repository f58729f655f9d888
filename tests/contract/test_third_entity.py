"""An entity that is declared as data, in a few lines, is served and recovered as those that ship."""

from datetime import UTC, datetime

import pytest
from contract.events import KEYS, LEAP_DAY, in_redis, label, transaction

from feature_store.definitions import DAYS, HOURS, Aggregate, Entity, Feature, Measure, Op, Tile, Writer
from feature_store.entity_writer import LoggedDecision, LoggedLabel, RestoredDecision
from feature_store.feature_set import FeatureSet
from feature_store.features import CARD_MEAN, ENTITIES, FEATURES, MERCHANT_DELAY
from feature_store.held import Held
from feature_store.layout import LayoutError, claim_layout
from feature_store.outbox import Outbox
from services.audit.state import actual, differences, expected
from services.audit.whole_log import Log
from services.decision.decide import Decide
from services.decision.policy import Policy
from services.decision.record import Stored, decode_record, placed
from services.metrics import Metrics

DEVICE = Entity("device", key="device_id", written_by=Writer.UPDATER)
SEEN_1D = Aggregate(DEVICE, Op.TOTAL, Measure.COUNT, Tile.HOUR, 24, MERCHANT_DELAY)
SPENT_7D = Aggregate(DEVICE, Op.TOTAL, Measure.AMOUNT, Tile.DAY, 7, MERCHANT_DELAY)
WITH_DEVICES = FeatureSet(
    (*ENTITIES, DEVICE),
    (*FEATURES, Feature("device_count_1d", "value", (SEEN_1D,)), Feature("device_amount_7d", "money", (SPENT_7D,))),
    own_mean=CARD_MEAN,
)


class Model:
    version = "model"

    def score(self, row):
        return 0.1


class System:
    """What the doors, the relay and the updater do, with devices."""

    def __init__(self, client, gates):
        self.gates = gates
        self.store = in_redis(client, gates, WITH_DEVICES)
        self._outbox = Outbox(client, KEYS, gates)
        self._decide = Decide(
            store=self.store.decisions,
            model=Model(),
            policy=Policy(review=0.5, decline=0.8, names=WITH_DEVICES.names),
            metrics=Metrics(),
            now=lambda: datetime(2026, 11, 1, tzinfo=UTC),
            features=WITH_DEVICES,
        )

    async def decide_all(self, transactions):
        """Decide and publish; gives the log."""
        for t in transactions:
            await self._decide(t)
        log = Log([[] for _ in range(KEYS.partitions)])
        for partition, entries in (await self._outbox.read(range(KEYS.partitions), 1_000)).items():
            for entry in entries:
                record = decode_record(placed(entry.record, 0, partition, entry.sequence))
                log.decisions[partition].append(record)
            await self._outbox.trim({partition: entries[-1].sequence})
        return log

    async def count(self, log):
        return await self.store.writer.count([LoggedDecision(r.partition, r.sequence, r.transaction) for r in log])

    async def restore(self, log):
        for partition, records in enumerate(log.decisions):
            stored = [Stored.of(r.transaction, r.answer).to_bytes() for r in records]
            again = [
                RestoredDecision(r.sequence, r.transaction, r.counted, kept, 3_600)
                for r, kept in zip(records, stored, strict=True)
            ]
            await self.store.writer.restore(partition, again)

    async def served(self, *, device, after=HOURS):
        """The two features of a device and what they are from, some seconds later."""
        t = transaction(999, card="new", merchant="new", device=device, second=LEAP_DAY + after)
        seen = await self.store.decisions.read(t)
        row = WITH_DEVICES.row(t, seen.reads(t.second)).tolist()
        return row[-2:], seen.held


TRANSACTIONS = [
    transaction(
        number,
        card=f"c{number % 7}",
        merchant=f"m{number % 3}",
        amount=1_000 + 100 * number,
        device=[None, "phone", "laptop"][number % 3],
        second=LEAP_DAY + number,
    )
    for number in range(30)
]
SPENT = sum(t.amount for t in TRANSACTIONS if t.device_id == "phone") / 100


@pytest.fixture
async def system(client, opened):
    return System(client, await opened(client, KEYS))


async def test_what_a_device_did_is_served_to_its_next_one(system):
    log = await system.decide_all(TRANSACTIONS)
    assert (await system.served(device="phone"))[0] == [0, 0]  # the updater writes devices
    assert await system.count(log) == 30
    features, held = await system.served(device="phone", after=HOURS)
    assert features == [10, SPENT]
    assert (await system.served(device="phone", after=3 * DAYS))[0] == [0, SPENT]
    partitions = {KEYS.partition(t.card_id) for t in TRANSACTIONS if t.device_id == "phone"}
    assert held["device"].decisions.keys() == partitions


async def test_without_a_device_nothing_is_known_of_it(system):
    await system.count(await system.decide_all(TRANSACTIONS))
    assert await system.served(device=None) == ([0, 0], {"card": Held(), "merchant": Held()})


async def test_a_label_that_names_no_device_leaves_it_alone(system):
    t = TRANSACTIONS[1]
    await system.count(await system.decide_all([t]))
    assert await system.store.writer.label([LoggedLabel(0, 0, label(t))]) == [True]
    seen = await system.store.decisions.read(
        transaction(99, card=t.card_id, merchant=t.merchant_id, device=t.device_id)
    )
    assert [history.labels for history in seen.histories] == [{0: 0}, {0: 0}, {}]


async def test_devices_come_back_from_the_log(reader, client, opened, system):
    log = await system.decide_all(TRANSACTIONS)
    await system.count(log)
    before = await system.served(device="phone")
    assert before[0] == [10, SPENT]
    await client.flushdb()
    recovered = System(client, await opened(client, KEYS))
    assert (await recovered.served(device="phone"))[0] == [0, 0]
    await recovered.restore(log)
    await recovered.count(log)
    assert await recovered.served(device="phone") == before
    assert differences(expected(log, KEYS, WITH_DEVICES), actual(reader, WITH_DEVICES)) == []


async def test_state_without_devices_is_refused(client):
    await claim_layout(client, FeatureSet(ENTITIES, FEATURES, own_mean=CARD_MEAN), KEYS.partitions)
    with pytest.raises(LayoutError, match="fraud rebuild"):
        await claim_layout(client, WITH_DEVICES, KEYS.partitions)
