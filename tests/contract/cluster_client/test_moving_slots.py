"""A call follows its key while the slot moves from one node to another."""

import asyncio
import contextlib
from dataclasses import dataclass

import pytest
from contract.cluster_client.calls import KEY, elsewhere, piped
from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import TryAgainError

from services.stack.redis_server import RedisServer


@dataclass
class Move:
    """A slot on its way from one node to another, in the steps of redis-cli."""

    slot: int
    source: RedisServer
    target: RedisServer
    direct: dict[str, Redis]

    async def begin(self):
        names = {url: await direct.cluster("MYID") for url, direct in self.direct.items()}
        await self.direct[self.target.url].cluster("SETSLOT", self.slot, "IMPORTING", names[self.source.url])
        await self.direct[self.source.url].cluster("SETSLOT", self.slot, "MIGRATING", names[self.target.url])

    async def keys(self):
        source = self.direct[self.source.url]
        for key in await source.cluster("GETKEYSINSLOT", self.slot, 100):
            await source.migrate("127.0.0.1", port(self.target), key, 0, 1_000)

    async def end(self):
        name = await self.direct[self.target.url].cluster("MYID")
        for url in (self.target.url, *set(self.direct) - {self.target.url}):
            await self.direct[url].cluster("SETSLOT", self.slot, "NODE", name)


def port(node):
    return int(node.url.split(":")[2].split("/")[0])


@pytest.fixture
async def move(cluster):
    """The slot of KEY, to another node and back."""
    slot, source = key_slot(KEY.encode()), cluster.node_of(KEY)
    target = next(node for node in cluster.nodes if node is not source)
    async with contextlib.AsyncExitStack() as stack:
        direct = {node.url: await stack.enter_async_context(Redis.from_url(node.url)) for node in cluster.nodes}
        yield Move(slot, source, target, direct)
        for each in direct.values():
            await each.cluster("SETSLOT", slot, "STABLE")
        if not await cluster.is_whole():
            back = Move(slot, target, source, direct)
            for step in (back.begin, back.keys, back.end):
                await step()


async def test_a_call_follows_its_key_while_the_slot_moves(cluster, move, client, count):
    await client.set(KEY, 1)
    await move.begin()
    assert await count.run(client, [KEY], []) == 2
    await move.keys()
    target = client.get_node("127.0.0.1", port(move.target))
    await asyncio.gather(*(target.execute_command("PING") for _ in range(2)))  # two connections to mix up
    assert await count.run(client, [KEY], []) == 3
    assert await piped(client, count.command([KEY], []), ("GET", elsewhere(cluster, KEY))) == [4, None]
    with pytest.raises(TryAgainError):
        await client.execute_command("MGET", KEY, "{5}other")
    await move.end()
    assert await count.run(client, [KEY], []) == 5
    assert await piped(client, count.command([KEY], [])) == [6]
    told = await move.direct[move.source.url].info("errorstats")
    assert told["errorstat_MOVED"]["count"] == 1


async def test_a_call_follows_its_key_to_a_node_that_has_no_slot_yet(move, client):
    await client.set(KEY, "here")
    await move.begin()
    await move.keys()
    target = client.nodes_manager.nodes_cache.pop(f"127.0.0.1:{port(move.target)}")  # to the client it is new
    await target.disconnect()
    assert await client.get(KEY) == b"here"
