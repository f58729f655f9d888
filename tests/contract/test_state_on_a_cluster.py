"""State whose partitions are on several servers: each may come back with less than it had, and the others not."""

import hashlib
import math
import os
import signal
from datetime import UTC, datetime

import pytest
from feature_store.entity_state import RedisEntityState
from feature_store.restore import Cards, Restored
from redis.asyncio.cluster import ClusterNode
from redis.crc import key_slot

from feature_store.decision_store import Committed, RedisDecisionStore, Write
from feature_store.definitions import Measure
from feature_store.gate import Gates
from feature_store.keys import Keys
from feature_store.outbox import Entry, Outbox
from feature_store.pending import Pending
from feature_store.progress import Progress, Reached
from feature_store.scripts import ClosedError, Script
from feature_store.transaction import Label, Transaction
from services.stack.ports import free_port

KEYS = Keys(12)
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
CARDS = {KEYS.partition(f"c{number}"): f"c{number}" for number in range(200)}
"""A card of each partition."""
WRITE = Write({Measure.COUNT: 1}, b"answer", b"{}")


@pytest.fixture
def server(on_cluster):
    return on_cluster


@pytest.fixture
def store(client):
    return RedisDecisionStore(client, KEYS, keep_seconds=60)


def transaction(partition):
    return Transaction(
        transaction_id=f"t{partition}",
        card_id=CARDS[partition],
        merchant_id=CARDS[(partition + 5) % 12],
        amount=5,
        currency="EUR",
        event_time=NOON.replace(minute=partition),
    )


def label(of):
    return Label(
        transaction_id=of.transaction_id,
        card_id=of.card_id,
        merchant_id=of.merchant_id,
        event_time=of.event_time,
        is_fraud=True,
    )


async def commit(store, partition):
    t = transaction(partition)
    return await store.commit(t, await store.read(t), WRITE)


async def test_behind_the_gates_of_all_nodes_everything_is_written(client, store, opened):
    gates = await opened(client, KEYS, [[partition] for partition in range(12)])
    entities, outbox = RedisEntityState(client, KEYS, gates), Outbox(client, KEYS, gates)
    for partition in range(12):
        assert await commit(store, partition) == Committed(partition, 1)
        assert await entities.count(partition, [(1, transaction(partition))]) == 1
        assert await entities.label(label(transaction(partition)), (partition, 3))
        assert await outbox.read(partition, 9) == [Entry(1, b"{}")]
        await outbox.trim(partition, 1)
    assert await outbox.lengths() == [0] * 12
    progress = Progress(client, KEYS, gates)
    await progress.note("decisions", 7, Reached(9, 4))
    assert await progress.reached("decisions", 7) == Reached(9, 4)


async def test_decisions_are_restored_on_their_nodes(client, opened):
    cards = Cards(client, KEYS, await opened(client, KEYS))
    for partition in range(12):
        lost = Restored(1, transaction(partition), {Measure.COUNT: 1}, b"answer", 60)
        assert await cards.restore(partition, [lost]) == await cards.sequence(partition) == 1


async def test_a_node_that_was_started_again_closes_its_own_partitions(cluster, client, store, opened, eventually):
    node = cluster.node_of(KEYS.gate(0))
    closed = [partition for partition in range(12) if cluster.node_of(KEYS.gate(partition)) is node]
    gates = await opened(client, KEYS)
    killed = node.pid
    os.kill(killed, signal.SIGKILL)
    await eventually(lambda: node.pid != killed)
    await eventually(cluster.is_whole, seconds=60)
    with pytest.raises(ClosedError, match=f"partitions {', '.join(map(str, closed))}$"):
        await Gates(client, KEYS).all_open()
    for partition in range(12):
        if partition in closed:
            with pytest.raises(ClosedError):
                await commit(store, partition)
        else:
            assert await commit(store, partition) == Committed(partition, 1)
    with pytest.raises(ClosedError):
        await Progress(client, KEYS, gates).note("decisions", 0, Reached(5))


async def test_what_is_pending_on_any_node_is_known_and_looked_up_before_what_may_lack_it_is_read(
    client, store, opened
):
    await opened(client, KEYS)
    for partition in (8, 3, 11):
        await commit(store, partition)
    text = "return redis.call('DEL', KEYS[1])"
    settling = Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
    await client.script_load(text)
    call, pending = (settling, [KEYS.pending(3)], []), Pending(client, KEYS)
    assert await pending.since([call]) == (transaction(3).second, [1])
    assert (await store.read(transaction(0))).pending_since == transaction(8).second
    await pending.settle_to(8, 1)
    await pending.settle(11, [1])
    assert (await store.read(transaction(0))).pending_since == math.inf


async def test_while_a_node_is_away_nobody_knows_what_is_pending(client, store, opened):
    await opened(client, KEYS)
    assert (await store.read(transaction(0))).pending_since == math.inf
    nowhere = ClusterNode("127.0.0.1", free_port(), **client.connection_kwargs)
    client.nodes_manager.slots_cache[key_slot(KEYS.pending(1).encode())] = [nowhere]
    assert (await store.read(transaction(0))).pending_since == -math.inf
