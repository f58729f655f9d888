"""The relay: trimmed when acknowledged and not before, in sequence order, only behind gates that stand open."""

import asyncio

import pytest
from logged import decided, paid

from feature_store.gate import Gate
from feature_store.outbox import Entry
from feature_store.scripts import ClosedError
from services import relay as module
from services.decision.record import placed
from services.metrics import Metrics
from services.relay import MOST_RECORDS, Relay, publish

GATES = [Gate("0 17@abc"), Gate("3@abc")]
RECORD = decided(paid())


class Outbox:
    """Two partitions; notes what happens to them."""

    def __init__(self, *of_0, of_1=()):
        self.entries = {
            partition: [Entry(sequence, RECORD) for sequence in sequences]
            for partition, sequences in enumerate((of_0, of_1))
        }
        self.events = []
        self.closed = False
        self.counts = 0

    def _look(self):
        if self.closed:
            raise ClosedError

    async def read(self, partitions, most):
        self._look()
        return {each: self.entries[each][:most] for each in partitions if self.entries[each]}

    async def trim(self, published):
        self._look()
        self.events.append(("trim", published))
        for partition, sequence in published.items():
            self.entries[partition] = [each for each in self.entries[partition] if each.sequence > sequence]

    async def lengths(self, partitions):
        self.counts += 1
        return {each: len(self.entries[each]) for each in partitions}

    async def check(self):
        self._look()

    @property
    def empty(self):
        return not any(self.entries.values())


class Lease:
    def __init__(self, outbox, *, free=True):
        self.outbox, self.free, self.taken = outbox, free, 0

    async def take(self):
        self.taken += 1
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

    def close(self):
        self.closed = True


class Producer:
    """Acknowledges each batch a little later, in `events` of the outbox."""

    def __init__(self, outbox, room=1_000, *, fail=False, meanwhile=lambda: None):
        self.outbox, self.room, self.fail, self.meanwhile = outbox, room, fail, meanwhile

    def create_batch(self):
        return Batch(self.room)

    async def send_batch(self, batch, topic, *, partition):
        assert (topic, batch.closed) == ("decisions", True)

        async def acknowledged():
            await asyncio.sleep(0)
            if self.fail:
                raise TimeoutError
            self.meanwhile()
            self.outbox.events.append((partition, batch.values))

        return asyncio.ensure_future(acknowledged())


@pytest.fixture(autouse=True)
def looking_often(monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.001)


def relay(outbox, *, free=True, **options):
    metrics = Metrics()
    leases = [Lease(outbox, free=free) for _ in GATES]
    return Relay(outbox, GATES, leases, Producer(outbox, **options), metrics), metrics


async def published(outbox, eventually, **options):
    made, metrics = relay(outbox, **options)
    stop = asyncio.Event()
    running = asyncio.create_task(made.run(stop))
    await eventually(lambda: outbox.empty)
    stop.set()
    await running
    return metrics


def value(metrics, name):
    return metrics.registry.get_sample_value(f"fraud_{name}")


# --- one request


async def test_records_are_trimmed_when_acknowledged_and_not_before():
    outbox = Outbox(4, 5)
    made, metrics = relay(outbox)
    assert await made.publish_once([0, 1]) == 2
    assert outbox.events == [(0, [placed(RECORD, 17, 0, 4), placed(RECORD, 17, 0, 5)]), ("trim", {0: 5})]
    assert value(metrics, "published_total") == 2


async def test_all_partitions_go_out_together_each_with_its_epoch():
    outbox = Outbox(4, of_1=[8])
    made, _ = relay(outbox)
    assert await made.publish_once([0, 1]) == 2
    assert outbox.events == [
        (0, [placed(RECORD, 17, 0, 4)]),
        (1, [placed(RECORD, 3, 1, 8)]),
        ("trim", {0: 4, 1: 8}),
    ]


async def test_what_does_not_fit_into_a_batch_follows_in_the_next():
    outbox = Outbox(1, 2, 3)
    made, metrics = relay(outbox, room=2)
    assert [await made.publish_once([0, 1]) for _ in range(3)] == [2, 1, 0]
    assert [event for event in outbox.events if event[0] == "trim"] == [("trim", {0: 2}), ("trim", {0: 3})]
    assert value(metrics, "published_total") == 3


async def test_no_more_than_so_many_are_taken_of_a_partition():
    outbox = Outbox(*range(1, MOST_RECORDS + 3))
    made, _ = relay(outbox)
    assert [await made.publish_once([0]) for _ in range(2)] == [MOST_RECORDS, 2]


@pytest.mark.parametrize("partitions", [(), (1,)])
async def test_where_nothing_waits_nothing_is_sent(partitions):
    outbox = Outbox(1)
    made, _ = relay(outbox)
    assert await made.publish_once(partitions) == 0
    assert outbox.events == []


async def test_records_that_still_come_are_waited_for():
    outbox = Outbox(1)
    count = outbox.lengths

    async def lengths(partitions):
        found = await count(partitions)
        if outbox.counts < 4:
            outbox.entries[0].append(Entry(1 + outbox.counts, RECORD))
        return found

    outbox.lengths = lengths
    made, _ = relay(outbox)
    assert await made.publish_once([0]) == 4
    assert outbox.counts == 5  # until a look found as many as the one before it


async def test_records_that_come_all_the_time_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(module, "COLLECT_SECONDS", 0)
    outbox = Outbox(1)
    count = outbox.lengths

    async def lengths(partitions):
        outbox.entries[0].append(Entry(2 + outbox.counts, RECORD))
        return await count(partitions)

    outbox.lengths = lengths
    made, _ = relay(outbox)
    assert await made.publish_once([0]) >= 2
    assert outbox.counts <= 2


async def test_what_a_broker_did_not_acknowledge_stays():
    outbox = Outbox(1, 2)
    made, metrics = relay(outbox, fail=True)
    with pytest.raises(TimeoutError):
        await made.publish_once([0])
    assert outbox.events == []
    assert len(outbox.entries[0]) == 2
    assert value(metrics, "published_total") == 0


async def test_publish_says_what_was_sent_of_each_partition():
    outbox = Outbox()
    entries = {0: [Entry(1, RECORD), Entry(2, RECORD), Entry(3, RECORD)], 1: [Entry(9, RECORD)]}
    assert await publish(Producer(outbox, room=2), {0: 17, 1: 3}, entries) == {0: 2, 1: 9}


# --- the loop


async def test_it_publishes_until_the_stop_and_gives_up_its_leases(eventually):
    outbox = Outbox(4, 5, of_1=[1])
    metrics = await published(outbox, eventually)
    assert outbox.events[-2:] == ["released", "released"]
    assert value(metrics, "published_total") == 3


async def test_a_batch_not_acknowledged_ends_the_relay():
    outbox = Outbox(1, 2)
    made, _ = relay(outbox, fail=True)
    with pytest.raises(TimeoutError):
        await made.run(asyncio.Event())
    assert outbox.events == []


async def test_a_gate_that_closes_meanwhile_ends_the_relay():
    def close():
        outbox.closed = True

    outbox = Outbox(1, 2)
    made, metrics = relay(outbox, meanwhile=close)
    with pytest.raises(ClosedError):
        await made.run(asyncio.Event())
    assert [entry.sequence for entry in outbox.entries[0]] == [1, 2]
    assert value(metrics, "published_total") == 0


async def test_behind_a_closed_gate_nothing_is_published():
    outbox = Outbox(1)
    outbox.closed = True
    made, _ = relay(outbox)
    with pytest.raises(ClosedError):
        await made.run(asyncio.Event())
    assert outbox.events == []


async def test_gates_are_looked_at_while_nothing_waits(monkeypatch):
    monkeypatch.setattr(module, "CHECK_SECONDS", 0)
    outbox = Outbox()
    made, _ = relay(outbox)
    running = asyncio.create_task(made.run(asyncio.Event()))
    await asyncio.sleep(0)
    outbox.closed = True
    with pytest.raises(ClosedError):
        await asyncio.wait_for(running, 5)


async def test_without_the_lease_nothing_is_published(eventually):
    outbox = Outbox(1, of_1=[7])
    made, metrics = relay(outbox, free=False)
    stop = asyncio.Event()
    running = asyncio.create_task(made.run(stop))
    await eventually(lambda: value(metrics, "outbox_length") == 2)
    stop.set()
    await running
    assert outbox.events == []


async def test_leases_are_taken_again_and_again(eventually, monkeypatch):
    monkeypatch.setattr(module, "LEASE_MILLISECONDS", 0)
    outbox = Outbox()
    made, _ = relay(outbox, free=False)
    stop = asyncio.Event()
    running = asyncio.create_task(made.run(stop))
    await eventually(lambda: made._leases[0].taken > 2)
    made._leases[0].free = True
    outbox.entries[0].append(Entry(1, RECORD))
    await eventually(lambda: not outbox.entries[0])
    stop.set()
    await running


async def test_it_ends_also_where_its_cancellation_got_lost():
    """Before Python 3.12 `asyncio.wait_for` can lose a CancelledError."""

    class Deaf(Outbox):
        lost = 0

        async def lengths(self, partitions):
            reached.set()
            if not self.lost:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.lost += 1
            return dict.fromkeys(partitions, 0)

    outbox, reached = Deaf(), asyncio.Event()
    made, _ = relay(outbox)
    running = asyncio.create_task(made.run(asyncio.Event()))
    await reached.wait()
    running.cancel()
    await asyncio.wait({running}, timeout=5)
    assert (running.done(), outbox.lost) == (True, 1)
