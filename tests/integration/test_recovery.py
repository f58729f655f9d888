"""Recovery with a real broker and a real Redis: state becomes what the log makes it, and only one epoch is in force."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from aiokafka import TopicPartition
from redis import Redis

from feature_store.decision_store import RedisDecisionStore
from feature_store.features import SHIPPED
from feature_store.gate import Gates
from feature_store.keys import Keys
from feature_store.outbox import Outbox
from feature_store.progress import Progress
from feature_store.redis_client import connect
from feature_store.round_trips import RoundTrips
from feature_store.scripts import ClosedError
from feature_store.transaction import Label, Transaction
from services.audit.state import actual, differences, expected
from services.audit.whole_log import whole_log
from services.decision.decide import Decide
from services.decision.policy import Policy
from services.following import Following
from services.kafka import open_producer, open_reader
from services.log import FOLLOWS, read
from services.metrics import Metrics
from services.recovery import Recoveries
from services.relay import MOST_RECORDS, publish
from services.resources import utc_now
from services.settings import Settings
from services.stack.librdkafka_broker import PARTITIONS, librdkafka_broker, touch_topics
from services.topics import ALL, DECISIONS, LABELS

pytest.importorskip("confluent_kafka")
pytestmark = pytest.mark.timeout(180)

KEYS = Keys(PARTITIONS)
KEEP = timedelta(days=7)
TOPICS = [TopicPartition(topic, partition) for topic in (DECISIONS, LABELS) for partition in range(PARTITIONS)]


class Model:
    version = "model"

    def score(self, row):
        return min(1.0, float(row[SHIPPED.names.index("card_count_10m")]) / 100)


class Place:
    """A broker and a Redis, and what doors and relays do there; no updater, so only a recovery brings up merchants."""

    def __init__(self, client, url, settings, producer, reader):
        self.client, self.url, self.settings = client, url, settings
        self.producer, self.reader = producer, reader
        self.gates = Gates(client, KEYS)
        self._decide = Decide(
            store=RedisDecisionStore(RoundTrips(client), KEYS, SHIPPED, keep_seconds=int(KEEP.total_seconds())),
            model=Model(),
            policy=Policy(review=0.02, decline=0.04, rules=()),
            metrics=Metrics(),
            now=utc_now,
        )
        self._numbers = itertools.count()

    def go_on_from(self, other):
        """Decide other transactions than `other` did."""
        self._numbers = other._numbers

    async def recover(self, now=None):
        await (await self.begin()).run(self.producer, now or utc_now(), lambda _done, _total: None)

    async def begin(self):
        return await self.begin_with(self.reader)

    async def begin_with(self, reader):
        return await Recoveries(self.settings, self.client, KEYS, SHIPPED).begin(reader)

    async def decide(self, count):
        """Decide new transactions of a few cards and merchants; gives them."""
        now = datetime.now(UTC).replace(microsecond=0)
        transactions = [
            Transaction(
                transaction_id=f"t{number}",
                card_id=f"c{number % 7}",
                merchant_id=f"m{number % 5}",
                amount=100 + 37 * number,
                currency="EUR",
                event_time=now - timedelta(seconds=1_000 - number),
            )
            for number in itertools.islice(self._numbers, count)
        ]
        for transaction in transactions:
            await self._decide(transaction)
        return transactions

    async def publish(self):
        """Publish what the outboxes hold, as a relay of the epoch that stands."""
        gates = await self.gates.all_open()
        outbox, epochs = Outbox(self.client, KEYS, gates), {n: gate.epoch for n, gate in enumerate(gates)}
        while entries := await outbox.read(range(PARTITIONS), MOST_RECORDS):
            await outbox.trim(await publish(self.producer, epochs, entries))

    async def label(self, transactions):
        """Produce a label of each, and one that is none behind it; every other one is a fraud."""
        for number, t in enumerate(transactions):
            label = Label(
                transaction_id=t.transaction_id,
                card_id=t.card_id,
                merchant_id=t.merchant_id,
                event_time=t.event_time,
                is_fraud=number % 2 == 0,
            )
            for value in (msgspec.json.encode(label), b"no label"):
                await self.producer.send_and_wait(LABELS, value, partition=KEYS.partition(t.card_id))

    async def feed(self, count):
        """Decide, publish and label; gives the transactions."""
        transactions = await self.decide(count)
        await self.publish()
        await self.label(transactions[::3])
        return transactions

    async def log(self):
        return await whole_log(self.reader, PARTITIONS)

    def state(self):
        with closing(Redis.from_url(self.url)) as client:
            return actual(client)

    async def assert_is_the_log(self):
        """State holds what the log makes it, key for key, and nothing else."""
        wanted = expected(await self.log(), KEYS)
        assert differences(wanted, self.state()) == []
        return wanted

    async def assert_counts(self, count):
        """What is decided now counts: the log has it."""
        transactions = await self.decide(count)
        await self.publish()
        decided = [record.transaction.transaction_id for record in await self.log()]
        assert {t.transaction_id for t in transactions} <= set(decided)
        assert len(decided) == len(set(decided))

    async def epochs(self):
        return [gate.epochs for gate in await self.gates.all_open()]

    async def ends(self):
        return await self.reader.end_offsets(TOPICS)

    async def flush(self):
        await self.client.flushdb()
        with pytest.raises(ClosedError):
            await self.gates.all_open()

    async def dump(self):
        """All that Redis holds now."""
        return {key: (await self.client.pttl(key), await self.client.dump(key)) for key in await self.client.keys()}

    async def go_back(self, dump):
        """Make Redis hold what it held then, and nothing else."""
        await self.client.flushdb()
        for key, (milliseconds, value) in dump.items():
            await self.client.restore(key, max(0, milliseconds), value)


@asynccontextmanager
async def placed_at(url) -> AsyncIterator[Place]:
    """A broker of its own, with empty topics, beside the Redis at `url`."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(librdkafka_broker())
        await touch_topics(broker.bootstrap, ALL)
        settings = Settings(
            kafka_bootstrap=broker.bootstrap, partitions=PARTITIONS, kafka_fetch_wait_ms=10, kafka_timeout_seconds=30
        )
        client = connect(url, timeout=30)
        stack.push_async_callback(client.aclose)
        producer = await stack.enter_async_context(open_producer(settings))
        reader = await stack.enter_async_context(open_reader(settings))
        yield Place(client, url, settings, producer, reader)


@pytest.fixture
async def place(clean_redis):
    async with placed_at(clean_redis) as made:
        yield made


# --- what is there afterwards


async def test_with_no_log_and_no_state_it_opens_the_gates_in_the_epoch_of_its_first_records(place):
    with pytest.raises(ClosedError):
        await place.gates.all_open()
    await place.recover()
    assert await place.epochs() == [(0,)] * PARTITIONS
    assert [end for partition, end in (await place.ends()).items() if partition.topic == DECISIONS] == [1] * PARTITIONS
    assert place.state() == {}
    await place.assert_counts(9)


async def test_the_next_one_begins_the_next_epoch_behind_all_that_is_published(place):
    await place.recover()
    await place.feed(20)
    ends = await place.ends()
    await place.recover()
    assert await place.epochs() == [(0, ends[TopicPartition(DECISIONS, number)]) for number in range(PARTITIONS)]
    await place.assert_counts(9)


async def test_after_a_flush_every_key_that_the_log_names_is_there_again(place):
    await place.recover()
    await place.feed(40)
    await place.recover()
    await place.feed(20)
    await place.flush()
    await place.recover()
    wanted = await place.assert_is_the_log()
    kinds = {key.partition("}")[2].partition(":")[0] for key in wanted}
    assert kinds == {"card", "merchant", "decided", "label", "sequence"}
    decided = next(key for key in wanted if "}decided:" in key)
    assert KEEP.total_seconds() - 170 < await place.client.ttl(decided) <= KEEP.total_seconds()
    await place.assert_counts(9)


async def test_what_would_not_be_kept_under_its_id_any_more_is_counted_all_the_same(place):
    await place.recover()
    await place.feed(10)
    await place.flush()
    await place.recover(now=utc_now() + KEEP)
    wanted = expected(await place.log(), KEYS)
    assert place.state() == {key: value for key, value in wanted.items() if "}decided:" not in key}


async def test_what_state_of_an_earlier_moment_lacks_is_applied_and_nothing_twice(place):
    await place.recover()
    await place.feed(20)
    await place.recover()
    earlier, transactions = await place.dump(), await place.feed(30)
    await place.label(transactions[1::3])
    await place.recover()
    before = await place.assert_is_the_log()
    await place.go_back(earlier)
    assert 0 < len(place.state()) < len(before)
    await place.recover()
    assert await place.assert_is_the_log() == before
    await place.assert_counts(9)


async def test_what_was_on_its_way_at_an_earlier_moment_and_is_published_since_is_published_again_without_effect(place):
    await place.recover()
    await place.decide(20)
    earlier = await place.dump()
    await place.publish()
    log = await place.log()
    await place.go_back(earlier)
    await place.recover()
    await place.publish()
    assert (await place.log()).decisions == log.decisions
    await place.assert_is_the_log()


@pytest.mark.parametrize("name", [KEYS.progress, KEYS.gate])
async def test_where_only_the_keys_are_gone_that_say_how_far_state_is_nothing_is_applied_twice(place, name):
    await place.recover()
    await place.feed(30)
    await place.recover()
    await place.client.delete(*map(name, range(PARTITIONS)))
    await place.recover()
    await place.assert_is_the_log()
    await place.assert_counts(9)


async def test_where_only_the_gates_are_gone_a_void_beginning_does_not_become_an_epoch(place):
    await place.recover()
    for partition in range(PARTITIONS):
        for _ in range(30):
            await place.producer.send_and_wait(DECISIONS, b"", partition=partition, headers=[(FOLLOWS, b"-1")])
    await place.feed(30)
    await place.recover()
    await place.client.delete(*map(KEYS.gate, range(PARTITIONS)))
    await place.recover()
    await place.assert_counts(9)


async def test_where_nothing_is_missing_no_key_changes_but_gates_and_progress(place):
    await place.recover()
    await place.feed(30)
    await place.recover()
    before = await place.dump()
    await place.recover()
    after = await place.dump()
    assert after.keys() == before.keys()
    changed = {key.decode() for key in after if after[key][1] != before[key][1]}
    assert changed == {name(partition) for name in (KEYS.gate, KEYS.progress) for partition in range(PARTITIONS)}


async def test_the_updater_goes_on_at_the_end_and_knows_the_epoch_there(place):
    await place.recover()
    await place.feed(30)
    await place.recover()
    gates, ends = await place.gates.all_open(), await place.ends()
    progress = Progress(place.client, KEYS, gates)
    async with open_reader(place.settings) as consumer:
        consumer.assign(TOPICS)
        following = Following(consumer, progress, gates)
        await following.on_partitions_assigned(TOPICS)
        assert {partition: await consumer.position(partition) for partition in TOPICS} == ends
    for partition in TOPICS[:PARTITIONS]:
        at = following.at(partition, ends[partition])
        assert at.epochs.current == gates[partition.partition].epoch
        assert at.reached.sequence == int(await place.client.get(KEYS.sequence(partition.partition)) or 0)


# --- from where


async def test_what_is_older_than_any_window_is_not_applied(place):
    """But for what tells the last sequence: numbers go on."""
    await place.recover()
    await place.feed(20)
    await place.flush()
    later = utc_now() + timedelta(days=46)
    await (await place.begin()).run(place.producer, later, lambda _done, _total: None)
    assert not [key for key in place.state() if "}label:" in key]
    assert sum([int(await place.client.get(KEYS.sequence(number)) or 0) for number in range(PARTITIONS)]) == 20
    await place.assert_counts(9)


# --- one overtakes another


async def run(recovery, producer):
    await recovery.run(producer, utc_now(), lambda _done, _total: None)


class Held:
    """A producer that does something else first, once, before the first record it is to send."""

    def __init__(self, producer, first):
        self._producer, self._first = producer, first

    async def send_and_wait(self, *arguments, **options):
        if self._first is not None:
            first, self._first = self._first, None
            await first()
        return await self._producer.send_and_wait(*arguments, **options)


async def test_one_that_was_overtaken_before_it_ran_fails_and_leaves_the_epoch_in_force(place):
    await place.recover()
    await place.feed(10)
    one, other = await place.begin(), await place.begin()
    await run(other, place.producer)
    epochs, ends = await place.epochs(), await place.ends()
    with pytest.raises(ClosedError):
        await run(one, place.producer)
    assert await place.ends() == ends
    assert await place.epochs() == epochs
    await place.assert_counts(20)
    await place.recover()
    await place.assert_is_the_log()


async def test_one_that_is_overtaken_before_its_record_is_written_begins_no_epoch(place):
    async def overtake():
        await place.recover()
        await place.assert_counts(20)

    await place.recover()
    await place.feed(10)
    with pytest.raises(ClosedError):
        await run(await place.begin(), Held(place.producer, overtake))
    epochs = await place.epochs()
    [record, *_] = await beginnings(place, 0)
    assert (record.offset, dict(record.headers)) == (0, {FOLLOWS: b"-1"})
    assert [each.offset for each in await beginnings(place, 0)][:2] == list(epochs[0])
    assert len(await beginnings(place, 0)) == 3  # and one that is void
    await place.assert_counts(20)
    await place.recover()
    await place.assert_is_the_log()
    assert (await place.epochs())[0][:2] == epochs[0]
    assert len((await place.epochs())[0]) == 3


async def test_one_before_whose_record_an_overtaken_ones_is_written_fails_as_that_does(place):
    """Both follow the same epoch, and the first record wins: that of the one that can open nothing any more."""
    written, overtaken = asyncio.Event(), asyncio.Event()

    async def wait():
        overtaken.set()
        await overtaking.wait()

    async def let_go():
        overtaking.set()
        with pytest.raises(ClosedError):
            await running
        written.set()

    overtaking = asyncio.Event()
    await place.recover()
    await place.feed(10)
    async with open_reader(place.settings) as reader:
        one = await place.begin_with(reader)
        running = asyncio.create_task(run(one, Held(place.producer, wait)))
        await overtaken.wait()
        with pytest.raises(ClosedError, match="another recovery began an epoch in partition 0"):
            await run(await place.begin(), Held(place.producer, let_go))
    assert written.is_set()
    with pytest.raises(ClosedError):
        await place.gates.all_open()
    await place.recover()
    await place.assert_counts(20)
    await place.recover()
    await place.assert_is_the_log()


async def beginnings(place, partition):
    """The empty records of a partition."""
    name = TopicPartition(DECISIONS, partition)
    end = (await place.ends())[name]
    return [record async for records in read(place.reader, name, 0, end) for record in records if not record.value]


# --- another log


async def test_a_log_that_was_replaced_by_an_empty_one_is_begun_anew_and_what_is_decided_then_counts(place):
    await place.recover()
    await place.feed(40)
    await place.recover()
    before = place.state()
    async with placed_at(place.url) as new:
        new.go_on_from(place)
        await new.recover()
        assert await new.epochs() == [(0,)] * PARTITIONS
        assert new.state() == before
        transactions = await new.feed(20)
        await new.recover()
        log, ends, gates = await new.log(), await new.ends(), await new.gates.all_open()
        assert [len(epochs) for epochs in await new.epochs()] == [2] * PARTITIONS
        assert {record.transaction for record in log} == set(transactions)
        assert {logged.label.transaction_id for logged in log.labels.values()} == {
            t.transaction_id for t in transactions[::3]
        }
        state, wanted = new.state(), expected(log, KEYS)
        assert state.keys() == before.keys() | wanted.keys()  # nothing is pending
        for key, value in wanted.items():
            if "}merchant:" in key:
                for name in ("decisions", "labels"):
                    assert value[name].items() <= state[key][name].items()
        progress = Progress(new.client, KEYS, gates)
        for partition in TOPICS:
            assert (await progress.reached(partition.topic, partition.partition)).next_offset == ends[partition]


async def test_what_a_relay_of_the_log_before_has_published_in_a_new_one_does_not_keep_an_epoch_from_beginning(place):
    """The new log seems to have forgotten its beginning: the epoch in force there has a number beyond its end."""
    await place.recover()
    await place.feed(60)
    await place.recover()
    async with placed_at(place.url) as new:
        new.go_on_from(place)
        await new.decide(20)
        await new.publish()
        ends = await new.ends()
        assert any(known[-1] > ends[at] > 1 for known, at in zip(await new.epochs(), TOPICS, strict=False))
        await new.recover()
        await new.assert_counts(20)
