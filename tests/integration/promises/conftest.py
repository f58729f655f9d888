"""A crowd: several of every process, with a log of their own, so that state can be held against all of it."""

import asyncio
import itertools
import re
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import replace
from functools import partial

import aiohttp
import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient
from redis import Redis

from feature_store.gate import Gates
from feature_store.keys import Keys
from feature_store.outbox import Outbox
from feature_store.progress import Progress
from model.scorer import load_scorer
from services.audit.state import actual, differences, expected
from services.audit.verify import verify
from services.audit.whole_log import whole_log
from services.dead_letter import DeadLetter
from services.decision.policy import Policy
from services.kafka import open_producer, open_reader
from services.log import read
from services.resources import open_redis
from services.settings import Settings
from services.stack.broker import APACHE_KAFKA
from services.stack.health import healthy
from services.stack.ports import LOOPBACK, free_port
from services.stack.programs import PROGRAMS, Address, commands, fleet
from services.stack.running import running
from services.stack.supervisor import supervised
from services.topics import DECISIONS, LABELS, TRANSACTIONS, dead_letter
from services.updater import GROUP as UPDATER
from services.worker import GROUP as WORKER

PATIENCE = 200.0
"""Seconds. Two cores run all of this, and perhaps another test session."""
LOOK_SECONDS = 0.05


class Crowd:
    """Four APIs, and as many workers, relays and updaters as `have` was last told."""

    def __init__(self, portal, settings, up):
        self.settings = settings
        self.keys = Keys(settings.partitions)
        self.model = load_scorer(settings.model_dir)
        thresholds = self.model.manifest.thresholds
        self.policy = Policy(review=thresholds.review, decline=thresholds.decline)
        self.urls = {name: address.url for name, address in up.addresses.items()}
        self.apis = [url for name, url in self.urls.items() if name.startswith("api")]
        self._portal = portal
        self._up = up
        self._names = {kind: itertools.count(2) for kind in ("worker", "relay", "updater")}
        self._more = []

    # --- who is there

    def have(self, of_each):
        """Have so many workers, relays and updaters. librdkafka's broker knows one member of a group."""
        if self._up.broker.choice is not APACHE_KAFKA:
            return
        while len(self._more) >= of_each:
            self._more.pop().close()
        while len(self._more) < of_each - 1:
            joined = ExitStack()
            joined.enter_context(self._portal.wrap_async_context_manager(self.joined(*self._names)))
            self._more.append(joined)
        self._portal.call(self.members, of_each)

    def close(self):
        """Stop all that `have` has started."""
        while self._more:
            self._more.pop().close()

    @asynccontextmanager
    async def joined(self, *kinds, restart=True):
        """Start one more process of each of `kinds`, and stop them with the block; gives the children by kind."""
        api, *_ = fleet()
        known = {program.name: program for program in PROGRAMS}
        programs = {kind: replace(known[kind], name=f"{kind}-{next(self._names[kind])}") for kind in kinds}
        listening = {program.name: Address(LOOPBACK, free_port()) for program in (api, *programs.values())}
        _, *starting = commands(self.settings, (api, *programs.values()), listening, self._up.logs)
        async with supervised(starting, restart=restart) as children:
            for name, child in children.items():
                address = listening[name]
                await child.until(partial(healthy, address.host, address.port), PATIENCE)
            mine = {program.name: listening[program.name].url for program in programs.values()}
            self.urls |= mine
            try:
                yield {kind: children[program.name] for kind, program in programs.items()}
            finally:
                self.urls = {name: url for name, url in self.urls.items() if name not in mine}

    async def members(self, number):
        """Wait until so many workers and updaters share the partitions among them."""
        admin = AdminClient({"bootstrap.servers": self.settings.kafka_bootstrap})  # aiokafka cannot read the answer

        async def shared():
            return await _sharing(admin) == [number, number]

        await _until(shared)

    async def counted(self, metric):
        """Give the sum of a metric, as `name{labels}` begins, of each process by name."""
        async with aiohttp.ClientSession() as session:
            found = {}
            for name, url in self.urls.items():
                async with session.get(f"{url}/metrics") as response:
                    lines = re.findall(rf"^{re.escape(metric)}.* (.+)$", await response.text(), re.MULTILINE)
                found[name] = sum(map(float, lines))
            return found

    # --- what they left

    async def rest(self):
        """Wait until what was sent is decided, what is decided published, and what is published applied."""
        async with (
            _admin(self.settings) as admin,
            open_reader(self.settings) as reader,
            open_redis(self.settings, patience=PATIENCE) as client,
        ):
            gates = await Gates(client, self.keys).all_open()
            outbox, partitions = Outbox(client, self.keys, gates), range(self.keys.partitions)
            progress = Progress(client, self.keys, gates)

            async def rests():  # looked at in the order of the way
                return not (
                    await self._unread(admin, reader, WORKER, TRANSACTIONS)
                    or any((await outbox.lengths(partitions)).values())
                    or await self._unread(admin, reader, UPDATER, DECISIONS, LABELS, progress=progress)
                    or await client.exists(*map(self.keys.pending, partitions))
                )

            await _until(rests)

    async def _unread(self, admin, reader, group, *topics, progress=None):
        names = [TopicPartition(topic, number) for topic in topics for number in range(self.keys.partitions)]
        ends = await reader.end_offsets(names)
        offsets = await admin.list_consumer_group_offsets(group, partitions=names)
        behind = [name for name in names if max(offsets[name].offset, 0) < ends[name]]
        if progress:  # a group knows nothing of what a recovery has applied
            behind = [
                name for name in behind if (await progress.reached(name.topic, name.partition)).next_offset < ends[name]
            ]
        return behind

    async def log(self):
        """Read all of it."""
        async with open_reader(self.settings) as reader:
            return await whole_log(reader, self.keys.partitions)

    async def dead_letters(self):
        """Read the transactions that were set aside."""
        names = [TopicPartition(dead_letter(TRANSACTIONS), number) for number in range(self.keys.partitions)]
        async with open_reader(self.settings) as reader:
            ends = await reader.end_offsets(names)
            return [
                msgspec.json.decode(record.value, type=DeadLetter)
                for name in names
                async for records in read(reader, name, 0, ends[name])
                for record in records
            ]

    def state(self):
        """Read all keys of it."""
        with closing(Redis.from_url(self.settings.redis_url)) as client:
            return actual(client)

    async def assert_state_is_the_log(self):
        """Everything in Redis, and every decision in the log, is what the log makes it. Gives the log."""
        await self.rest()
        log = await self.log()
        assert log.missing == []
        verdict = verify(log, self.model, self.policy)
        assert verdict.differences == []
        assert verdict.holds
        assert verdict.verified == len(log) > 0
        assert differences(expected(log, self.keys), self.state()) == []
        return log


async def _until(condition):
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110  # other processes make it true
            await asyncio.sleep(LOOK_SECONDS)


async def _sharing(admin):
    """How many members of each group have partitions; None while they are being given."""
    described = admin.describe_consumer_groups([WORKER, UPDATER])
    groups = await asyncio.gather(*map(asyncio.wrap_future, described.values()))
    return [
        sum(bool(member.assignment.topic_partitions) for member in group.members)
        if group.state is ConsumerGroupState.STABLE
        else None
        for group in groups
    ]


@asynccontextmanager
async def _admin(settings):
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


@pytest.fixture(scope="session")
def session_crowd(server_loop, tmp_path_factory):
    """As it was left: for tests that say how many they want."""
    wanted = Settings(
        data_dir=tmp_path_factory.mktemp("crowd"),
        api_port=free_port(),
        redis_timeout_seconds=2.0,  # a test machine may be busy; the budget is proven by the load run
        broker="auto",
    )
    with server_loop.wrap_async_context_manager(running(wanted, fleet(api=4))) as up:
        addresses = {
            "kafka_bootstrap": up.broker.bootstrap,
            "redis_url": up.redis_url,
            "partitions": up.broker.partitions,
            "kafka_fetch_wait_ms": up.broker.choice.fetch_wait_ms or wanted.kafka_fetch_wait_ms,
        }
        with closing(Crowd(server_loop, wanted.model_copy(update=addresses), up)) as crowd:
            yield crowd


@pytest.fixture
def crowd(session_crowd):
    """Three of each."""
    session_crowd.have(3)
    return session_crowd


@pytest.fixture
async def post(crowd):
    """`status, answer = await post(url, transaction)`; 503 is asked again, as a client would."""
    connector = aiohttp.TCPConnector(limit=0)  # as many at once as a test likes
    patience = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(connector=connector, timeout=patience) as session:

        async def send(url, transaction):
            while True:
                async with session.post(f"{url}/v1/decisions", json=transaction) as response:
                    status, answer = response.status, await response.read()
                if status != 503:
                    return status, answer
                await asyncio.sleep(0.1)

        yield send


@pytest.fixture
async def send(crowd):
    """`await send(transaction)`: into topic transactions."""
    async with open_producer(crowd.settings) as producer:

        async def to_topic(transaction):
            value, key = msgspec.json.encode(transaction), transaction["card_id"].encode()
            await producer.send_and_wait(TRANSACTIONS, value, key=key)

        yield to_topic
