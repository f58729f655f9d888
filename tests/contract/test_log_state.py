"""The outbox, the leases, the pending set and the layout where they are kept."""

import asyncio
import hashlib
import math

import pytest
from redis import exceptions
from redis.asyncio import Redis

from feature_store.definitions import LAYOUT
from feature_store.keys import Keys
from feature_store.layout import LayoutError, claim_layout
from feature_store.lease import Lease
from feature_store.outbox import Entry, Outbox
from feature_store.pending import Pending
from feature_store.scripts import Script

KEYS = Keys(4)


@pytest.fixture
async def outbox(client, opened):
    return Outbox(client, KEYS, await opened(client, KEYS))


def lease(client, owner="one", partition=0, milliseconds=60_000):
    return Lease(client, KEYS.relay_lease(partition), owner=owner, milliseconds=milliseconds)


async def put(client, partition, *sequences):
    for sequence in sequences:
        await client.xadd(KEYS.outbox(partition), {"record": f"r{sequence}"}, id=f"{sequence}-0")


async def test_records_come_oldest_first_and_stay_until_they_are_trimmed(client, outbox):
    await put(client, 1, 1, 2, 3)
    assert await outbox.read(1, 2) == [Entry(1, b"r1"), Entry(2, b"r2")]
    assert (await outbox.read(1, 9))[0].sequence == 1
    assert await outbox.read(2, 9) == []
    assert await outbox.lengths() == [0, 3, 0, 0]


async def test_trimming_is_by_sequence_so_a_relay_that_was_overtaken_removes_nothing_new(client, outbox):
    await put(client, 0, 1, 2, 3, 4)
    await outbox.trim(0, 3)
    await outbox.trim(0, 2)
    assert [entry.sequence for entry in await outbox.read(0, 9)] == [4]


async def test_waiting_ends_when_there_is_a_record_and_when_the_time_is_over(server, client, outbox, eventually):
    async def somebody_waits():
        async with Redis.from_url(server.holder(KEYS.outbox(2))) as holder:
            return (await holder.info("clients"))["blocked_clients"]

    await outbox.wait(2, 10)
    waiting = asyncio.create_task(outbox.wait(2, 4_000))
    await eventually(somebody_waits, 2)
    await put(client, 2, 1)
    async with asyncio.timeout(2):
        await waiting
        await outbox.wait(2, 4_000)  # it is still there


async def test_one_relay_at_a_time_has_the_lease_of_a_partition(client, eventually):
    one, two = lease(client, "one", milliseconds=200), lease(client, "two")
    assert await one.take()
    assert await one.take()
    assert not await two.take()
    assert await lease(client, "two", partition=1).take()
    await two.release()  # not its own: nothing happens
    assert not await two.take()
    await eventually(two.take)  # the lease ran out
    assert not await one.take()
    await two.release()
    assert await one.take()


async def test_a_relay_that_goes_on_extends_its_lease(client):
    assert await lease(client, milliseconds=1_000).take()
    assert await lease(client, milliseconds=60_000).take()
    assert await client.pttl(KEYS.relay_lease(0)) > 1_000


async def test_a_lease_that_is_kept_is_extended_until_the_block_ends_and_is_given_back(client, eventually):
    async def extended():
        return await client.pttl(KEYS.relay_lease(0)) > 500

    mine = lease(client, milliseconds=1_000)
    assert await mine.take()
    async with mine.kept():
        await client.pexpire(KEYS.relay_lease(0), 500)
        await eventually(extended, 2)
        assert not await lease(client, "two").take()
    assert await lease(client, "two").take()


async def test_a_lease_that_is_kept_is_extended_also_after_redis_did_not_answer_once(client, eventually):
    class Failing:
        """The client, whose first attempt to set something does not reach Redis."""

        failed = 0

        def __getattr__(self, name):
            return getattr(client, name)

        async def set(self, *arguments, **options):
            if not self.failed:
                self.failed += 1
                raise exceptions.ConnectionError
            return await client.set(*arguments, **options)

    async def is_there():
        return await client.get(KEYS.relay_lease(0)) == b"one"

    failing = Failing()
    async with lease(failing, milliseconds=300).kept():
        await eventually(lambda: failing.failed)
        await eventually(is_there)


async def test_a_lease_that_is_lost_meanwhile_is_not_given_back_for_its_new_owner(client):
    mine = lease(client)
    assert await mine.take()
    async with mine.kept():
        await client.set(KEYS.relay_lease(0), "two")
    assert await client.get(KEYS.relay_lease(0)) == b"two"


async def test_the_oldest_pending_event_counts_whichever_partition_it_is_in(client):
    async def oldest():
        second, replies = await pending.since([])
        assert replies == []
        return second

    pending = Pending(client, KEYS)
    assert await oldest() == math.inf
    for partition, sequence, second in ((0, 1, 500), (0, 2, 100), (3, 1, 300)):
        await client.zadd(KEYS.pending(partition), {sequence: second})
    assert await oldest() == 100
    await pending.settle(0, [2])
    assert await oldest() == 300
    await pending.settle(3, [1])
    await pending.settle_to(0, 1)
    assert await oldest() == math.inf


async def test_everything_up_to_a_sequence_is_struck_out_and_nothing_behind_it(client):
    await client.zadd(KEYS.pending(0), {9: 3, 10: 1, 11: 2})
    await client.zadd(KEYS.pending(1), {1: 5})
    await Pending(client, KEYS).settle_to(0, 10)
    assert await client.zrange(KEYS.pending(0), 0, -1) == [b"11"]
    assert await client.zcard(KEYS.pending(1)) == 1
    await Pending(client, KEYS).settle_to(2, 10)  # there was nothing


def script(text):
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


async def test_what_is_pending_is_looked_up_before_what_may_lack_it_is_read(client):
    pending, settling = Pending(client, KEYS), script("return redis.call('DEL', KEYS[1])")
    await pending.since([(settling, [KEYS.pending(1)], [])])  # now Redis knows both scripts
    await client.zadd(KEYS.pending(1), {1: 70})
    assert await pending.since([(settling, [KEYS.pending(1)], [])]) == (70, [1])


@pytest.mark.parametrize("knows_what_reads", [True, False])
async def test_also_where_redis_knows_not_all_scripts_nothing_that_is_read_lacks_what_is_not_pending(
    server, client, knows_what_reads
):
    """Who reads finds an event pending, and right behind that the updater counts it and strikes it out."""
    lacking = script(
        "local lacks = redis.call('EXISTS', KEYS[1]) if lacks == 1 and redis.call('INCR', KEYS[2]) == tonumber(ARGV[1])"
        " then redis.call('DEL', KEYS[1]) end return lacks"
    )
    for struck_out_at in (1, 2, 3):
        await client.delete("{1}reads")
        await client.zadd(KEYS.pending(1), {1: 70})
        await client.script_flush()
        if knows_what_reads:
            await client.script_load(lacking.text)
        second, [lacks] = await Pending(client, KEYS).since([(lacking, [KEYS.pending(1), "{1}reads"], [struck_out_at])])
        too_much = {(70, 0)} if server.cluster else set()  # two servers; nothing orders their answers
        assert (second, lacks) in {(70, 1), (math.inf, 0)} | too_much


async def test_state_of_another_layout_is_refused(client):
    await claim_layout(client, 12)
    await claim_layout(client, 12)
    with pytest.raises(LayoutError, match="fraud rebuild"):
        await claim_layout(client, 4)
    await client.set("layout", "other/12")
    with pytest.raises(LayoutError, match=LAYOUT):
        await claim_layout(client, 12)
