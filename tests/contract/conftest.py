"""A client of an empty Redis, and gates that stand open as a recovery leaves them."""

import pytest

from feature_store.gate import Gates
from feature_store.redis_client import connect


@pytest.fixture
async def client(clean_redis):
    made = connect(clean_redis, timeout=5)
    yield made
    await made.aclose()


@pytest.fixture
def opened():
    """`await opened(client, keys)`: closes and opens all gates and gives them; `epochs` of each partition, else one."""

    async def open_all(client, keys, epochs=None):
        gates = Gates(client, keys)
        await gates.open(await gates.close("recovery"), epochs or [[0]] * keys.partitions)
        return await gates.standing()

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
