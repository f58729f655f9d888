"""On a real cluster, the client keeps what the one for a single Redis promises: nothing twice, and no long wait."""

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode
from redis.crc import key_slot
from redis.exceptions import ClusterDownError, MaxConnectionsError, NoScriptError, SlotNotCoveredError, TryAgainError
from redis.exceptions import ConnectionError as Lost
from redis.exceptions import TimeoutError as NoReply

from feature_store import cluster_client
from feature_store.cluster_client import CONNECTIONS_PER_NODE
from feature_store.redis_client import UNAVAILABLE, connect
from feature_store.scripts import Script, run_all
from services.stack.ports import free_port
from services.stack.redis_server import RedisServer

KEYS = [f"{{{tag}}}key" for tag in range(12)]
KEY = KEYS[5]
FORSAKEN = 10_922
"""A slot of KEY's node that no key here is in."""
COUNT = "return redis.call('INCR', KEYS[1])"
SHORT = 0.3
"""A timeout that passes in a test, and in which a node that is well answers even on a busy machine."""
LONG = 30.0
"""A timeout that does not pass."""


@pytest.fixture
async def cluster(cluster):
    """Without scripts, too."""
    for node in cluster.nodes:
        async with Redis.from_url(node.url) as direct:
            await direct.script_flush()
            await direct.config_resetstat()
    return cluster


@pytest.fixture
async def opened(cluster):
    """Opens clients, and closes them after the test."""
    async with contextlib.AsyncExitStack() as stack:

        def open_client(timeout):
            client = connect(cluster.url, timeout=timeout, cluster=True)
            stack.push_async_callback(client.aclose)
            return client

        yield open_client


@pytest.fixture
def client(opened):
    return opened(LONG)


@pytest.fixture
async def count(client):
    """A script that counts its runs, which every node has."""
    return Script(COUNT, await client.script_load(COUNT))


@contextlib.contextmanager
def hung(*nodes: RedisServer):
    """Nodes that take connections and answer nothing."""
    for node in nodes:
        os.kill(node.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for node in nodes:
            os.kill(node.pid, signal.SIGCONT)


@pytest.fixture
def forsaken(eventually):
    """A node that finds the cluster down, as one does that was cut off: it knows of no home for one of the slots."""

    @contextlib.asynccontextmanager
    async def made(node):
        async with Redis.from_url(node.url) as direct:

            async def is_down():
                return (await direct.cluster("INFO"))["cluster_state"] == "fail"

            await direct.cluster("DELSLOTS", FORSAKEN)
            try:
                await eventually(is_down)
                yield
            finally:
                await direct.cluster("ADDSLOTS", FORSAKEN)

    return made


def elsewhere(cluster, key):
    """A key of another node."""
    return next(other for other in KEYS if cluster.node_of(other) is not cluster.node_of(key))


def misled(client, key):
    """Make the client believe that `key` is where nothing listens."""
    nowhere = ClusterNode("127.0.0.1", free_port(), **client.connection_kwargs)
    client.nodes_manager.slots_cache[key_slot(key.encode())] = [nowhere]


async def piped(client, *commands, raise_on_error=True):
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    return await pipeline.execute(raise_on_error=raise_on_error)


# Once, bounded, to the right node


@pytest.mark.parametrize("way", ["command", "pipeline"])
async def test_a_script_whose_reply_is_lost_is_not_run_again(way, cluster, opened, client, count):
    impatient = opened(SHORT)
    await impatient.get(KEY)
    command = count.command([KEY], [])
    call = impatient.execute_command(*command) if way == "command" else piped(impatient, command)
    node = cluster.node_of(KEY)
    with hung(node):
        in_time_for_a_second_try = 1.5 * SHORT
        asyncio.get_running_loop().call_later(in_time_for_a_second_try, os.kill, node.pid, signal.SIGCONT)
        with pytest.raises(NoReply):
            await call
    for _ in range(3):  # so that the node has seen whatever else was sent
        runs = await client.get(KEY)
    assert runs == b"1"


@pytest.mark.parametrize("way", ["command", "pipeline"])
async def test_a_call_whose_connection_breaks_is_not_sent_again(way, cluster, client, eventually):
    command = ("XREAD", "BLOCK", 60_000, "STREAMS", KEY, "$")
    waiting = client.execute_command(*command) if way == "command" else piped(client, command, raise_on_error=False)
    call = asyncio.create_task(waiting)
    async with Redis.from_url(cluster.node_of(KEY).url) as direct:

        async def is_there():
            return (await direct.info("clients"))["blocked_clients"]

        await eventually(is_there)
        await direct.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(Lost):
            await call
        assert not await is_there()


async def test_callers_do_not_queue_up_for_a_cluster_that_does_not_answer(cluster, opened):
    client = opened(SHORT)
    await client.get(KEY)

    async def wait():
        started = time.monotonic()
        with pytest.raises(NoReply):
            await client.get(KEY)
        return time.monotonic() - started

    with hung(*cluster.nodes):
        await wait()
        assert max(await asyncio.gather(*(wait() for _ in range(20)))) < 20 * SHORT / 2


async def test_a_hung_node_is_reported_in_time_and_the_others_answer(cluster, opened, eventually):
    client, other = opened(SHORT), elsewhere(cluster, KEY)
    await client.get(KEY)

    async def other_answers():
        with contextlib.suppress(NoReply, Lost):
            return await client.set(other, "here")

    with hung(cluster.node_of(KEY)):
        with pytest.raises(NoReply):
            await client.get(KEY)
        await eventually(other_answers)


async def test_a_call_ends_in_time_also_where_it_waits_more_than_once(opened):
    client = opened(SHORT)

    async def endless():
        async with client.call():
            await asyncio.Event().wait()

    with pytest.raises(NoReply):
        await endless()


async def test_the_first_command_of_a_client_goes_to_the_node_that_has_the_key(cluster, opened):
    for key in KEYS:
        await opened(LONG).get(key)
    for node in cluster.nodes:
        async with Redis.from_url(node.url) as direct:
            assert "errorstat_MOVED" not in await direct.info("errorstats")


# A node that dies and comes back


async def test_while_a_node_is_down_every_call_works_or_fails_as_unavailable(
    cluster, client, eventually, count, written
):
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


async def test_a_client_that_was_idle_meanwhile_notices_nothing_but_missing_scripts(
    cluster, client, count, eventually, written
):
    calls = [(count, [key], []) for key in KEYS]
    assert await run_all(client, calls) == [1] * 12
    node = cluster.node_of(elsewhere(cluster, KEY))
    await written(node.url)
    killed = node.pid
    node.process.kill()
    await eventually(lambda: node.pid != killed)
    await eventually(cluster.is_whole, seconds=60)
    assert await run_all(client, calls) == [2] * 12  # Redis 7 has forgotten the script, Redis 6 has not


async def test_a_cluster_that_is_down_is_told_at_once_and_calls_to_other_nodes_go_on(cluster, client, forsaken):
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


async def test_a_node_that_finds_the_cluster_down_is_not_taken_at_its_word(cluster, client, forsaken):
    other = elsewhere(cluster, KEY)
    await client.set(other, "here")
    slots = client.nodes_manager.slots_cache
    slots[key_slot(other.encode())] = slots[key_slot(KEY.encode())]  # where it was before a failover, say
    async with forsaken(cluster.node_of(KEY)):
        with pytest.raises(ClusterDownError):
            await client.get(other)
        assert await client.get(other) == b"here"


async def test_a_pipeline_that_finds_a_node_gone_looks_where_the_slots_are_now(client):
    await client.set(KEY, "here")
    misled(client, KEY)
    with pytest.raises(Lost):
        await piped(client, ("GET", KEY))
    assert await piped(client, ("GET", KEY)) == [b"here"]


async def test_failures_do_not_make_every_call_look_where_the_slots_are(client, monkeypatch):
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


# Slots that move


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


# What the stores build on


async def test_replies_of_several_nodes_are_in_order_and_a_missing_script_is_a_reply(cluster, client, count):
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


async def test_all_keys_of_all_nodes_are_scanned_and_can_be_removed_one_by_one(client):
    names = {f"{key}/{n}".encode() for key in KEYS for n in range(50)}
    await piped(client, *(("SET", name, 1) for name in names), ("SET", "{5}another", 1))
    found = [name async for name in client.scan_iter(match="{*}key/*", count=10)]
    assert (set(found), len(found)) == (names, len(names))
    assert [await client.unlink(name) for name in found] == [1] * len(names)
    assert [name async for name in client.scan_iter()] == [b"{5}another"]


async def test_a_node_takes_as_many_calls_at_once_as_it_may_have_connections_and_refuses_more(
    cluster, client, eventually
):
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
