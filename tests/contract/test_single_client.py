"""With one Redis, every wait ends in time, nothing is sent twice, and nobody gets another's reply."""

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack, contextmanager

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Lost
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as NoReply

from feature_store.redis_client import UNAVAILABLE, Line, connect
from feature_store.round_trips import RoundTrips
from services.stack.redis_server import redis_server

SHORT = 0.3
"""A timeout that passes in a test, and in which a server that is well answers even on a busy machine."""
LONG = 30.0


@pytest.fixture(scope="module")
def own(server_loop, tmp_path_factory):
    """A server that may be stopped and killed; it is started again."""
    server = redis_server(tmp_path_factory.mktemp("redis"), restart=True)
    with server_loop.wrap_async_context_manager(server) as running:
        yield running


@pytest.fixture
async def connected(own):
    """Opens clients of an empty server, and closes them after the test."""
    async with AsyncExitStack() as stack, Redis.from_url(own.url) as direct:
        await direct.flushall()

        def open_client(timeout):
            client = connect(own.url, timeout=timeout)
            stack.push_async_callback(client.aclose)
            return client

        yield open_client


@contextmanager
def hung(server):
    """It takes connections and answers nothing."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def test_a_round_trip_waits_once_for_all_its_replies(own, connected):
    client = connected(SHORT)
    line = Line(client)
    await client.ping()
    started = time.monotonic()
    with hung(own), pytest.raises(NoReply):
        await line.send([("GET", f"key{number}") for number in range(20)])
    assert SHORT <= time.monotonic() - started < 20 * SHORT / 2


async def test_a_reply_that_comes_too_late_is_nobodys(own, connected):
    client, patient = connected(SHORT), connected(LONG)
    trips = RoundTrips(client)
    await patient.mset({"one": 1, "two": 2})
    await trips.get(["one"])
    with hung(own):
        late = [trips.get(["one"]) for _ in range(5)]
        assert {type(outcome) for outcome in await asyncio.gather(*late, return_exceptions=True)} == {NoReply}
    assert await asyncio.gather(*(trips.get(["two"]) for _ in range(20))) == [[b"2"]] * 20


async def test_the_reply_to_a_cancelled_call_is_nobodys(own, connected):
    client = connected(LONG)
    line = Line(client)
    await client.mset({"one": 1, "two": 2})
    with hung(own):
        calls = [asyncio.create_task(line.send([("GET", "one")] * 3)) for _ in range(5)]
        await asyncio.wait(calls, timeout=SHORT)  # they are sent, and nothing comes
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    for _ in range(10):
        assert await line.send([("GET", "two")]) == [b"2"]


async def test_what_got_no_reply_is_not_sent_again(own, connected):
    impatient, patient = connected(SHORT), connected(LONG)
    line = Line(impatient)
    await impatient.get("runs")
    with hung(own):
        in_time_for_a_second_try = 1.5 * SHORT
        asyncio.get_running_loop().call_later(in_time_for_a_second_try, os.kill, own.pid, signal.SIGCONT)
        with pytest.raises(NoReply):
            await line.send([("INCR", "runs")])
    for _ in range(3):  # so that the server has seen whatever else was sent
        runs = await patient.get("runs")
    assert runs == b"1"


async def test_a_call_whose_connection_breaks_is_not_sent_again(own, connected, eventually):
    client = connected(LONG)
    line = Line(client)
    call = asyncio.create_task(line.send([("XREAD", "BLOCK", 60_000, "STREAMS", "stream", "$")]))
    async with Redis.from_url(own.url) as direct:

        async def is_there():
            return (await direct.info("clients"))["blocked_clients"]

        await eventually(is_there)
        await direct.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(Lost):
            await call
        assert not await is_there()
    assert await line.send([("GET", "key")]) == [None]


async def test_a_refusal_is_a_reply_among_others(connected):
    client = connected(LONG)
    line = Line(client)
    commands = [("SET", "key", 1), ("LPUSH", "key", "x"), ("NO-SUCH-COMMAND",), ("INCR", "key"), ("GET", "key")]
    done, wrong_type, unknown, counted, found = await line.send(commands)
    assert (done, counted, found) == (b"OK", 2, b"2")
    assert isinstance(wrong_type, ResponseError)
    assert isinstance(unknown, ResponseError)


@pytest.mark.parametrize("argument", [b"\0\r\n\xff", "tokén", -7, b"", b"x" * 100_000], ids=repr)
async def test_every_argument_arrives_as_it_is(connected, argument):
    _, found = await Line(connected(LONG)).send([("SET", "key", argument), ("GET", "key")])
    assert found == (argument if isinstance(argument, bytes) else str(argument).encode())


async def test_a_client_idle_meanwhile_notices_nothing(own, connected, eventually, written):
    client = connected(LONG)
    line = Line(client)
    await asyncio.gather(*(line.send([("SET", "key", "here")]) for _ in range(10)))  # ten connections
    await written(own.url)
    killed = own.pid
    own.process.kill()
    await eventually(lambda: own.pid != killed)

    async def is_back():
        async with Redis.from_url(own.url) as direct:
            try:
                return await direct.ping()
            except UNAVAILABLE:
                return False

    await eventually(is_back)
    assert [await line.send([("GET", "key")]) for _ in range(10)] == [[b"here"]] * 10
