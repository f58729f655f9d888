"""The whole stack as the tests see it from outside: doors, topics, metrics, Redis."""

import asyncio
import itertools
import json
from datetime import UTC, datetime
from types import SimpleNamespace

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from redis import Redis

from feature_store.keys import Keys
from services.audit.state import actual
from services.settings import Settings
from services.stack.ports import free_port
from services.stack.running import running

_numbers = itertools.count()


@pytest.fixture(scope="session")
def stack(server_loop, broker, redis_url, tmp_path_factory):
    """The four processes on the session's Redis and broker."""
    with Redis.from_url(redis_url) as client:
        client.flushall()
    settings = Settings(
        kafka_bootstrap=broker.bootstrap,
        redis_url=redis_url,
        partitions=broker.partitions,
        kafka_fetch_wait_ms=broker.choice.fetch_wait_ms or 100,
        api_port=free_port(),
        redis_timeout_seconds=2.0,  # a test machine may be busy; the budget is proven by the load run
        data_dir=tmp_path_factory.mktemp("stack"),
    )
    with server_loop.wrap_async_context_manager(running(settings)) as up:
        yield SimpleNamespace(
            settings=settings,
            url=up.addresses["api"].url,
            urls={name: address.url for name, address in up.addresses.items()},
            bootstrap=broker.bootstrap,
            partitions=broker.partitions,
            redis_url=redis_url,
        )


@pytest.fixture
async def api(stack):
    async with httpx.AsyncClient(base_url=stack.url, timeout=10) as client:
        yield client


@pytest.fixture
async def producer(stack):
    client = AIOKafkaProducer(bootstrap_servers=stack.bootstrap, enable_idempotence=True)
    await client.start()
    yield client
    await client.stop()


@pytest.fixture
def body():
    """`body(...)`: a valid transaction of a card of its own, with changes."""

    def make(**changes):
        number = next(_numbers)
        fields = {
            "transaction_id": f"t{number}",
            "card_id": f"card-{number}",
            "merchant_id": f"merchant-{number}",
            "amount": 1_250,
            "currency": "EUR",
            "event_time": datetime.now(UTC).isoformat(),
        }
        return fields | changes

    return make


@pytest.fixture
async def read_topic(stack):
    """`await read_topic(name)`: every record of a topic, in the order of its partitions, decoded from JSON."""

    async def read(topic):
        consumer = AIOKafkaConsumer(bootstrap_servers=stack.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            partitions = [TopicPartition(topic, number) for number in range(stack.partitions)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            records = {partition: [] for partition in partitions}
            async with asyncio.timeout(20):
                while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
                    for partition, more in (await consumer.getmany(timeout_ms=100)).items():
                        records[partition] += more
            return [json.loads(record.value) for several in records.values() for record in several if record.value]
        finally:
            await consumer.stop()

    return read


@pytest.fixture
def entity(stack):
    """`entity(kind, name)`: the parts of the history that Redis holds of a card or merchant; None if there is none."""

    def read(kind, name):
        keys = Keys(stack.partitions)
        with Redis.from_url(stack.redis_url) as client:
            return actual(client).get(f"{{{keys.partition(name)}}}{kind}:{name}")

    return read


@pytest.fixture
def state(stack):
    """`state()`: all that Redis holds but leases, comparable."""
    readers = {
        b"hash": Redis.hgetall,
        b"string": Redis.get,
        b"stream": lambda client, key: client.xrange(key),
        b"zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
    }

    def read():
        with Redis.from_url(stack.redis_url) as client:
            keys = [key for key in client.scan_iter(count=1_000) if not key.endswith(b"}relay")]
            kinds = {key: client.type(key) for key in keys}  # b"none": gone since the scan
            return {key: readers[kind](client, key) for key, kind in kinds.items() if kind in readers}

    return read
