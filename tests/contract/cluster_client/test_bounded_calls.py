"""On a cluster, a call goes to the right node, once, and ends in time, as with a single Redis."""

import asyncio
import contextlib
import os
import signal
import time

import pytest
from contract.cluster_client.calls import KEY, KEYS, LONG, SHORT, elsewhere, hung, piped
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Lost
from redis.exceptions import TimeoutError as NoReply


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


async def test_callers_do_not_queue_up_for_a_silent_cluster(cluster, opened):
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


async def test_the_first_command_of_a_client_goes_to_the_right_node(cluster, opened):
    for key in KEYS:
        await opened(LONG).get(key)
    for node in cluster.nodes:
        async with Redis.from_url(node.url) as direct:
            assert "errorstat_MOVED" not in await direct.info("errorstats")
