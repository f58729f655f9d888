"""Nothing is written to state that may lack what the log has: on a real Redis, flushed, killed and started again."""

import os
import signal

import pytest
from contract.events import in_redis, label, transaction
from redis.asyncio import Redis

from feature_store.decision_store import Committed, Decided
from feature_store.definitions import Measure
from feature_store.entity_writer import LoggedDecision, LoggedLabel, RestoredDecision
from feature_store.gate import Gate, Gates
from feature_store.keys import Keys
from feature_store.outbox import Outbox
from feature_store.progress import Progress, Reached
from feature_store.redis_client import UNAVAILABLE, connect
from feature_store.scripts import ClosedError
from services.stack.redis_server import redis_server

KEYS = Keys(4)
CARD = next(f"c{number}" for number in range(99) if KEYS.partition(f"c{number}") == 1)
MERCHANT = next(f"m{number}" for number in range(99) if KEYS.partition(f"m{number}") == 3)
ANOTHER_RUN = "f" * 40


def paid(number, card=CARD, merchant=MERCHANT):
    return transaction(number, card, merchant)


def stores(client, gates):
    return in_redis(client, gates, keys=KEYS)


async def commit(client, gates, t=None):
    return await stores(client, gates).decide(t or paid(2))


async def restore(client, gates):
    again = RestoredDecision(2, paid(2), {Measure.COUNT: 1}, b"answer", 60)
    await stores(client, gates).writer.restore(1, [again])


async def count(client, gates, t=None):
    return await stores(client, gates).writer.count([LoggedDecision(1, 2, t or paid(2))])


async def apply_label(client, gates, t=None):
    return await stores(client, gates).writer.label([LoggedLabel(1, 8, label(t or paid(2)))])


async def note_progress(client, gates):
    await Progress(client, KEYS, gates).note("decisions", 1, Reached(20, 2))


async def read_outbox(client, gates):
    return await Outbox(client, KEYS, gates).read([1], 10)


async def trim(client, gates):
    await Outbox(client, KEYS, gates).trim({1: 1})


# What was published before a server was started again does count: it may be trimmed until a recovery moves the gate.
WITH_STANDING_GATES = [commit, restore, count, apply_label, note_progress, read_outbox]
ALL = [*WITH_STANDING_GATES, trim]


async def write_something(client, gates):
    """One of everything, so that there is something to be lost."""
    await commit(client, gates, paid(1))
    writer = stores(client, gates).writer
    await writer.count([LoggedDecision(1, 1, paid(1))])
    await writer.label([LoggedLabel(1, 7, label(paid(1)))])
    await Progress(client, KEYS, gates).note("decisions", 1, Reached(10, 1))


def run_of(text, run):
    return Gate(text.partition("@")[0] + "@" + run)


async def close(client, _standing):
    await Gates(client, KEYS).close("another recovery")


async def flush(client, _standing):
    await client.flushdb()


async def start_again(client, standing):
    """As it looks to who holds the gates of before; that a server that is started again is another run, see below."""
    for partition, gate in enumerate(standing):
        await client.set(KEYS.gate(partition), run_of(gate.text, ANOTHER_RUN).text)


@pytest.mark.parametrize("closing", [close, flush, start_again])
@pytest.mark.parametrize("operation", ALL)
async def test_nothing_is_written_where_the_gate_is_not_open(operation, closing, client, opened, contents):
    standing = await opened(client, KEYS)
    await write_something(client, standing)
    await closing(client, standing)
    before = await contents(client)
    with pytest.raises(ClosedError):
        await operation(client, standing)
    with pytest.raises(ClosedError):
        await Gates(client, KEYS).all_open()
    assert await contents(client) == before


@pytest.mark.parametrize("closing", [close, flush, start_again])
async def test_a_commit_is_refused_when_its_gate_closed_since(closing, client, opened, contents):
    """Read while it was open. The card is as it was, where nothing was lost; nobody can know."""
    standing = await opened(client, KEYS)
    store = stores(client, standing)
    seen = await store.decisions.read(paid(2))
    await closing(client, standing)
    before = await contents(client)
    with pytest.raises(ClosedError):
        await store.commit(paid(2), seen)
    assert await contents(client) == before


async def test_a_commit_read_before_a_recovery_is_refused(client, opened):
    """Another epoch: what was read may lack what the recovery brought. It is read again."""
    store = stores(client, await opened(client, KEYS))
    seen = await store.decisions.read(paid(1))
    await opened(client, KEYS, [[0, 5]] * 4)
    with pytest.raises(ClosedError):
        await store.commit(paid(1), seen)
    assert await store.decide(paid(1)) == Committed(1, 1)


@pytest.mark.parametrize("operation", ALL)
async def test_behind_an_open_gate_everything_is_written(operation, client, opened, contents):
    standing = await opened(client, KEYS, [[0], [1], [2], [3]])
    await write_something(client, standing)
    before = await contents(client)
    await operation(client, standing)
    assert (await contents(client) == before) == (operation is read_outbox)


@pytest.mark.parametrize("operation", WITH_STANDING_GATES)
async def test_a_gate_of_another_run_is_closed_to_its_holder(operation, client, opened, contents):
    standing = await opened(client, KEYS)
    await write_something(client, standing)
    await start_again(client, standing)
    before = await contents(client)
    with pytest.raises(ClosedError):
        await operation(client, [run_of(gate.text, ANOTHER_RUN) for gate in standing])
    assert await contents(client) == before


@pytest.mark.parametrize("operation", WITH_STANDING_GATES)
async def test_an_overtaken_recovery_writes_nothing(operation, client, contents):
    gates = Gates(client, KEYS)
    first = await gates.close("first")
    await gates.close("second")
    before = await contents(client)
    with pytest.raises(ClosedError):
        await operation(client, first)
    assert await contents(client) == before


@pytest.mark.parametrize("operation", [restore, count, apply_label, note_progress])
async def test_who_closed_the_gate_writes_and_nobody_decides(operation, client):
    closed = await Gates(client, KEYS).close("recovery")
    await operation(client, closed)
    with pytest.raises(ClosedError):
        await commit(client, closed, paid(3))


async def test_a_killed_server_has_its_data_and_takes_nothing(tmp_path, eventually, opened, contents, written):
    async def back():
        try:
            return await client.ping() and server.pid != killed
        except UNAVAILABLE:
            return False

    async with redis_server(tmp_path, restart=True) as server:
        client = connect(server.url, timeout=5)
        standing = await opened(client, KEYS)
        await write_something(client, standing)
        before, killed = await contents(client), server.pid
        await written(server.url)
        os.kill(killed, signal.SIGKILL)
        await eventually(back)
        for operation in WITH_STANDING_GATES:
            with pytest.raises(ClosedError):
                await operation(client, standing)
        assert await contents(client) == before
        assert await client.get(KEYS.gate(1)) == standing[1].text.encode()

        assert await commit(client, await opened(client, KEYS)) == Committed(1, 2)
        await client.aclose()


async def test_a_gate_guards_its_own_partition(client, opened):
    elsewhere = next(f"c{number}" for number in range(99) if KEYS.partition(f"c{number}") == 0)
    standing = await opened(client, KEYS)
    await client.delete(KEYS.gate(1))
    with pytest.raises(ClosedError):
        await commit(client, standing)
    assert await commit(client, standing, paid(2, card=elsewhere)) == Committed(0, 1)
    assert await count(client, standing, paid(2)) == 1  # from partition 1 of the log, to a merchant in 3
    with pytest.raises(ClosedError):
        await count(client, standing, paid(2, merchant=CARD))
    with pytest.raises(ClosedError):
        await apply_label(client, standing, paid(2))


async def test_a_label_needs_the_gates_of_card_and_merchant(client, opened):
    standing = await opened(client, KEYS)
    await client.delete(KEYS.gate(3))
    with pytest.raises(ClosedError):
        await apply_label(client, standing)
    opened_again = await opened(client, KEYS, [[0, 5]] * 4)
    assert await apply_label(client, opened_again) == [True]  # the merchant had not been given it
    assert await apply_label(client, opened_again) == [False]
    card, merchant = (await stores(client, opened_again).decisions.read(paid(3))).histories
    assert (card.labels, card.revision) == (merchant.labels, merchant.revision) == ({1: 8}, 1)


async def test_gates_know_their_epochs_oldest_first(server, client):
    gates = Gates(client, KEYS)
    epochs = [[0], [11, 2], {30}, [9, 10, 100]]
    await gates.open(await gates.close("token"), epochs)
    standing = await gates.all_open()
    assert [gate.epochs for gate in standing] == [(0,), (2, 11), (30,), (9, 10, 100)]
    assert [gate.epoch for gate in standing] == [0, 11, 30, 100]
    async with Redis.from_url(server.holder(KEYS.gate(1))) as holder:
        run = (await holder.info("server"))["run_id"]
    assert await client.get(KEYS.gate(1)) == f"2 11@{run}".encode()


async def test_closing_keeps_the_epochs_and_a_flush_forgets_them(client, opened):
    await opened(client, KEYS, [[4, 17]] * 4)
    gates = Gates(client, KEYS)
    assert [gate.epochs for gate in await gates.close("one")] == [(4, 17)] * 4
    assert [gate.epochs for gate in await gates.close("2")] == [(4, 17)] * 4  # a token that looks like an epoch is none
    await client.flushdb()
    assert [gate.epochs for gate in await gates.close("three")] == [()] * 4


async def test_gates_that_are_not_open_are_named(client, opened):
    await opened(client, KEYS)
    await client.delete(KEYS.gate(1))
    await client.set(KEYS.gate(3), f"0@{ANOTHER_RUN}")
    with pytest.raises(ClosedError, match=r"partitions 1, 3$"):
        await Gates(client, KEYS).all_open()


async def test_a_recovery_cannot_open_what_another_closed(client):
    gates = Gates(client, KEYS)
    first = await gates.close("first")
    second = await gates.close("second")
    with pytest.raises(ClosedError):
        await gates.open(first, [[1]] * 4)
    with pytest.raises(ClosedError):
        await gates.all_open()
    await gates.open(second, [[2]] * 4)
    assert {gate.epoch for gate in await gates.all_open()} == {2}
    with pytest.raises(ClosedError):
        await gates.open(first, [[1]] * 4)
    with pytest.raises(ClosedError):
        await gates.open(second, [[3]] * 4)  # once
    assert {gate.epoch for gate in await gates.all_open()} == {2}


async def test_a_recovery_cannot_open_a_server_it_lost(client):
    """The server was started again under it, or flushed."""
    gates = Gates(client, KEYS)
    closed = [run_of(gate.text, ANOTHER_RUN) for gate in await gates.close("token")]
    await start_again(client, closed)
    with pytest.raises(ClosedError):
        await gates.open(closed, [[0]] * 4)
    await client.flushdb()
    with pytest.raises(ClosedError):
        await gates.open(closed, [[0]] * 4)


@pytest.mark.parametrize("operation", [op for op in ALL if op is not commit])
async def test_who_holds_the_gates_of_before_is_refused(operation, client, opened, contents):
    standing = await opened(client, KEYS)
    await write_something(client, standing)
    await opened(client, KEYS, [[0, 5]] * 4)
    before = await contents(client)
    with pytest.raises(ClosedError):
        await operation(client, standing)
    assert await contents(client) == before
    (waiting,) = (await read_outbox(client, await Gates(client, KEYS).all_open())).values()
    assert [entry.sequence for entry in waiting] == [1]


async def test_what_was_decided_is_told_behind_a_closed_gate(client, opened):
    standing = await opened(client, KEYS)
    await write_something(client, standing)
    await close(client, standing)
    store = stores(client, standing).decisions
    assert await store.decided(CARD, "t1") == b"answer"
    assert await store.read(paid(1)) == Decided(b"answer")
    with pytest.raises(ClosedError, match="partition 1 "):
        await store.read(paid(2))
