"""The outbox, the leases and the layout where they are kept."""

import pytest
from redis import exceptions

from feature_store.features import SHIPPED
from feature_store.keys import Keys
from feature_store.layout import LayoutError, claim_layout, give_layout
from feature_store.lease import Lease
from feature_store.outbox import Entry, Outbox
from feature_store.scripts import ClosedError

KEYS = Keys(4)


@pytest.fixture
async def outbox(client, opened):
    return Outbox(client, KEYS, await opened(client, KEYS))


def lease(client, owner="one", partition=0, milliseconds=60_000):
    return Lease(client, KEYS.relay_lease(partition), owner=owner, milliseconds=milliseconds)


async def put(client, partition, *sequences):
    for sequence in sequences:
        await client.xadd(KEYS.outbox(partition), {"record": f"r{sequence}"}, id=f"{sequence}-0")


async def test_records_come_oldest_first_until_trimmed(client, outbox):
    await put(client, 1, 1, 2, 3)
    assert await outbox.read([1], 2) == {1: [Entry(1, b"r1"), Entry(2, b"r2")]}
    assert (await outbox.read([1], 9))[1][0].sequence == 1
    assert await outbox.read([2], 9) == await outbox.read([], 9) == {}
    assert await outbox.lengths(range(4)) == {0: 0, 1: 3, 2: 0, 3: 0}


async def test_all_partitions_are_read_and_trimmed_at_once(client, outbox):
    for partition in (3, 0, 2):
        await put(client, partition, *range(1, partition + 3))
    found = await outbox.read([0, 1, 2, 3], 3)
    assert {partition: [entry.sequence for entry in found[partition]] for partition in found} == {
        0: [1, 2], 2: [1, 2, 3], 3: [1, 2, 3]
    }  # fmt: skip
    await outbox.trim({partition: entries[-1].sequence for partition, entries in found.items()})
    assert await outbox.lengths([3, 2, 0]) == {3: 2, 2: 1, 0: 0}
    await outbox.trim({})


async def test_an_overtaken_relay_trims_nothing_new(client, outbox):
    await put(client, 0, 1, 2, 3, 4)
    await outbox.trim({0: 3})
    await outbox.trim({0: 2})
    assert [entry.sequence for entry in (await outbox.read([0], 9))[0]] == [4]


async def test_a_check_finds_any_gate_that_moved(client, outbox):
    await put(client, 0, 1)
    await outbox.check()
    await client.delete(KEYS.gate(2))
    with pytest.raises(ClosedError):
        await outbox.check()


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


async def test_a_kept_lease_is_extended_and_then_given_back(client, eventually):
    async def extended():
        return await client.pttl(KEYS.relay_lease(0)) > 500

    mine = lease(client, milliseconds=1_000)
    assert await mine.take()
    async with mine.kept():
        await client.pexpire(KEYS.relay_lease(0), 500)
        await eventually(extended, 2)
        assert not await lease(client, "two").take()
    assert await lease(client, "two").take()


async def test_a_kept_lease_outlives_an_unanswered_call(client, eventually):
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


async def test_a_lost_lease_is_left_to_its_new_owner(client):
    mine = lease(client)
    assert await mine.take()
    async with mine.kept():
        await client.set(KEYS.relay_lease(0), "two")
    assert await client.get(KEYS.relay_lease(0)) == b"two"


async def test_state_of_another_layout_is_refused(client):
    await claim_layout(client, SHIPPED, 12)
    await claim_layout(client, SHIPPED, 12)
    with pytest.raises(LayoutError, match="fraud rebuild"):
        await claim_layout(client, SHIPPED, 4)
    await client.set("layout", "other/12")
    with pytest.raises(LayoutError, match=f"{SHIPPED.layout.hex()}/12"):
        await claim_layout(client, SHIPPED, 12)
    assert await client.get("layout") == b"other/12"


async def test_state_made_anew_has_the_layout_of_its_maker(client):
    await client.set("layout", "other/12")
    await give_layout(client, SHIPPED, 12)
    await claim_layout(client, SHIPPED, 12)
