"""Nothing is written to state that may lack what the log has: on a real Redis, flushed, killed and started again."""

import os
import signal
from datetime import UTC, datetime

import pytest
from feature_store.entity_state import RedisEntityState
from feature_store.restore import Cards, Restored
from redis.asyncio import Redis

from feature_store.decision_store import Committed, RedisDecisionStore, Write
from feature_store.definitions import Measure
from feature_store.gate import Gate, Gates
from feature_store.keys import Keys
from feature_store.outbox import Outbox
from feature_store.progress import Progress, Reached
from feature_store.redis_client import UNAVAILABLE, connect
from feature_store.scripts import ClosedError
from feature_store.transaction import Label, Transaction
from services.stack.redis_server import redis_server

KEYS = Keys(4)
CARD = next(f"c{number}" for number in range(99) if KEYS.partition(f"c{number}") == 1)
MERCHANT = next(f"m{number}" for number in range(99) if KEYS.partition(f"m{number}") == 3)
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
ANOTHER_RUN = "f" * 40
WRITE = Write({Measure.COUNT: 1}, b"answer", b'{"record":1}')


def transaction(number, card=CARD, merchant=MERCHANT):
    return Transaction(
        transaction_id=f"t{number}", card_id=card, merchant_id=merchant, amount=5, currency="EUR", event_time=NOON
    )


def label(of):
    return Label(
        transaction_id=of.transaction_id,
        card_id=of.card_id,
        merchant_id=of.merchant_id,
        event_time=of.event_time,
        is_fraud=True,
    )


async def commit(client, _gates, t=None):
    t, store = t or transaction(2), RedisDecisionStore(client, KEYS, keep_seconds=3_600)
    return await store.commit(t, await store.read(t), WRITE)


async def restore(client, gates):
    return await Cards(client, KEYS, gates).restore(1, [Restored(2, transaction(2), {Measure.COUNT: 1}, b"answer", 60)])


async def count(client, gates, t=None):
    return await RedisEntityState(client, KEYS, gates).count(1, [(2, t or transaction(2))])


async def apply_label(client, gates, t=None):
    return await RedisEntityState(client, KEYS, gates).label(label(t or transaction(2)), (1, 8))


async def note_progress(client, gates):
    await Progress(client, KEYS, gates).note("decisions", 1, Reached(20, 2))


async def read_outbox(client, gates):
    return await Outbox(client, KEYS, gates).read(1, 10)


async def trim(client, gates):
    await Outbox(client, KEYS, gates).trim(1, 1)


# What was published before a server was started again does count: it may be trimmed until a recovery moves the gate.
WITH_STANDING_GATES = [commit, restore, count, apply_label, note_progress, read_outbox]
ALL = [*WITH_STANDING_GATES, trim]


async def write_something(client, gates):
    """One of everything, so that there is something to be lost."""
    await commit(client, gates, transaction(1))
    entities = RedisEntityState(client, KEYS, gates)
    await entities.count(1, [(1, transaction(1))])
    await entities.label(label(transaction(1)), (1, 7))
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


@pytest.mark.parametrize("operation", ALL)
async def test_where_the_gate_stands_open_everything_is_written(operation, client, opened, contents):
    standing = await opened(client, KEYS, [[0], [1], [2], [3]])
    await write_something(client, standing)
    before = await contents(client)
    await operation(client, standing)
    assert (await contents(client) == before) == (operation is read_outbox)


@pytest.mark.parametrize("operation", WITH_STANDING_GATES)
async def test_a_gate_that_was_opened_on_another_run_of_the_server_is_closed_also_for_who_holds_it(
    operation, client, opened, contents
):
    standing = await opened(client, KEYS)
    await write_something(client, standing)
    await start_again(client, standing)
    before = await contents(client)
    with pytest.raises(ClosedError):
        await operation(client, [run_of(gate.text, ANOTHER_RUN) for gate in standing])
    assert await contents(client) == before


@pytest.mark.parametrize("operation", WITH_STANDING_GATES)
async def test_behind_a_gate_that_another_recovery_closed_a_recovery_writes_nothing(operation, client, contents):
    gates = Gates(client, KEYS)
    first = await gates.close("first")
    await gates.close("second")
    before = await contents(client)
    with pytest.raises(ClosedError):
        await operation(client, first)
    assert await contents(client) == before


@pytest.mark.parametrize("operation", [restore, count, apply_label, note_progress])
async def test_the_recovery_that_closed_the_gate_may_write_behind_it_and_nobody_may_decide(operation, client):
    closed = await Gates(client, KEYS).close("recovery")
    await operation(client, closed)
    with pytest.raises(ClosedError):
        await commit(client, closed, transaction(3))


async def test_a_server_that_was_killed_and_started_again_has_its_data_and_takes_nothing(
    tmp_path, eventually, opened, contents, written
):
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

        await opened(client, KEYS)
        assert await commit(client, None) == Committed(1, 2)
        await client.aclose()


async def test_a_gate_guards_its_own_partition(client, opened):
    elsewhere = next(f"c{number}" for number in range(99) if KEYS.partition(f"c{number}") == 0)
    standing = await opened(client, KEYS)
    await client.delete(KEYS.gate(1))
    with pytest.raises(ClosedError):
        await commit(client, standing)
    assert await commit(client, standing, transaction(2, card=elsewhere)) == Committed(0, 1)
    assert await count(client, standing, transaction(2)) == 1  # from partition 1 of the log, to a merchant in 3
    with pytest.raises(ClosedError):
        await count(client, standing, transaction(2, merchant=CARD))
    with pytest.raises(ClosedError):
        await apply_label(client, standing, transaction(2))


async def test_a_label_needs_the_gates_of_its_card_and_of_its_merchant(client, opened):
    standing = await opened(client, KEYS)
    await client.delete(KEYS.gate(3))
    with pytest.raises(ClosedError):
        await apply_label(client, standing)
    opened_again = await opened(client, KEYS, [[0, 5]] * 4)
    assert await apply_label(client, opened_again)  # the merchant had not been given it
    assert not await apply_label(client, opened_again)


async def test_open_gates_know_the_epochs_of_their_partitions_oldest_first(server, client):
    gates = Gates(client, KEYS)
    epochs = [[0], [11, 2], {30}, [9, 10, 100]]
    await gates.open(await gates.close("token"), epochs)
    standing = await gates.all_open()
    assert [gate.epochs for gate in standing] == [(0,), (2, 11), (30,), (9, 10, 100)]
    assert [gate.epoch for gate in standing] == [0, 11, 30, 100]
    async with Redis.from_url(server.holder(KEYS.gate(1))) as holder:
        run = (await holder.info("server"))["run_id"]
    assert await client.get(KEYS.gate(1)) == f"2 11@{run}".encode()


async def test_closing_keeps_what_epochs_there_were_and_a_flushed_redis_knows_of_none(client, opened):
    await opened(client, KEYS, [[4, 17]] * 4)
    gates = Gates(client, KEYS)
    assert [gate.epochs for gate in await gates.close("one")] == [(4, 17)] * 4
    assert [gate.epochs for gate in await gates.close("2")] == [(4, 17)] * 4  # a token that looks like an epoch is none
    await client.flushdb()
    assert [gate.epochs for gate in await gates.close("three")] == [()] * 4


async def test_they_stand_only_if_all_are_open_and_those_that_are_not_are_named(client, opened):
    await opened(client, KEYS)
    await client.delete(KEYS.gate(1))
    await client.set(KEYS.gate(3), f"0@{ANOTHER_RUN}")
    with pytest.raises(ClosedError, match=r"partitions 1, 3$"):
        await Gates(client, KEYS).all_open()


async def test_a_recovery_cannot_open_what_another_one_has_closed_since(client):
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


async def test_a_recovery_cannot_open_on_a_server_that_was_started_again_or_flushed_under_it(client):
    gates = Gates(client, KEYS)
    closed = [run_of(gate.text, ANOTHER_RUN) for gate in await gates.close("token")]
    await start_again(client, closed)
    with pytest.raises(ClosedError):
        await gates.open(closed, [[0]] * 4)
    await client.flushdb()
    with pytest.raises(ClosedError):
        await gates.open(closed, [[0]] * 4)


@pytest.mark.parametrize("operation", [op for op in ALL if op is not commit])
async def test_who_holds_the_gates_of_before_a_recovery_is_refused_behind_it(operation, client, opened, contents):
    standing = await opened(client, KEYS)
    await write_something(client, standing)
    await opened(client, KEYS, [[0, 5]] * 4)
    before = await contents(client)
    with pytest.raises(ClosedError):
        await operation(client, standing)
    assert await contents(client) == before
    assert [entry.sequence for entry in await read_outbox(client, await Gates(client, KEYS).all_open())] == [1]


async def test_a_commit_that_was_read_for_before_a_recovery_is_written_behind_it_if_the_card_is_as_it_was(
    client, opened
):
    store, t = RedisDecisionStore(client, KEYS, keep_seconds=3_600), transaction(1)
    await opened(client, KEYS)
    seen = await store.read(t)
    await opened(client, KEYS, [[0, 5]] * 4)
    assert await store.commit(t, seen, WRITE) == Committed(1, 1)


async def test_reading_goes_on_behind_a_closed_gate(client, opened):
    standing = await opened(client, KEYS)
    await write_something(client, standing)
    await close(client, standing)
    store = RedisDecisionStore(client, KEYS, keep_seconds=3_600)
    assert (await store.read(transaction(2))).version == 1
    assert await store.decided(CARD, "t1") == b"answer"
