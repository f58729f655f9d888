import asyncio

import pytest

from feature_store.gate import Gate
from feature_store.outbox import Entry
from feature_store.scripts import ClosedError
from services.decision.record import placed
from services.metrics import Metrics
from services.relay import Relay

RECORD = b'{"transaction":{"card_id":"c1"},"note":1}'
GATE = Gate("0 17@abc")


class Outbox:
    """Partition 0 only; notes what happens to it."""

    def __init__(self, *sequences):
        self.entries = [Entry(sequence, RECORD) for sequence in sequences]
        self.events = []
        self.closed = False

    def look(self):
        if self.closed:
            raise ClosedError

    async def read(self, partition, most):
        assert partition == 0
        self.look()
        return self.entries[:most]

    async def wait(self, _partition, milliseconds):
        await asyncio.sleep(milliseconds / 1_000)

    async def trim(self, _partition, published):
        self.look()
        self.events.append(("trim", published))
        self.entries = [entry for entry in self.entries if entry.sequence > published]

    async def lengths(self):
        return [len(self.entries)]


class Lease:
    def __init__(self, outbox, *, free=True):
        self.outbox = outbox
        self.free = free

    async def take(self):
        return self.free

    async def release(self):
        self.outbox.events.append("released")


class Batch:
    def __init__(self, room):
        self.room = room
        self.values = []

    def append(self, *, key, value, timestamp):
        assert (key, timestamp) == (b"c1", None)
        if len(self.values) == self.room:
            return None
        self.values.append(value)
        return object()

    def record_count(self):
        return len(self.values)

    def close(self):
        pass


class Producer:
    def __init__(self, outbox, room=100, *, fail=False, meanwhile=lambda: None):
        self.outbox, self.room, self.fail, self.meanwhile = outbox, room, fail, meanwhile

    def create_batch(self):
        return Batch(self.room)

    async def send_batch(self, batch, topic, *, partition):
        async def acknowledged():
            await asyncio.sleep(0)
            if self.fail:
                raise TimeoutError
            self.meanwhile()
            self.outbox.events.append(("acknowledged", batch.values))

        assert (topic, partition) == ("decisions", 0)
        return asyncio.ensure_future(acknowledged())


def relay(outbox, *, lease=None, **options):
    metrics = Metrics()
    return Relay(outbox, [GATE], [lease or Lease(outbox)], Producer(outbox, **options), metrics), metrics


async def published(outbox, eventually, **options):
    made, metrics = relay(outbox, **options)
    stop = asyncio.Event()
    running = asyncio.create_task(made.run(stop))
    await eventually(lambda: not outbox.entries)
    stop.set()
    await running
    return metrics


async def test_records_are_trimmed_when_they_are_acknowledged_and_not_before(eventually):
    outbox = Outbox(4, 5)
    metrics = await published(outbox, eventually)
    assert outbox.events == [
        ("acknowledged", [placed(RECORD, 17, 0, 4), placed(RECORD, 17, 0, 5)]),
        ("trim", 5),
        "released",
    ]
    assert metrics.registry.get_sample_value("fraud_published_total") == 2


async def test_what_does_not_fit_into_a_batch_follows_in_the_next_one_in_order(eventually):
    outbox = Outbox(1, 2, 3)
    await published(outbox, eventually, room=2)
    assert [event for event in outbox.events if event[0] == "trim"] == [("trim", 2), ("trim", 3)]


async def test_a_batch_that_is_not_acknowledged_ends_the_relay_and_stays_in_the_outbox():
    outbox = Outbox(1, 2)
    made, _ = relay(outbox, fail=True)
    with pytest.raises(ExceptionGroup):
        await made.run(asyncio.Event())
    assert outbox.events == []
    assert len(outbox.entries) == 2


async def test_a_gate_that_closes_while_a_batch_is_on_its_way_ends_the_relay_and_the_batch_stays_in_the_outbox():
    def close():
        outbox.closed = True

    outbox = Outbox(1, 2)
    made, metrics = relay(outbox, meanwhile=close)
    with pytest.raises(ExceptionGroup) as raised:
        await made.run(asyncio.Event())
    assert raised.value.subgroup(ClosedError)
    assert [entry.sequence for entry in outbox.entries] == [1, 2]
    assert metrics.registry.get_sample_value("fraud_published_total") == 0


async def test_behind_a_gate_that_is_closed_nothing_is_published():
    outbox = Outbox(1)
    outbox.closed = True
    made, _ = relay(outbox)
    with pytest.raises(ExceptionGroup) as raised:
        await made.run(asyncio.Event())
    assert raised.value.subgroup(ClosedError)
    assert outbox.events == []


class Deaf(Outbox):
    """Loses a CancelledError, as `asyncio.wait_for` may."""

    lost = 0

    async def wait(self, _partition, milliseconds):
        try:
            await asyncio.sleep(milliseconds / 1_000)
        except asyncio.CancelledError:
            self.lost += 1
            if self.lost > 1:
                raise

    async def lengths(self):
        raise ConnectionError


async def test_an_error_ends_the_relay_also_where_a_publisher_never_hears_that_it_was_cancelled():
    outbox = Deaf()
    made, _ = relay(outbox)
    running = asyncio.create_task(made.run(asyncio.Event()))
    done, _ = await asyncio.wait({running}, timeout=5)
    assert (done, outbox.lost) == ({running}, 1)
    with pytest.raises(ExceptionGroup) as raised:
        await running
    assert raised.group_contains(ConnectionError)


async def test_without_the_lease_nothing_is_published(eventually):
    outbox = Outbox(1)
    made, metrics = relay(outbox, lease=Lease(outbox, free=False))
    stop = asyncio.Event()
    running = asyncio.create_task(made.run(stop))
    await eventually(lambda: metrics.registry.get_sample_value("fraud_outbox_length") == 1)
    stop.set()
    await running
    assert outbox.events == ["released"]


def test_a_record_gets_its_epoch_and_its_place_in_front():
    assert placed(RECORD, 17, 3, 9) == (
        b'{"epoch":17,"partition":3,"sequence":9,"transaction":{"card_id":"c1"},"note":1}'
    )
