"""The Kafka door: every record gets a decision or its place beside the topic, and nothing else is swallowed."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace

import msgspec
import pytest
from aiokafka import TopicPartition
from logged import NOW, paid

from feature_store.transaction import EARLIEST
from services.decision.decide import ConflictError, ContendedError
from services.metrics import Metrics
from services.resources import oldest_accepted
from services.settings import Settings
from services.worker import MOST_AT_ONCE, TransactionDoor

SENT = int(NOW.timestamp() * 1_000)
ONE, TWO = TopicPartition("transactions", 1), TopicPartition("transactions", 2)


class Decide:
    """Decides, or raises what a test puts into `errors`, once each; notes how many are at it."""

    def __init__(self):
        self.came, self.errors, self.under_way, self.most = [], [], 0, 0
        self.repeated = False

    async def __call__(self, transaction):
        self.came.append(transaction.transaction_id)
        if self.errors:
            raise self.errors.pop(0)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        return SimpleNamespace(repeated=self.repeated)


class DeadLetters:
    def __init__(self):
        self.letters = []

    async def send(self, record, *, cause, field, message):
        self.letters.append((record.offset, cause, field))


@pytest.fixture
def decide():
    return Decide()


@pytest.fixture
def letters():
    return DeadLetters()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def door(decide, letters, metrics):
    return TransactionDoor(decide, letters, metrics, lambda: NOW, lambda now: now - timedelta(days=30))


def records(*values, first=0):
    return [SimpleNamespace(offset=offset, value=value, timestamp=SENT) for offset, value in enumerate(values, first)]


def sent(name="t1", **changes):
    return msgspec.json.encode(paid(name, **changes))


def counted(metrics, outcome):
    return metrics.registry.get_sample_value("fraud_requests_total", {"door": "kafka", "outcome": outcome})


async def test_each_record_is_decided_in_its_order(door, decide, metrics):
    await door({ONE: records(*(sent(f"t{n}") for n in range(5)))})
    assert decide.came == [f"t{n}" for n in range(5)]
    assert counted(metrics, "decided") == 5
    assert metrics.registry.get_sample_value("fraud_stage_seconds_count", {"stage": "total"}) == 5


async def test_so_many_are_decided_side_by_side(door, decide):
    await door({ONE: records(*(sent(f"t{n}") for n in range(MOST_AT_ONCE + 20)))})
    assert (len(decide.came), decide.most) == (MOST_AT_ONCE + 20, MOST_AT_ONCE)


async def test_partitions_do_not_wait_for_each_other(door, decide):
    await door({ONE: records(sent("a")), TWO: records(sent("b"))})
    assert (decide.came, decide.most) == (["a", "b"], 2)


async def test_a_repetition_is_counted_as_one(door, decide, metrics):
    decide.repeated = True
    await door({ONE: records(sent())})
    assert (counted(metrics, "repeated"), counted(metrics, "decided")) == (1, 0)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (None, "body"),
        (b"", "body"),
        (b"{", "body"),
        (sent(amount=-1), "amount"),
        (sent(currency="KWD"), "currency"),
        (sent(event_time=NOW + timedelta(hours=1)), "event_time"),
        (sent(event_time=NOW - timedelta(days=30, seconds=1)), "event_time"),
        (sent("4111111111111111"), "transaction_id"),
    ],
)
async def test_a_bad_record_is_set_aside_and_the_others_decided(door, decide, letters, metrics, value, field):
    await door({ONE: records(sent("before"), value, sent("after"), first=7)})
    assert letters.letters == [(8, "invalid", field)]
    assert decide.came == ["before", "after"]
    assert (counted(metrics, "invalid"), counted(metrics, "decided")) == (1, 2)


async def test_an_id_with_another_body_is_set_aside(door, decide, letters, metrics):
    decide.errors = [ConflictError("decided with another body")]
    await door({ONE: records(sent())})
    assert letters.letters == [(0, "conflict", "transaction_id")]
    assert counted(metrics, "conflict") == 1


async def test_on_a_contended_card_it_is_tried_until_it_is_decided(door, decide, letters, metrics):
    decide.errors = [ContendedError()] * 3
    await door({ONE: records(sent())})
    assert decide.came == ["t1"] * 4
    assert (counted(metrics, "contended"), counted(metrics, "decided"), letters.letters) == (3, 1, [])


async def test_any_other_error_ends_the_worker_and_sets_nothing_aside(door, decide, letters):
    decide.errors = [TimeoutError()]
    with pytest.raises(ExceptionGroup) as raised:
        await door({ONE: records(sent())})
    assert raised.group_contains(TimeoutError)
    assert letters.letters == []


@pytest.mark.parametrize(("hours", "causes"), [(23, []), (25, [(0, "invalid", "event_time")])])
async def test_a_record_is_as_old_as_it_was_when_it_was_sent(decide, letters, metrics, hours, causes):
    """What was decided once is not set aside when it comes again a week later."""
    a_week_later = NOW + timedelta(days=7)
    door = TransactionDoor(decide, letters, metrics, lambda: a_week_later, lambda now: now - timedelta(days=1))
    await door({ONE: records(sent(event_time=NOW - timedelta(hours=hours)))})
    assert letters.letters == causes


def test_doors_refuse_what_is_older_than_the_setting_or_nothing():
    assert oldest_accepted(Settings(), NOW) == EARLIEST
    assert oldest_accepted(Settings(oldest_event_days=1.5), NOW) == NOW - timedelta(hours=36)
