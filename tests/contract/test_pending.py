"""How far merchant state is behind the log: a decision knows the oldest event that it may have been made without."""

import math

import pytest
from contract.events import KEYS, LEAP_DAY, Interrupted, in_redis, transaction
from redis.asyncio.cluster import ClusterNode
from redis.crc import key_slot

from feature_store.entity_writer import LoggedDecision
from feature_store.pending import MOST_IN_A_SCRIPT, Pending
from services.stack.ports import free_port

ASKING = transaction(99, card="c9", merchant="m9")


@pytest.fixture
async def store(client, opened):
    return in_redis(client, await opened(client, KEYS))


@pytest.fixture
def pending(client):
    return Pending(client, KEYS)


async def since(store):
    return (await store.decisions.read(ASKING)).pending_since


async def test_the_oldest_event_counts_whichever_its_partition(store, pending):
    assert await since(store) == math.inf
    later = await store.decide(transaction(1, card="c0", second=LEAP_DAY + 20))
    oldest = await store.decide(transaction(2, card="c1", second=LEAP_DAY + 5))
    between = await store.decide(transaction(3, card="c1", second=LEAP_DAY + 10))
    assert len({later.partition, oldest.partition, KEYS.partition("c9")}) == 3
    for settled, then in ((oldest, LEAP_DAY + 10), (between, LEAP_DAY + 20), (later, math.inf)):
        assert await since(store) < then
        await pending.settle({settled.partition: [settled.sequence]})
        assert await since(store) == then


async def test_what_is_pending_on_every_node_is_known(store, pending):
    cards = {KEYS.partition(f"c{number}"): f"c{number}" for number in range(200)}
    for partition in range(12):
        await store.decide(transaction(partition, card=cards[partition], second=LEAP_DAY + partition))
    for partition in range(12):
        assert await since(store) == LEAP_DAY + partition
        await pending.settle({partition: [1]})
    assert await since(store) == math.inf


async def test_a_late_event_becomes_the_oldest(store):
    await store.decide(transaction(1, card="c0"))
    await store.decide(transaction(2, card="c0", second=LEAP_DAY - 3_600))
    await store.decide(transaction(3, card="c0", second=LEAP_DAY + 3_600))
    assert await since(store) == LEAP_DAY - 3_600


async def test_several_are_settled_at_once(store, pending):
    by_partition = {}
    for number in range(20):
        outcome = await store.decide(transaction(number, card=f"c{number}", second=LEAP_DAY + number))
        by_partition.setdefault(outcome.partition, []).append(outcome.sequence)
    await pending.settle(by_partition)
    assert await since(store) == math.inf
    await pending.settle(by_partition)  # as after a kill
    await pending.settle({})
    assert await since(store) == math.inf


async def test_more_than_a_script_takes_are_settled(client, store, pending):
    count = 2 * MOST_IN_A_SCRIPT + 1
    await client.zadd(KEYS.pending(3), {sequence: LEAP_DAY + sequence for sequence in range(1, count + 2)})
    await pending.settle({3: range(1, count + 1)})
    assert await client.zrange(KEYS.pending(3), 0, -1) == [b"%d" % (count + 1)]
    assert await since(store) == LEAP_DAY + count + 1


async def test_everything_up_to_a_sequence_is_settled(client, pending):
    await client.zadd(KEYS.pending(0), {9: 3, 10: 1, 11: 2, 12: 7})
    await client.zadd(KEYS.pending(1), {1: 5})
    await pending.settle_to(0, 10)
    assert await client.zrange(KEYS.pending(0), 0, -1) == [b"11", b"12"]
    assert await client.get(KEYS.pending_since(0)) == b"2"
    assert await client.zcard(KEYS.pending(1)) == 1
    await pending.settle_to(2, 10)  # there was nothing


@pytest.mark.parametrize("behind", [1, 2])
async def test_what_is_not_pending_is_in_what_was_read(client, opened, pending, behind):
    """Between what a read looks up, the updater counts the only event that is pending, and strikes it out."""
    gates = await opened(client, KEYS)
    store = in_redis(client, gates)
    t = transaction(1, card="c0", merchant="m9")
    committed = await store.decide(t)

    async def updater():
        await store.writer.count([LoggedDecision(committed.partition, committed.sequence, t)])
        await pending.settle({committed.partition: [committed.sequence]})

    interrupted = in_redis(client, gates, trips=Interrupted(client, updater, behind=behind))
    seen = await interrupted.decisions.read(ASKING)
    assert seen.pending_since == t.second or seen.histories[1].decisions == {committed.partition: 1}


@pytest.mark.parametrize("closing", ["gone", "closed"])
async def test_nobody_knows_behind_a_merchants_closed_gate(client, store, closing):
    assert KEYS.partition("m9") != KEYS.partition("c9")
    assert await since(store) == math.inf
    gate = KEYS.gate(KEYS.partition("m9"))
    if closing == "gone":
        await client.delete(gate)
    else:
        open_gate = await client.get(gate)
        await client.set(gate, open_gate.replace(b"@", b"!recovery@"))
    assert await since(store) == -math.inf


async def test_nobody_knows_behind_a_server_started_again(on_cluster, opened):
    """The merchant's server may have lost what it had counted; its gate is as it was, but of another run."""
    client = on_cluster.connect()
    store = in_redis(client, await opened(client, KEYS))
    gate = KEYS.gate(KEYS.partition("m9"))
    await client.set(gate, b"0@" + b"f" * 40)
    assert await since(store) == -math.inf
    await client.aclose()


async def test_nobody_knows_while_a_node_is_away(on_cluster, opened):
    client = on_cluster.connect()
    store = in_redis(client, await opened(client, KEYS))
    assert await since(store) == math.inf
    mine = {on_cluster.holder(KEYS.gate(KEYS.partition(value))) for value in ("c9", "m9")}
    away = next(p for p in range(12) if on_cluster.holder(KEYS.pending(p)) not in mine)
    nowhere = ClusterNode("127.0.0.1", free_port(), **client.connection_kwargs)
    client.nodes_manager.slots_cache[key_slot(KEYS.pending(away).encode())] = [nowhere]
    assert await since(store) == -math.inf
    await client.aclose()
