"""State whose partitions are on several servers: each may come back with less than it had, and the others not."""

import os
import signal

import pytest
from contract.events import KEYS, LEAP_DAY, in_redis, label, transaction

from feature_store.decision_store import Committed, Decided
from feature_store.entity_writer import LoggedDecision, LoggedLabel, RestoredDecision
from feature_store.gate import Gates
from feature_store.outbox import Entry, Outbox
from feature_store.progress import Progress, Reached
from feature_store.scripts import ClosedError

CARDS = {KEYS.partition(f"c{number}"): f"c{number}" for number in range(200)}
"""A card of each partition."""


@pytest.fixture
def server(on_cluster):
    return on_cluster


def of(partition):
    """A transaction of a card in that partition, at a merchant in another."""
    return transaction(partition, CARDS[partition], CARDS[(partition + 5) % 12], second=LEAP_DAY + partition)


async def test_behind_the_gates_of_all_nodes_all_is_written(client, opened):
    gates = await opened(client, KEYS, [[partition] for partition in range(12)])
    store, outbox = in_redis(client, gates), Outbox(client, KEYS, gates)
    for partition in range(12):
        assert await store.decide(of(partition)) == Committed(partition, 1)
    assert await store.writer.count([LoggedDecision(partition, 1, of(partition)) for partition in range(12)]) == 12
    labels = [LoggedLabel(partition, 3, label(of(partition))) for partition in range(12)]
    assert await store.writer.label(labels) == [True] * 12
    assert await outbox.read(range(12), 9) == {partition: [Entry(1, b"{}")] for partition in range(12)}
    await outbox.trim(dict.fromkeys(range(12), 1))
    assert await outbox.lengths(range(12)) == dict.fromkeys(range(12), 0)
    progress = Progress(client, KEYS, gates)
    await progress.note("decisions", 7, Reached(9, 4))
    assert await progress.reached("decisions", 7) == Reached(9, 4)


async def test_decisions_are_restored_on_their_nodes(client, opened):
    store = in_redis(client, await opened(client, KEYS))
    for partition in range(12):
        await store.writer.restore(partition, [RestoredDecision(1, of(partition), {}, b"answer", 60)])
        assert await store.writer.sequence(partition) == 1
        assert await store.decisions.read(of(partition)) == Decided(b"answer")


async def test_a_node_started_again_closes_its_own_partitions(cluster, client, opened, eventually):
    node = cluster.node_of(KEYS.gate(0))
    closed = [partition for partition in range(12) if cluster.node_of(KEYS.gate(partition)) is node]
    gates = await opened(client, KEYS)
    store = in_redis(client, gates)
    killed = node.pid
    os.kill(killed, signal.SIGKILL)
    await eventually(lambda: node.pid != killed)
    await eventually(cluster.is_whole, seconds=60)
    with pytest.raises(ClosedError, match=f"partitions {', '.join(map(str, closed))}$"):
        await Gates(client, KEYS).all_open()
    for partition in range(12):
        if partition in closed:
            with pytest.raises(ClosedError):
                await store.decide(of(partition))
        else:
            assert await store.decide(of(partition)) == Committed(partition, 1)
    with pytest.raises(ClosedError):
        await Progress(client, KEYS, gates).note("decisions", 0, Reached(5))


async def test_a_batch_is_counted_where_its_nodes_are_open(client, opened):
    """A partition that is closed refuses its own; the rest has its effect once, also when all of it comes again."""
    store = in_redis(client, await opened(client, KEYS))
    batch = [LoggedDecision(partition, 1, of(partition)) for partition in range(12)]
    gate = await client.get(KEYS.gate(5))
    await client.delete(KEYS.gate(5))
    with pytest.raises(ClosedError):
        await store.writer.count(batch)
    await client.set(KEYS.gate(5), gate)
    await store.writer.count(batch)
    for partition in range(12):
        seen = await store.decisions.read(transaction(99, merchant=of(partition).merchant_id))
        assert seen.histories[1].decisions == {partition: 1}
        assert seen.histories[1].revision == 1
