"""A node that dies and comes back: every call works, or fails at once as unavailable."""

import asyncio
import contextlib
import time

import pytest
from contract.cluster_client.calls import COUNT, KEY, KEYS, elsewhere, misled, piped
from redis.crc import key_slot
from redis.exceptions import ClusterDownError, MaxConnectionsError, SlotNotCoveredError, TryAgainError
from redis.exceptions import ConnectionError as Lost

from feature_store import cluster_client
from feature_store.redis_client import UNAVAILABLE, connect
from feature_store.scripts import run_all
from services.stack.ports import free_port


async def test_while_a_node_is_down_calls_work_or_are_unavailable(cluster, client, eventually, count, written):
    node = cluster.node_of(KEY)
    for key in KEYS:
        await client.set(key, 1)
    calls = [
        lambda: client.get(KEY),
        lambda: client.get(elsewhere(cluster, KEY)),
        lambda: count.run(client, [KEY], []),
        lambda: piped(client, *(("GET", key) for key in KEYS), raise_on_error=False),
        lambda: run_all(client, [(count, [key], []) for key in KEYS]),
        lambda: client.xread({"{5}stream": 0}, block=1),
        lambda: client.unlink("{5}nothing"),
        client.scan,
        lambda: client.script_load(COUNT),
        client.ping,
    ]
    errors = []

    async def all_well():
        replies = await asyncio.gather(*(call() for call in calls), return_exceptions=True)
        errors.extend(reply for reply in replies if isinstance(reply, BaseException))
        return not any(isinstance(reply, BaseException) for reply in replies)

    assert await all_well()
    await written(node.url)
    node.process.kill()
    await eventually(lambda: node.process.exits)
    assert not await all_well()
    await eventually(all_well, seconds=60)
    assert {type(error) for error in errors} >= {Lost, ClusterDownError}
    assert all(isinstance(error, UNAVAILABLE) for error in errors), errors
    assert None not in [await client.get(key) for key in KEYS]


@pytest.mark.parametrize(
    "error", [ClusterDownError, MaxConnectionsError, SlotNotCoveredError, TryAgainError, TimeoutError]
)
def test_what_a_client_may_raise_is_known_as_unavailable(error):
    assert issubclass(error, UNAVAILABLE)


async def test_a_client_idle_meanwhile_notices_only_missing_scripts(cluster, client, count, eventually, written):
    calls = [(count, [key], []) for key in KEYS]
    assert await run_all(client, calls) == [1] * 12
    node = cluster.node_of(elsewhere(cluster, KEY))
    await written(node.url)
    killed = node.pid
    node.process.kill()
    await eventually(lambda: node.pid != killed)
    await eventually(cluster.is_whole, seconds=60)
    assert await run_all(client, calls) == [2] * 12  # Redis 7 has forgotten the script, Redis 6 has not


async def test_a_cluster_down_is_told_at_once_and_other_calls_go_on(cluster, client, forsaken):
    other = elsewhere(cluster, KEY)
    await client.get(KEY)
    waiting = asyncio.create_task(client.blpop([other], timeout=4))
    async with forsaken(cluster.node_of(KEY)):
        started = time.monotonic()
        with pytest.raises(ClusterDownError):
            await client.get(KEY)
        assert time.monotonic() - started < 0.25
        await client.lpush(other, "element")
        assert await waiting == (other.encode(), b"element")


async def test_a_node_that_finds_the_cluster_down_is_not_believed(cluster, client, forsaken):
    other = elsewhere(cluster, KEY)
    await client.set(other, "here")
    slots = client.nodes_manager.slots_cache
    slots[key_slot(other.encode())] = slots[key_slot(KEY.encode())]  # where it was before a failover, say
    async with forsaken(cluster.node_of(KEY)):
        with pytest.raises(ClusterDownError):
            await client.get(other)
        assert await client.get(other) == b"here"


async def test_a_pipeline_that_finds_a_node_gone_looks_again(client):
    await client.set(KEY, "here")
    misled(client, KEY)
    with pytest.raises(Lost):
        await piped(client, ("GET", KEY))
    assert await piped(client, ("GET", KEY)) == [b"here"]


async def test_failures_do_not_make_every_call_look_again(client, monkeypatch):
    monkeypatch.setattr(cluster_client, "LOOK_SECONDS", 3_600.0)
    await client.get(KEY)
    for looked in (True, False):
        misled(client, KEY)
        with pytest.raises(Lost):
            await client.get(KEY)
        with contextlib.nullcontext() if looked else pytest.raises(Lost):
            await client.get(KEY)


async def test_a_client_that_failed_last_closes_all_its_connections(client):
    await client.ping()
    misled(client, KEY)
    with pytest.raises(Lost):
        await client.get(KEY)
    connections = [connection for node in client.get_nodes() for connection in node._connections]
    assert any(connection.is_connected for connection in connections)
    await client.aclose()
    assert not any(connection.is_connected for connection in connections)


async def test_no_cluster_is_unavailable(redis_url):
    for url in (f"redis://127.0.0.1:{free_port()}/0", redis_url):
        client = connect(url, timeout=5, cluster=True)
        with pytest.raises(UNAVAILABLE, match="Redis Cluster cannot be connected"):
            await client.get(KEY)
        await client.aclose()
