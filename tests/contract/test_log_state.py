"""The outbox, the pending set and the layout on a real Redis."""

import math

import pytest

from feature_store.definitions import LAYOUT
from feature_store.keys import Keys
from feature_store.layout import LayoutError, claim_layout
from feature_store.outbox import Entry, Outbox
from feature_store.pending import Pending
from feature_store.redis_client import connect

KEYS = Keys(4)


@pytest.fixture
async def client(clean_redis):
    made = connect(clean_redis, timeout=5)
    yield made
    await made.aclose()


def outbox(client, owner="one", lease_milliseconds=60_000):
    return Outbox(client, KEYS, owner=owner, lease_milliseconds=lease_milliseconds)


async def put(client, partition, *sequences):
    for sequence in sequences:
        await client.xadd(KEYS.outbox(partition), {"record": f"r{sequence}"}, id=f"{sequence}-0")


async def test_records_come_oldest_first_and_stay_until_they_are_trimmed(client):
    await put(client, 1, 1, 2, 3)
    box = outbox(client)
    assert await box.read(1, 2, wait_milliseconds=10) == [Entry(1, b"r1"), Entry(2, b"r2")]
    assert (await box.read(1, 9, wait_milliseconds=10))[0].sequence == 1
    assert await box.read(2, 9, wait_milliseconds=10) == []
    assert await box.lengths() == [0, 3, 0, 0]


async def test_trimming_is_by_sequence_so_a_relay_that_was_overtaken_removes_nothing_new(client):
    await put(client, 0, 1, 2, 3, 4)
    box = outbox(client)
    await box.trim(0, 3)
    await box.trim(0, 2)
    assert [entry.sequence for entry in await box.read(0, 9, wait_milliseconds=10)] == [4]


async def test_one_relay_at_a_time_has_the_lease_of_a_partition(client, eventually):
    one, two = outbox(client, "one", 200), outbox(client, "two")
    assert await one.lease(0)
    assert await one.lease(0)
    assert not await two.lease(0)
    assert await two.lease(1)
    await two.release(0)  # not its own: nothing happens
    assert not await two.lease(0)
    await eventually(lambda: two.lease(0))  # the lease ran out
    assert not await one.lease(0)
    await two.release(0)
    assert await one.lease(0)


async def test_a_relay_that_goes_on_extends_its_lease(client):
    assert await outbox(client, "one", 1_000).lease(0)
    assert await outbox(client, "one", 60_000).lease(0)
    assert await client.pttl(KEYS.relay_lease(0)) > 1_000


async def test_the_oldest_pending_event_counts_whichever_partition_it_is_in(client):
    pending = Pending(client, KEYS)
    assert await pending.oldest() == math.inf
    for partition, sequence, second in ((0, 1, 500), (0, 2, 100), (3, 1, 300)):
        await client.zadd(KEYS.pending(partition), {sequence: second})
    assert await pending.oldest() == 100
    await pending.settle(0, [2])
    assert await pending.oldest() == 300
    await pending.settle(3, [1])
    assert await pending.settle_before(0, 2) == [1]
    assert await pending.oldest() == math.inf


async def test_state_of_another_layout_is_refused(client):
    await claim_layout(client, 12)
    await claim_layout(client, 12)
    with pytest.raises(LayoutError, match="remove var/"):
        await claim_layout(client, 4)
    await client.set("layout", "other/12")
    with pytest.raises(LayoutError, match=LAYOUT):
        await claim_layout(client, 12)
