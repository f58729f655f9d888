"""P3: whatever happens to Redis, state is what the log makes it; what only Redis had and lost is lost whole."""

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, aclosing, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from shutil import copytree

import aiohttp
import msgspec
import pytest
from redis import Redis

from feature_store.codec import CorruptStateError
from feature_store.decision_store import Committed, RedisDecisionStore, Write
from feature_store.features import CARD, SHIPPED
from feature_store.gate import Gates
from feature_store.keys import Keys
from feature_store.outbox import Outbox
from feature_store.redis_client import connect
from feature_store.round_trips import RoundTrips
from feature_store.scripts import ClosedError
from feature_store.transaction import Transaction
from model.scorer import load_scorer
from services.audit.state import actual, differences, expected
from services.audit.whole_log import whole_log
from services.chaos.judge import Judge
from services.chaos.traffic import Traffic
from services.chaos.world import World
from services.decision.decide import Decide
from services.decision.policy import Policy
from services.kafka import open_producer, open_reader
from services.metrics import Metrics
from services.rebuild import rebuild
from services.recovery import Recoveries
from services.relay import MOST_RECORDS, publish
from services.resources import open_redis
from services.settings import Settings
from services.stack.librdkafka_broker import PARTITIONS, librdkafka_broker, touch_topics
from services.stack.ports import LOOPBACK, free_port
from services.stack.programs import PROGRAMS, Address, as_environment, commands
from services.stack.redis_server import redis_server
from services.stack.running import running
from services.stack.supervisor import supervised
from services.topics import ALL

pytestmark = pytest.mark.timeout(600)

FED = 150
"""Transactions that are there before the first test."""
MORE = 30
ASKED_AGAIN = 50
LOOK_SECONDS = 0.05
PATIENCE = 100.0
"""Seconds. Two cores run all of this, and perhaps another test session."""


# --- a Redis that is started again by nobody but the test


class OwnRedis:
    def __init__(self, portal, directory):
        self.directory = directory
        self.port = free_port()
        self.url = f"redis://{LOOPBACK}:{self.port}/0"
        self._portal = portal
        self._running = ExitStack()

    def start(self):
        server = redis_server(self.directory, self.port)
        self._server = self._running.enter_context(self._portal.wrap_async_context_manager(server))

    def start_after_a_cut(self):
        """Start it, and have the file written anew.

        Redis takes a transaction that was cut back in memory, but leaves its beginning in the file, and would run it at
        the next start but one, together with the first transaction behind it (as valkey-io/valkey#4342 says).
        """
        self.start()
        with closing(Redis.from_url(self.url)) as client:
            client.bgrewriteaof()
            give_up = time.monotonic() + PATIENCE
            while not _is_rewritten(client.info("persistence")):
                assert time.monotonic() < give_up
                time.sleep(LOOK_SECONDS)

    def kill(self):
        os.kill(self._server.pid, signal.SIGKILL)
        self._running.close()

    def stop(self):
        self._running.close()

    @property
    def file(self):
        """What it appends to: Redis 7 keeps several files, of which it writes the last, Redis 6 one."""
        parts = sorted((self.directory / "appendonlydir").glob("*.incr.aof"), key=lambda path: path.stat().st_mtime)
        return parts[-1] if parts else self.directory / "appendonly.aof"

    @property
    def size(self):
        return self.file.stat().st_size

    def state(self):
        with closing(Redis.from_url(self.url)) as client:
            return actual(client)

    def sequences(self):
        return {key: int(value) for key, value in self.state().items() if key.endswith("}sequence")}

    def flush(self):
        with closing(Redis.from_url(self.url)) as client:
            client.flushall()


def _is_rewritten(persistence):
    return not persistence["aof_rewrite_in_progress"] and not persistence["aof_rewrite_scheduled"]


@contextmanager
def started_on_a_copy(own, directory):
    """The same data in another server, which no process knows: nobody brings its state up to the log."""
    copytree(own.directory, directory)
    copy = OwnRedis(own._portal, directory)
    copy.start()
    yield copy
    copy.stop()


# --- the stack


class Place:
    """The processes, and callers that remember what they were told."""

    def __init__(self, portal, redis, settings, up):
        self.redis = redis
        self.settings = settings
        self.keys = Keys(settings.partitions)
        self.api = up.addresses["api"].url
        self.relay = up.children["relay"]
        self.world = World(
            settings=settings,
            apis=(self.api,),
            processes=up.children,
            redis=(),
            proxies=(),
            broker=up.broker,
        )
        self.traffic = Traffic((self.api,), None, None, random.Random(5))
        self._portal = portal
        self._logs = up.logs
        self._numbers = itertools.count()

    async def fed(self):
        """Send the first transactions, and wait until all of their effects are there."""
        async with self.callers():
            await self.traffic.send(FED)
            assert await self.broken() == []

    @asynccontextmanager
    async def callers(self):
        """Connect what talks to it with the loop of this test."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http,
            open_producer(self.settings) as producer,
            open_reader(self.settings) as reader,
        ):
            self.traffic.http, self.traffic.producer, self._reader = http, producer, reader
            yield self

    async def broken(self):
        """What is broken when nothing is on its way any more."""
        return await Judge(self.world, self.traffic, self._reader).broken()

    async def log(self):
        return await whole_log(self._reader, self.keys.partitions)

    async def settled(self):
        """Wait until state is open, and nothing that was decided is on its way. It costs little to look."""
        gates = await until_open(self)
        async with asyncio.timeout(PATIENCE), open_redis(self.settings, patience=PATIENCE) as client:
            outbox, partitions = Outbox(client, self.keys, gates), range(self.keys.partitions)
            while any((await outbox.lengths(partitions)).values()) or await client.exists(  # noqa: ASYNC110  # in Redis
                *map(self.keys.pending, partitions)
            ):
                await asyncio.sleep(LOOK_SECONDS)

    async def rests(self):
        """Wait until everything has its effect, and no promise is broken; gives state and log."""
        await self.settled()
        assert await self.broken() == []
        return self.redis.state(), await self.log()

    async def ask(self, transaction):
        """Post one until it is answered, as a caller does; gives the answer."""
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with self.traffic.http.post(
                        f"{self.api}/v1/decisions", data=msgspec.json.encode(transaction)
                    ) as response:
                        if response.status != 503:
                            assert response.status == 200
                            return await response.read()
                await asyncio.sleep(0.1)

    async def assert_decisions_go_on(self, *, again=ASKED_AGAIN):
        """What is asked again gets its answer, byte for byte, and has no effect; what is new is decided behind it."""
        _, before = await self.rests()
        records = random.sample(list(before), min(again, len(before)))
        assert [await self.ask(record.transaction) for record in records] == [
            msgspec.json.encode(record.answer) for record in records
        ]
        await self.traffic.send(MORE)
        _, log = await self.rests()
        assert len(log) == len(before) + MORE
        for partition, known in zip(log.decisions, before.decisions, strict=True):
            assert partition[: len(known)] == known
            assert [record.sequence for record in partition] == [n + 1 for n in range(len(partition))]

    @contextmanager
    def another_relay(self):
        """Run one more; it is there until the block ends, and brings state up to the log if nobody else does."""
        api, _, relay, _ = PROGRAMS
        programs = (api, replace(relay, name="relay-2"))
        listening = {program.name: Address(LOOPBACK, free_port()) for program in programs}
        _, command = commands(self.settings, programs, listening, self._logs)
        with self._portal.wrap_async_context_manager(supervised([command])):
            yield

    def transactions(self, count):
        """New ones whose acknowledgement is nobody's but the test's."""
        now = datetime.now(UTC).replace(microsecond=0)
        for number in (next(self._numbers) for _ in range(count)):
            yield Transaction(
                transaction_id=f"own-{number}",
                card_id=f"own-c{number % 5}",
                merchant_id=f"m{number % 3}",
                amount=100 + number,
                currency="EUR",
                event_time=now,
            )

    async def fraud(self, *arguments):
        """Run the command line, beside what the loop does."""
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "services.cli", *arguments],
            env=os.environ | as_environment(self.settings),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


@pytest.fixture(scope="module")
def fed_place(server_loop, tmp_path_factory):
    redis = OwnRedis(server_loop, tmp_path_factory.mktemp("redis"))
    redis.start()
    wanted = Settings(
        data_dir=tmp_path_factory.mktemp("stack"),
        redis_url=redis.url,
        api_port=free_port(),
        redis_timeout_seconds=2.0,  # a test machine may be busy; the budget is proven by the load run
    )
    with server_loop.wrap_async_context_manager(running(wanted)) as up:
        addresses = {
            "kafka_bootstrap": up.broker.bootstrap,
            "partitions": up.broker.partitions,
            "kafka_fetch_wait_ms": up.broker.choice.fetch_wait_ms or wanted.kafka_fetch_wait_ms,
        }
        place = Place(server_loop, redis, wanted.model_copy(update=addresses), up)
        server_loop.call(place.fed)
        yield place
    redis.stop()


@pytest.fixture
async def place(fed_place):
    async with fed_place.callers():
        yield fed_place


@contextmanager
def frozen(child):
    """Stop a process where it is; it goes on behind the block."""
    os.kill(child.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(child.pid, signal.SIGCONT)


async def until_open(place):
    async with asyncio.timeout(PATIENCE), open_redis(place.settings, patience=PATIENCE) as client:
        while True:
            with suppress(ClosedError):
                return await Gates(client, place.keys).all_open()
            await asyncio.sleep(LOOK_SECONDS)


# --- flushed


async def test_after_a_flush_a_relay_brings_everything_back_by_itself(place):
    before, log = await place.rests()
    assert len(log) >= FED
    kinds = {key.partition("}")[2].partition(":")[0] for key in before}
    assert kinds == {"card", "merchant", "decided", "label", "sequence"}
    place.redis.flush()
    state, again = await place.rests()
    assert state == before
    assert again.decisions == log.decisions
    await place.assert_decisions_go_on()


# --- rebuilt


async def test_a_rebuild_puts_right_what_somebody_changed_in_redis_and_verify_names_it(place):
    before, _ = await place.rests()
    card, gone = [key for key in before if "}card:" in key][:2]
    with closing(Redis.from_url(place.redis.url)) as client:
        raw = client.get(card)
        client.set(card, raw[:-20] + bytes([raw[-20] ^ 1]) + raw[-19:])
        client.delete(gone)
        client.set("{3}card:x", "1")
    wrong = await place.fraud("verify", "--state")
    assert wrong.returncode == 1, wrong.stderr
    for text in (f"{card} is damaged", f"{gone} is missing", "{3}card:x should not be there"):
        assert text in wrong.stdout

    rebuilt = await place.fraud("rebuild")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert place.redis.state() == before
    right = await place.fraud("verify", "--state")
    assert right.returncode == 0, right.stdout + right.stderr
    await place.assert_decisions_go_on()


async def test_a_rebuild_where_no_relay_is_brings_everything_back_and_publishes_what_is_in_no_log_yet(place):
    before, log = await place.rests()
    with frozen(place.relay):
        place.redis.flush()
        assert place.redis.state() == {}
        await rebuild(place.settings, lambda _done, _total: None)
        assert place.redis.state() == before

        answers = {t: await place.ask(t) for t in place.transactions(MORE)}
        assert len(await place.log()) == len(log)
        await rebuild(place.settings, lambda _done, _total: None)
        log = await place.log()
        published = {r.transaction: msgspec.json.encode(r.answer) for r in log if r.transaction in answers}
        assert published == answers
        assert differences(expected(log, place.keys), place.redis.state()) == []
    await place.assert_decisions_go_on()


# --- the append-only file lost its tail


async def cut_in_the_middle(place, before):
    """Kill Redis, and cut the file anywhere in the middle of what was written behind `before`."""
    place.redis.kill()
    third = (place.redis.size - before) // 3
    assert third > 1_000
    os.truncate(place.redis.file, random.SystemRandom().randrange(before + third, before + 2 * third))


async def test_what_the_file_lost_and_the_log_has_comes_back_and_is_not_decided_twice(place, tmp_path):
    await place.rests()
    size = place.redis.size
    await place.traffic.send(MORE)
    before, log = await place.rests()
    sequences = place.redis.sequences()
    await cut_in_the_middle(place, size)
    with started_on_a_copy(place.redis, tmp_path / "copy") as cut:
        lost = sum(sequences.values()) - sum(cut.sequences().values())
    assert 0 < lost < MORE
    place.redis.start_after_a_cut()
    state, again = await place.rests()
    assert state == before
    assert again.decisions == log.decisions
    await place.assert_decisions_go_on(again=len(log))


class Zombie:
    """A relay that is stopped with records in memory, between reading and publishing them."""

    @classmethod
    async def read(cls, place):
        self = cls()
        async with open_redis(place.settings, patience=PATIENCE) as client:
            self.gates = await Gates(client, place.keys).all_open()
            outbox = Outbox(client, place.keys, self.gates)
            self.entries = await outbox.read(range(place.keys.partitions), MOST_RECORDS)
        return self

    async def go_on(self, place):
        """Publish them, and try to trim."""
        async with open_redis(place.settings, patience=PATIENCE) as client:
            outbox = Outbox(client, place.keys, self.gates)
            epochs = {partition: gate.epoch for partition, gate in enumerate(self.gates)}
            sent = await publish(place.traffic.producer, epochs, self.entries)
            assert sent == {partition: entries[-1].sequence for partition, entries in self.entries.items()}
            with pytest.raises(ClosedError):
                await outbox.trim(sent)


async def test_what_only_the_file_had_is_lost_whole_and_no_relay_of_before_can_bring_it_back(place):
    """The loss window: acknowledged, and neither in the log nor on the disk."""
    await place.rests()
    size, transactions = place.redis.size, list(place.transactions(MORE))
    with frozen(place.relay):
        await asyncio.gather(*map(place.ask, transactions))
        before, zombie = place.redis.sequences(), await Zombie.read(place)
        assert sum(map(len, zombie.entries.values())) == MORE
        await cut_in_the_middle(place, size)
        place.redis.start_after_a_cut()
        with place.another_relay():
            await until_open(place)
            lost = sum(before.values()) - sum(place.redis.sequences().values())
            assert 0 < lost < MORE
            await zombie.go_on(place)
            await place.assert_decisions_go_on()
    # here also the relay of before goes on, and finds that its gates have moved

    log = await place.log()
    assert sum(record.transaction in transactions for record in log) == MORE - lost
    assert log.without_effect >= MORE
    await asyncio.gather(*map(place.ask, transactions))  # their callers ask again: what was lost is decided now
    await place.assert_decisions_go_on(again=len(log))
    assert sum(record.transaction in transactions for record in await place.log()) == MORE


# --- rebuilt under traffic


async def test_rebuilds_while_traffic_goes_on_lose_nothing_and_count_nothing_twice(place):
    acknowledged, rebuilding = [], True

    async def call():
        while rebuilding:
            await asyncio.gather(place.traffic.send(2), asyncio.sleep(0.2))

    sending = asyncio.create_task(call())
    for _ in range(2):
        acknowledged.append(place.traffic.acknowledged)
        rebuilt = await place.fraud("rebuild")
        assert rebuilt.returncode == 0, rebuilt.stderr
    acknowledged.append(place.traffic.acknowledged)
    rebuilding = False
    await sending
    assert acknowledged == sorted(set(acknowledged)), "nobody called meanwhile"
    await place.assert_decisions_go_on()


# --- without the processes: what each of them does, in the order that a test says


class Steps:
    """One card's decisions, a relay and recoveries, over a log of their own."""

    def __init__(self, settings, client, producer, reader):
        self.settings = settings
        self.keys = Keys(settings.partitions)
        self._client = client
        self._producer = producer
        self._reader = reader
        self._decide = Decide(
            store=RedisDecisionStore(RoundTrips(client), self.keys, SHIPPED, keep_seconds=3_600),
            model=load_scorer(settings.model_dir),
            policy=Policy(review=0.5, decline=0.8),
            metrics=Metrics(),
            now=lambda: datetime.now(UTC),
        )
        self._numbers = itertools.count()

    async def recover(self):
        recovery = await Recoveries(self.settings, self._client, self.keys, SHIPPED).begin(self._reader)
        await recovery.run(self._producer, datetime.now(UTC), lambda _done, _total: None)

    async def recover_but_for_opening(self, monkeypatch):
        """A recovery that ends when all is done but the last: its relay was killed, or its server."""

        async def end(*_):
            raise ConnectionError

        with monkeypatch.context() as patched:
            patched.setattr(Gates, "open", end)
            with pytest.raises(ConnectionError):
                await self.recover()

    async def decide(self, count):
        for _ in range(count):
            number = next(self._numbers)
            await self._decide(
                Transaction(
                    transaction_id=f"t{number}",
                    card_id="c",
                    merchant_id="m",
                    amount=100 + number,
                    currency="EUR",
                    event_time=datetime(2026, 11, 1, 12, tzinfo=UTC),
                )
            )

    async def publish(self):
        gates, partition = await Gates(self._client, self.keys).all_open(), self.keys.partition("c")
        outbox = Outbox(self._client, self.keys, gates)
        while entries := await outbox.read([partition], MOST_RECORDS):
            await outbox.trim(await publish(self._producer, {partition: gates[partition].epoch}, entries))

    async def damage(self):
        """Damage the card's history, and close the gates as a server that is started again does."""
        card = self.keys.history(CARD, "c")
        raw = await self._client.get(card)
        await self._client.set(card, raw[:-20] + bytes([raw[-20] ^ 1]) + raw[-19:])
        await self._client.delete(*map(self.keys.gate, range(self.keys.partitions)))

    async def rebuild(self):
        await rebuild(self.settings, lambda _done, _total: None)

    async def assert_state_is_the_log_of(self, decisions):
        """When all is published and applied."""
        await self.publish()
        await self.recover()
        log = await whole_log(self._reader, self.keys.partitions)
        with closing(Redis.from_url(self.settings.redis_url)) as client:
            assert differences(expected(log, self.keys), actual(client)) == []
        sequences = [record.sequence for record in log.decisions[self.keys.partition("c")]]
        assert sequences == [n + 1 for n in range(decisions)]


@pytest.fixture
async def steps(server_loop, clean_redis):
    with server_loop.wrap_async_context_manager(librdkafka_broker()) as broker:
        server_loop.call(touch_topics, broker.bootstrap, ALL)
        settings = Settings(
            kafka_bootstrap=broker.bootstrap, redis_url=clean_redis, partitions=PARTITIONS, kafka_fetch_wait_ms=10
        )
        async with (
            open_redis(settings, patience=PATIENCE) as client,
            open_producer(settings) as producer,
            open_reader(settings) as reader,
        ):
            made = Steps(settings, client, producer, reader)
            await made.recover()
            yield made


@pytest.mark.parametrize("failures", [1, 2])
async def test_behind_recoveries_that_ended_before_they_opened_anything_decisions_count(steps, monkeypatch, failures):
    await steps.decide(5)
    for _ in range(failures):
        await steps.recover_but_for_opening(monkeypatch)
    await steps.recover()
    await steps.decide(3)
    await steps.assert_state_is_the_log_of(8)


@pytest.mark.parametrize("failures", [1, 2])
async def test_behind_recoveries_that_ended_a_rebuild_publishes_what_counts(steps, monkeypatch, failures):
    await steps.decide(5)
    for _ in range(failures):
        await steps.recover_but_for_opening(monkeypatch)
    await steps.rebuild()
    await steps.decide(3)
    await steps.assert_state_is_the_log_of(8)


async def test_a_rebuild_makes_damaged_state_again_behind_closed_gates_too(steps):
    await steps.decide(5)
    await steps.publish()
    await steps.decide(2)  # which only the outbox has
    await steps.damage()
    with pytest.raises(CorruptStateError):
        await steps.recover()
    await steps.rebuild()
    await steps.decide(3)
    await steps.assert_state_is_the_log_of(10)


# --- what a killed server had answered


async def test_a_decision_that_was_acknowledged_is_there_after_a_kill_at_once(tmp_path):
    keys, names = Keys(1), [f"t{number}" for number in range(8)]
    for name in names:
        async with redis_server(tmp_path) as server:
            client = connect(server.url, timeout=5)
            gates = Gates(client, keys)
            await gates.open(await gates.close(name), [[0]])
            store = RedisDecisionStore(RoundTrips(client), keys, SHIPPED, keep_seconds=3_600)
            t = Transaction(
                transaction_id=name, card_id="c", merchant_id="m", amount=5, currency="EUR",
                event_time=datetime(2026, 11, 1, 12, tzinfo=UTC),
            )  # fmt: skip
            seen = await store.read(t)
            write = Write(seen.histories[0], name.encode(), b"{}")
            assert isinstance(await store.commit(t, seen, write), Committed)
            os.kill(server.pid, signal.SIGKILL)
            await client.aclose()
    async with redis_server(tmp_path) as server, aclosing(connect(server.url, timeout=5)) as client:
        store = RedisDecisionStore(RoundTrips(client), keys, SHIPPED, keep_seconds=3_600)
        assert [await store.decided("c", name) for name in names] == [name.encode() for name in names]
        assert await client.get(keys.sequence(0)) == b"%d" % len(names)
        assert await client.xlen(keys.outbox(0)) == len(names)
