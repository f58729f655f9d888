"""Real servers for the whole session, started when the first test asks and stopped at the end.

They run on an event loop in a thread of its own, so each test may have its own loop.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from inspect import isawaitable
from typing import Protocol

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, settings
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from services.settings import Settings
from services.stack.apache_kafka import ApacheKafka, apache_kafka
from services.stack.broker import APACHE_KAFKA, LIBRDKAFKA, Broker
from services.stack.kafka_jars import available
from services.stack.librdkafka_broker import PARTITIONS, librdkafka_broker, touch_topics
from services.stack.redis_cluster import RedisClusterServers, redis_cluster
from services.stack.redis_server import redis_server
from services.topics import ALL, ensure_topics

settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

PARTITIONS_BY_DEFAULT: int = Settings.model_fields["partitions"].default


class Eventually(Protocol):
    def __call__(self, condition: Callable[[], object], seconds: float = 10.0) -> Awaitable[None]: ...


@pytest.fixture
def eventually() -> Eventually:
    """`await eventually(condition)` instead of a sleep: polls a condition, sync or async, until it is truthy."""

    async def wait(condition: Callable[[], object], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while True:
                met = condition()
                if await met if isawaitable(met) else met:
                    return
                await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def written(eventually) -> Callable[[str], Awaitable[None]]:
    """`await written(url)`: what Redis answered is in its append-only file, which it puts off while an fsync hangs."""

    async def in_file(url: str) -> None:
        async with Redis.from_url(url) as client:

            async def nothing_waits() -> bool:
                return (await client.info("persistence"))["aof_buffer_length"] == 0

            await eventually(nothing_waits)

    return in_file


@pytest.fixture(scope="session")
def server_loop() -> Iterator[BlockingPortal]:
    """The loop of the session's servers; `server_loop.call(async_function, ...)` runs something on it."""
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture(scope="session")
def redis_url(server_loop, tmp_path_factory) -> Iterator[str]:
    """A real redis-server with its append-only file."""
    server = redis_server(tmp_path_factory.mktemp("redis"))
    with server_loop.wrap_async_context_manager(server) as running:
        yield running.url


@pytest.fixture
def clean_redis(redis_url) -> str:
    """An empty database of the same server; the stack's is another one."""
    url = redis_url.removesuffix("/0") + "/1"
    with SyncRedis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture(scope="session")
def redis_cluster_servers(server_loop, tmp_path_factory) -> Iterator[RedisClusterServers]:
    """Three masters, each with its append-only file; one that is killed is started again."""
    servers = redis_cluster(tmp_path_factory.mktemp("redis-cluster"), restart=True)
    with server_loop.wrap_async_context_manager(servers) as running:
        yield running


@pytest.fixture(scope="session")
def kafka_can_run() -> None:
    """For a test that starts Apache Kafka itself; where it cannot run, the test is skipped, and fails in CI."""
    if reason := available():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"Apache Kafka: {reason}")


@pytest.fixture(scope="session")
def kafka(kafka_can_run, server_loop, tmp_path_factory) -> Iterator[ApacheKafka]:
    """Apache Kafka itself, without topics."""
    with server_loop.wrap_async_context_manager(apache_kafka(tmp_path_factory.mktemp("kafka"))) as node:
        yield node


@pytest.fixture(scope="session")
def broker(request, server_loop) -> Iterator[Broker]:
    """Apache Kafka, else librdkafka's broker, with the project's topics; has `bootstrap` and `partitions`."""
    if available() is None:
        node = request.getfixturevalue("kafka")
        server_loop.call(ensure_topics, node.bootstrap, PARTITIONS_BY_DEFAULT)
        yield Broker(APACHE_KAFKA, node.bootstrap, PARTITIONS_BY_DEFAULT)
    else:
        with server_loop.wrap_async_context_manager(librdkafka_broker()) as node:
            server_loop.call(touch_topics, node.bootstrap, ALL)
            yield Broker(LIBRDKAFKA, node.bootstrap, PARTITIONS)
