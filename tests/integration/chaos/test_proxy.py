import asyncio
import gc
import socket
from urllib.parse import urlsplit

import pytest
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import TimeoutError as NoReply

from feature_store.redis_client import connect
from services.chaos.proxy import Fault, FaultProxy, fault_proxy

pytestmark = pytest.mark.timeout(30)

PATIENT = 5.0
IMPATIENT = 0.1
INCR = b"INCR"
INCR_BY_HAND = b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n"


async def has_become(client, value):
    return await client.get("n") == value


@pytest.fixture
async def proxy(clean_redis):
    server = urlsplit(clean_redis)
    async with fault_proxy(server.hostname, server.port) as running:
        yield running


@pytest.fixture
async def client_of():
    """`client_of(url, timeout)`: as the processes have one."""
    clients = []

    def make(url, timeout=PATIENT):
        clients.append(connect(url, timeout=timeout))
        return clients[-1]

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
def direct(client_of, clean_redis):
    return client_of(clean_redis)


@pytest.fixture
def url(proxy):
    return f"redis://{proxy.address}/1"


@pytest.fixture
def client(client_of, url):
    return client_of(url)


@pytest.fixture
async def by_hand(proxy):
    """A connection on which a test decides what travels together; it counts in database 1."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"SELECT 1\r\n")
    assert await reader.readline() == b"+OK\r\n"
    yield reader, writer
    writer.close()
    await writer.wait_closed()


async def test_it_forwards_both_ways_also_what_takes_many_segments(client, direct):
    megabyte = bytes(range(256)) * 4_096
    await client.set("large", megabyte)
    assert await direct.get("large") == megabyte
    assert await client.get("large") == megabyte


async def test_connections_side_by_side_are_forwarded_each_to_its_own_client(client):
    values = [str(number).encode() for number in range(20)]
    assert await asyncio.gather(*(client.echo(value) for value in values)) == values


async def test_a_client_that_has_sent_its_last_gets_its_reply_and_the_end(by_hand):
    reader, writer = by_hand
    writer.write(b"PING\r\n")
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), PATIENT) == b"+PONG\r\n"


async def test_a_lost_reply_leaves_the_effect_and_an_error_as_often_as_it_was_armed_for(client, direct, proxy):
    fault = proxy.lose_reply(INCR, times=2)
    for effects in (1, 2):
        with pytest.raises(ConnectionLost):
            await client.incr("n")
        assert await direct.get("n") == str(effects).encode()
        assert fault.hits == effects
    assert await client.incr("n") == 3
    assert fault.hits == 2


async def test_a_fault_that_proxies_share_happens_at_the_one_that_meets_it_first(
    client, client_of, direct, proxy, clean_redis
):
    fault, server = Fault("lose request", INCR, 1), urlsplit(clean_redis)
    async with fault_proxy(server.hostname, server.port) as other:
        for each in (proxy, other):
            each.arm(fault)
        with pytest.raises(ConnectionLost):
            await client_of(f"redis://{other.address}/1").incr("n")
        assert await direct.get("n") is None
        assert await client.incr("n") == 1
    assert fault.hits == 1


async def test_a_lost_request_leaves_an_error_and_no_effect_as_often_as_it_was_armed_for(client, direct, proxy):
    fault = proxy.lose_request(INCR, times=2)
    for hits in (1, 2):
        with pytest.raises(ConnectionLost):
            await client.incr("n")
        assert await direct.get("n") is None
        assert fault.hits == hits
    assert await client.incr("n") == 1
    assert fault.hits == 2


@pytest.mark.parametrize("fault", ["lose_reply", "lose_request"])
async def test_requests_without_the_needle_are_spared(client, proxy, fault):
    armed = getattr(proxy, fault)(INCR)
    assert await client.set("n", 5)
    assert await client.get("n") == b"5"
    assert not armed.happened.is_set()
    with pytest.raises(ConnectionLost):
        await client.incr("n")
    assert armed.happened.is_set()


@pytest.mark.parametrize("fault", ["lose_reply", "lose_request"])
async def test_a_lifted_fault_spares_what_it_was_armed_for(client, proxy, fault):
    getattr(proxy, fault)(INCR).lift()
    assert await client.incr("n") == 1


async def test_one_armed_fault_meets_one_of_many_connections(client, direct, proxy):
    await asyncio.gather(*(client.ping() for _ in range(8)))
    fault = proxy.lose_reply(INCR)
    results = await asyncio.gather(*(client.incr("n") for _ in range(8)), return_exceptions=True)
    assert [type(result) for result in results if not isinstance(result, int)] == [ConnectionLost]
    assert (await direct.get("n"), fault.hits) == (b"8", 1)


async def test_of_a_pipeline_in_pieces_every_reply_is_lost_and_every_effect_happens(client, direct, proxy, eventually):
    fault = proxy.lose_reply(INCR, times=2)
    pipeline = client.pipeline(transaction=False)
    for _ in range(20_000):  # so that the server answers while the most is still to come
        pipeline.incr("n")
    with pytest.raises(ConnectionLost):
        await pipeline.execute()
    await eventually(lambda: has_become(direct, b"20000"))
    assert fault.hits == 1
    with pytest.raises(ConnectionLost):
        await client.incr("n")


@pytest.mark.parametrize("cut", range(1, len(INCR_BY_HAND)))
async def test_a_needle_in_two_segments_is_found(by_hand, direct, proxy, cut):
    reader, writer = by_hand
    first = proxy.silence()  # which tells when the first segment has come: the second is read apart from it
    fault = proxy.lose_reply(INCR_BY_HAND)
    writer.write(INCR_BY_HAND[:cut])
    await asyncio.wait_for(first.happened.wait(), PATIENT)
    first.lift()
    writer.write(INCR_BY_HAND[cut:])
    assert await asyncio.wait_for(reader.read(), PATIENT) == b""
    assert (await direct.get("n"), fault.hits) == (b"1", 1)


async def test_a_needle_in_many_segments_is_found(by_hand, direct, proxy):
    reader, writer = by_hand
    fault = proxy.lose_reply(INCR_BY_HAND)
    for byte in INCR_BY_HAND:
        arrived = proxy.silence()
        writer.write(bytes([byte]))
        await asyncio.wait_for(arrived.happened.wait(), PATIENT)
        arrived.lift()
    assert await asyncio.wait_for(reader.read(), PATIENT) == b""
    assert (await direct.get("n"), fault.hits) == (b"1", 1)


@pytest.mark.parametrize("needle", [INCR, INCR_BY_HAND])
async def test_a_needle_that_passed_before_it_was_armed_is_not_found_again(by_hand, proxy, needle):
    reader, writer = by_hand
    writer.write(INCR_BY_HAND)
    assert await reader.readline() == b":1\r\n"
    fault = proxy.lose_reply(needle)
    writer.write(b"PING\r\n")
    assert await asyncio.wait_for(reader.readline(), PATIENT) == b"+PONG\r\n"
    assert fault.hits == 0


async def test_of_a_reply_in_pieces_the_client_gets_nothing(direct, proxy, by_hand):
    await direct.set("large", b"x" * 1_000_000)
    reader, writer = by_hand
    proxy.lose_reply(b"GET large")
    writer.write(b"GET large\r\n")
    assert await asyncio.wait_for(reader.read(), PATIENT) == b""


async def test_in_silence_a_call_ends_with_its_timeout_and_what_it_sent_arrives_late(
    client_of, url, direct, proxy, eventually
):
    client = client_of(url, IMPATIENT)
    assert await client.ping()
    silence = proxy.silence()
    with pytest.raises(NoReply):
        await asyncio.wait_for(client.incr("n"), PATIENT)
    assert await direct.get("n") is None
    assert silence.hits == 1
    silence.lift()
    await eventually(lambda: has_become(direct, b"1"))
    assert await client.incr("n") == 2


async def test_in_silence_a_new_connection_hangs_too(client_of, url, proxy):
    client = client_of(url, IMPATIENT)
    silence = proxy.silence()
    with pytest.raises(NoReply):
        await asyncio.wait_for(client.ping(), PATIENT)
    silence.lift()
    assert await client.ping()


async def test_a_patient_caller_gets_its_reply_when_silence_ends(client, direct, proxy):
    assert await client.ping()
    silence = proxy.silence()
    call = asyncio.create_task(client.incr("n"))
    await asyncio.wait_for(silence.happened.wait(), PATIENT)
    assert await direct.get("n") is None
    silence.lift()
    assert await call == 1


async def test_silence_holds_replies_too(by_hand, direct, proxy):
    reader, writer = by_hand
    writer.write(b"SUBSCRIBE news\r\n")
    for _ in range(6):
        await reader.readline()
    silence = proxy.silence()
    await direct.publish("news", "late")
    await asyncio.wait_for(silence.happened.wait(), PATIENT)
    line = asyncio.create_task(reader.readline())
    await asyncio.wait({line}, timeout=IMPATIENT)
    assert not line.done()
    silence.lift()
    assert await asyncio.wait_for(line, PATIENT) == b"*3\r\n"


async def test_refusal_closes_every_connection_and_every_new_one(client, direct, proxy, by_hand):
    reader, _ = by_hand
    refusal = proxy.refuse()
    assert await asyncio.wait_for(reader.read(), PATIENT) == b""
    assert refusal.hits == 1
    for refused in (2, 3):
        with pytest.raises(ConnectionLost):
            await client.incr("n")
        assert refusal.hits == refused
    assert await direct.get("n") is None
    refusal.lift()
    assert await client.incr("n") == 1


async def test_a_call_under_way_ends_when_refusal_begins(client, proxy):
    assert await client.ping()
    silence = proxy.silence()
    call = asyncio.create_task(client.incr("n"))
    await asyncio.wait_for(silence.happened.wait(), PATIENT)
    proxy.refuse()
    with pytest.raises(ConnectionLost):
        await call


async def test_refusal_counts_no_connection_that_was_closed_before(client, proxy, eventually):
    assert await client.ping()
    assert proxy.refuse().hits == 1
    await eventually(lambda: proxy.refuse().hits == 0)


async def test_a_server_that_is_away_closes_the_connection_and_is_no_error_of_the_proxy(client_of, caplog):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    async with fault_proxy("127.0.0.1", port) as proxy:
        with pytest.raises(ConnectionLost):
            await client_of(f"redis://{proxy.address}/1").ping()
    gc.collect()  # when asyncio logs what no one took from a task
    assert not caplog.records


async def test_its_end_closes_what_is_open_or_held_and_leaves_no_task(clean_redis, client_of):
    server = urlsplit(clean_redis)
    before = asyncio.all_tasks()
    async with fault_proxy(server.hostname, server.port) as proxy:
        assert await client_of(f"redis://{proxy.address}/1").ping()
        silence = proxy.silence()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        await asyncio.wait_for(silence.happened.wait(), PATIENT)
    assert asyncio.all_tasks() == before
    assert await asyncio.wait_for(reader.read(), PATIENT) == b""
    writer.close()
    await writer.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)


async def test_its_end_closes_what_was_only_just_accepted():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), timeout=PATIENT) as caller,
    ):
        proxy = FaultProxy(0, ("127.0.0.1", 0))
        proxy.accept(listener)
        await proxy.close()
        assert caller.recv(1) == b""
