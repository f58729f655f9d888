"""A client of an empty Redis, single and cluster, and gates that stand open as a recovery leaves them."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import pytest
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

    def reader(self):
        """A client of redis-py as it comes, to be used in a with statement."""
        return closing((RedisCluster if self.cluster else Redis).from_url(self.url))


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


@pytest.fixture
async def client(server):
    made = server.connect()
    yield made
    await made.aclose()


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
    """`await contents(client)`: all that Redis holds, by key, comparable; of some kinds of key if named."""
    readers = {
        b"hash": lambda client, key: client.hgetall(key),
        b"string": lambda client, key: client.get(key),
        b"stream": lambda client, key: client.xrange(key),
        b"zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
    }

    async def read(client, *kinds):
        keys = [key.decode() async for key in client.scan_iter(count=1_000)]
        wanted = [key for key in keys if not kinds or key.partition("}")[2].startswith(kinds)]
        return {key: await readers[await client.type(key)](client, key) for key in wanted}

    return read
