"""What the stores build on: pipelines, scripts, streams and scans over all nodes."""

import asyncio

import pytest
from contract.cluster_client.calls import COUNT, KEY, KEYS, LONG, piped
from redis.asyncio import Redis
from redis.exceptions import MaxConnectionsError, NoScriptError

from feature_store.cluster_client import CONNECTIONS_PER_NODE
from feature_store.scripts import run_all


async def test_replies_of_several_nodes_are_in_order(cluster, client, count):
    async with Redis.from_url(cluster.node_of(KEY).url) as direct:
        await direct.script_flush()
    commands = [count.command([key], []) for _ in range(2) for key in KEYS]
    replies = await piped(client, *commands, raise_on_error=False)
    lacking = [cluster.node_of(key) is cluster.node_of(KEY) for key in KEYS]
    expected = [NoScriptError if lacks else run for run in (1, 2) for lacks in lacking]
    assert [type(reply) if isinstance(reply, Exception) else reply for reply in replies] == expected
    assert await run_all(client, [(count, [key], []) for key in KEYS]) == [1 if lacks else 3 for lacks in lacking]


async def test_a_script_is_loaded_on_every_node(cluster, client):
    digest = await client.script_load(COUNT)
    for node in cluster.nodes:
        async with Redis.from_url(node.url) as direct:
            assert await direct.script_exists(digest) == [True]


async def test_waiting_for_a_stream_holds_up_no_other_call(client):
    reading = asyncio.create_task(client.xread({KEY: "$"}, block=4_000))
    for _ in range(100):
        await client.set("{5}other", 1)
    assert not reading.done()
    await client.xadd(KEY, {"field": "value"})
    ((name, entries),) = await reading
    assert (name, [fields for _, fields in entries]) == (KEY.encode(), [{b"field": b"value"}])


async def test_all_keys_of_all_nodes_are_scanned_and_removed(client):
    names = {f"{key}/{n}".encode() for key in KEYS for n in range(50)}
    await piped(client, *(("SET", name, 1) for name in names), ("SET", "{5}another", 1))
    found = [name async for name in client.scan_iter(match="{*}key/*", count=10)]
    assert (set(found), len(found)) == (names, len(names))
    assert [await client.unlink(name) for name in found] == [1] * len(names)
    assert [name async for name in client.scan_iter()] == [b"{5}another"]


async def test_a_node_takes_as_many_calls_as_it_has_connections(cluster, client, eventually):
    async with Redis.from_url(cluster.node_of(KEY).url) as direct:

        async def all_wait():
            return (await direct.info("clients"))["blocked_clients"] == CONNECTIONS_PER_NODE

        waiting = [asyncio.create_task(client.blpop([KEY], timeout=60)) for _ in range(CONNECTIONS_PER_NODE)]
        await eventually(all_wait, seconds=LONG)
        made = (await direct.info("stats"))["total_connections_received"]
        with pytest.raises(MaxConnectionsError):
            await client.get(KEY)
        await direct.lpush(KEY, *range(CONNECTIONS_PER_NODE))
        assert len({element for _, element in await asyncio.gather(*waiting)}) == CONNECTIONS_PER_NODE
        assert await client.get(KEY) is None
        assert (await direct.info("stats"))["total_connections_received"] == made
