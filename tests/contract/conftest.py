"""A client of an empty Redis, single and cluster, and gates that stand open as a recovery leaves them."""

from collections.abc import Callable
from contextlib import aclosing, closing
from dataclasses import dataclass

import pytest
from contract.events import KEYS, in_memory, in_redis
from redis import Redis, RedisCluster

from feature_store.gate import Gates
from feature_store.redis_client import connect


@dataclass(frozen=True)
class Server:
    """Where a test connects to."""

    url: str
    cluster: bool
    holder: Callable[[str], str]
    """Where the server is that holds a key."""

    def connect(self):
        return connect(self.url, timeout=5, cluster=self.cluster)


@pytest.fixture
async def cluster(redis_cluster_servers, eventually):
    """The session's cluster, empty; it is whole before and after."""
    await eventually(redis_cluster_servers.is_whole, seconds=60)
    for node in redis_cluster_servers.nodes:
        with Redis.from_url(node.url) as direct:
            direct.flushall()
    yield redis_cluster_servers
    await eventually(redis_cluster_servers.is_whole, seconds=60)


@pytest.fixture
def on_one(clean_redis):
    return Server(clean_redis, cluster=False, holder=lambda _: clean_redis)


@pytest.fixture
def on_cluster(cluster):
    return Server(cluster.url, cluster=True, holder=lambda key: cluster.node_of(key).url)


@pytest.fixture(params=["on_one", "on_cluster"])
def server(request):
    """What holds, holds on one Redis and on a cluster of three masters."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["in_memory", "on_one", "on_cluster"])
def place(request):
    """Where a suite of stores runs: on a server, or in a dictionary (None)."""
    return None if request.param == "in_memory" else request.getfixturevalue(request.param)


@pytest.fixture
async def store(place, opened):
    if place is None:
        yield in_memory()
    else:
        async with aclosing(place.connect()) as client:
            yield in_redis(client, await opened(client, KEYS))


@pytest.fixture
async def client(server):
    made = server.connect()
    yield made
    await made.aclose()


@pytest.fixture
def reader(server):
    """A client of redis-py as it comes, not asynchronous."""
    with closing((RedisCluster if server.cluster else Redis).from_url(server.url)) as made:
        yield made


@pytest.fixture
def opened():
    """`await opened(client, keys)`: closes and opens all gates and gives them; `epochs` of each partition, else one."""

    async def open_all(client, keys, epochs=None):
        gates = Gates(client, keys)
        await gates.open(await gates.close("recovery"), epochs or [[0]] * keys.partitions)
        return await gates.all_open()

    return open_all


@pytest.fixture
def contents():
    """`await contents(client)`: all that Redis holds, by key, comparable."""
    readers = {
        b"hash": lambda client, key: client.hgetall(key),
        b"string": lambda client, key: client.get(key),
        b"stream": lambda client, key: client.xrange(key),
        b"zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
    }

    async def read(client):
        keys = [key.decode() async for key in client.scan_iter(count=1_000)]
        return {key: await readers[await client.type(key)](client, key) for key in keys}

    return read
