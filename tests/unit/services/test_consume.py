"""The consumer loop: what was fetched goes to the handler whole, and offsets are committed after, now and then."""

import asyncio
import math
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError

from services import consume as module
from services.consume import consume
from services.metrics import Metrics

ONE, TWO = TopicPartition("decisions", 0), TopicPartition("labels", 1)


def records(*offsets):
    return [SimpleNamespace(offset=offset) for offset in offsets]


class Consumer:
    """Hands over one batch after another, then tells the loop to stop; notes what is asked of it."""

    def __init__(self, *batches):
        self.batches = list(batches)
        self.stop = asyncio.Event()
        self.ours = {ONE, TWO}
        self.events = []
        self.timeouts = []
        self.error = None

    async def getmany(self, *, timeout_ms, max_records):
        assert max_records == 2_000
        self.timeouts.append(timeout_ms)
        batch = self.batches.pop(0)
        if not self.batches:
            self.stop.set()
        return batch

    async def commit(self, offsets):
        if self.error:
            raise self.error
        self.events.append(("commit", offsets))

    def assignment(self):
        return self.ours

    def highwater(self, partition):
        return 10 if partition == ONE else None


async def consumed(consumer, *, handle=None, ready=lambda _: True):
    metrics = Metrics()

    async def note(batches):
        consumer.events.append({each: [record.offset for record in several] for each, several in batches.items()})

    await consume(consumer, handle or note, consumer.stop, metrics, ready)
    return metrics


def commits(consumer):
    return [event[1] for event in consumer.events if isinstance(event, tuple)]


def lag(metrics, partition):
    labels = {"topic": partition.topic, "partition": str(partition.partition)}
    return metrics.registry.get_sample_value("fraud_consumer_lag_records", labels)


async def test_all_that_was_fetched_is_handed_over_at_once():
    consumer = Consumer({ONE: records(4, 5), TWO: records(9)})
    await consumed(consumer)
    assert consumer.events == [{ONE: [4, 5], TWO: [9]}, ("commit", {ONE: 6, TWO: 10})]


async def test_while_records_come_offsets_are_not_committed(monkeypatch):
    monkeypatch.setattr(module, "COMMIT_EVERY_SECONDS", math.inf)
    consumer = Consumer({ONE: records(4)}, {ONE: records(5), TWO: records(1)}, {ONE: records(6)})
    await consumed(consumer)
    assert commits(consumer) == [{ONE: 7, TWO: 2}]


async def test_offsets_are_committed_after_a_while(monkeypatch):
    monkeypatch.setattr(module, "COMMIT_EVERY_SECONDS", -1)
    consumer = Consumer({ONE: records(4)}, {ONE: records(5)})
    await consumed(consumer)
    assert commits(consumer) == [{ONE: 5}, {ONE: 6}]


async def test_offsets_are_committed_when_nothing_comes(monkeypatch):
    monkeypatch.setattr(module, "COMMIT_EVERY_SECONDS", math.inf)
    consumer = Consumer({ONE: records(4)}, {}, {}, {ONE: records(5)})
    await consumed(consumer)
    assert consumer.events == [{ONE: [4]}, ("commit", {ONE: 5}), {ONE: [5]}, ("commit", {ONE: 6})]


async def test_it_waits_less_for_records_while_offsets_wait():
    consumer = Consumer({}, {ONE: records(4)}, {}, {})
    await consumed(consumer)
    assert consumer.timeouts == [200, 200, 20, 200]


async def test_a_partition_whose_place_is_not_known_is_not_handled():
    consumer = Consumer({ONE: records(4), TWO: records(900)})
    metrics = await consumed(consumer, ready=lambda partition: partition == ONE)
    assert consumer.events == [{ONE: [4]}, ("commit", {ONE: 5})]
    assert lag(metrics, TWO) is None


async def test_what_keeps_a_place_from_being_known_ends_the_loop():
    def unknown(_):
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await consumed(Consumer({ONE: records(4)}), ready=unknown)


async def test_what_failed_is_not_committed():
    async def fail(_):
        raise RuntimeError("a bug")

    consumer = Consumer({ONE: records(4)})
    with pytest.raises(RuntimeError, match="a bug"):
        await consumed(consumer, handle=fail)
    assert consumer.events == []


async def test_a_partition_that_went_elsewhere_is_not_committed():
    consumer = Consumer({ONE: records(4), TWO: records(9)})

    async def revoke(_):
        consumer.ours = {TWO}

    metrics = await consumed(consumer, handle=revoke)
    assert commits(consumer) == [{TWO: 10}]
    assert (lag(metrics, ONE), lag(metrics, TWO)) == (None, 0)


async def test_where_all_went_elsewhere_nothing_is_committed():
    consumer = Consumer({ONE: records(4)})

    async def revoke(_):
        consumer.ours = set()

    await consumed(consumer, handle=revoke)
    assert commits(consumer) == []


async def test_a_commit_that_a_rebalance_refuses_is_no_error():
    consumer = Consumer({ONE: records(4)}, {}, {ONE: records(5)})
    consumer.error = CommitFailedError()
    await consumed(consumer)
    assert consumer.events == [{ONE: [4]}, {ONE: [5]}]


async def test_a_broker_that_takes_no_offsets_ends_the_loop(monkeypatch):
    monkeypatch.setattr(module, "COMMIT_SECONDS", 0.01)
    consumer = Consumer({ONE: records(4)})

    async def hang(_):
        await asyncio.Event().wait()

    consumer.commit = hang
    with pytest.raises(TimeoutError):
        await consumed(consumer)


async def test_the_lag_is_shown_of_every_partition_that_is_ours():
    consumer = Consumer({ONE: records(4)}, {TWO: records(9)})
    metrics = await consumed(consumer)
    assert (lag(metrics, ONE), lag(metrics, TWO)) == (5, 0)


async def test_the_lag_of_a_partition_that_went_elsewhere_is_gone():
    consumer = Consumer({ONE: records(4)}, {TWO: records(9)})

    async def revoke(batches):
        consumer.ours = {TWO} if TWO in batches else {ONE, TWO}

    metrics = await consumed(consumer, handle=revoke)
    assert (lag(metrics, ONE), lag(metrics, TWO)) == (None, 0)


async def test_nothing_is_fetched_after_the_stop():
    consumer = Consumer({ONE: records(4)})
    consumer.stop.set()
    await consumed(consumer)
    assert (consumer.timeouts, consumer.events) == ([], [])
