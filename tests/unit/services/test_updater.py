from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition

from feature_store.keys import Keys
from feature_store.memory import MemoryStore
from feature_store.transaction import Transaction
from services.decision.record import Answer, Record, placed, unplaced
from services.metrics import Metrics
from services.topics import DECISIONS
from services.updater import DecisionsToMerchants

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
PARTITION = TopicPartition(DECISIONS, 5)


class Pending:
    def __init__(self, *sequences):
        self.open = set(sequences)

    async def settle(self, _partition, sequences):
        self.open -= set(sequences)

    async def settle_before(self, _partition, sequence):
        gone = [other for other in self.open if other < sequence]
        self.open -= set(gone)
        return gone


class DeadLetters:
    def __init__(self):
        self.fields = []

    async def send(self, _record, *, cause, field, message):
        self.fields.append((cause, field, message))


def decision(sequence):
    transaction = Transaction(
        transaction_id=f"t{sequence}", card_id="c", merchant_id="m", amount=5, currency="EUR", event_time=NOW
    )
    answer = Answer(
        transaction_id="t", action="approve", score=0.1, reasons=(), model="m", policy="p",
        features_version="f", degraded=(), stage_ms={},
    )  # fmt: skip
    record = Record(
        partition=0, sequence=0, decided_at=NOW, transaction=transaction,
        features=(), predecessors=0, counted={}, answer=answer,
    )  # fmt: skip
    return placed(unplaced(record), PARTITION.partition, sequence)


def records(first_offset, *sequences):
    return [SimpleNamespace(offset=first_offset + n, value=decision(s)) for n, s in enumerate(sequences)]


@pytest.fixture
def pending():
    return Pending(*range(1, 20))


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def updater(pending, metrics):
    return DecisionsToMerchants(MemoryStore(Keys(12)), pending, DeadLetters(), metrics)


def gaps(metrics):
    return metrics.registry.get_sample_value("fraud_sequence_gaps_total")


def repeats(metrics):
    return metrics.registry.get_sample_value("fraud_repeats_total", {"what": "count"})


async def test_what_was_counted_is_no_longer_pending(updater, pending, metrics):
    await updater(PARTITION, records(0, 1, 2, 3))
    await updater(PARTITION, records(3, 4))
    assert pending.open == set(range(5, 20))
    assert gaps(metrics) == 0


async def test_records_that_come_again_are_repetitions_and_no_gap(updater, metrics):
    await updater(PARTITION, records(0, 1, 2, 3))
    await updater(PARTITION, records(3, 2, 3, 4))  # a relay published again after a crash
    await updater(PARTITION, records(1, 2, 3, 4))  # offsets were not committed before a rebalance
    assert (repeats(metrics), gaps(metrics)) == (5, 0)


async def test_a_sequence_that_never_came_is_counted_and_not_waited_for(updater, pending, metrics):
    await updater(PARTITION, records(0, 1, 2))
    await updater(PARTITION, records(2, 5))
    assert gaps(metrics) == 2
    assert pending.open == set(range(6, 20))


async def test_what_the_log_will_not_bring_any_more_is_counted_and_not_waited_for(updater, pending, metrics):
    await updater(PARTITION, records(100, 7))
    assert pending.open == set(range(8, 20))
    assert gaps(metrics) == 6


async def test_a_partition_that_was_elsewhere_meanwhile_has_no_gap(updater, pending, metrics):
    await updater(PARTITION, records(0, 1))
    pending.open -= {2, 3, 4}  # another member counted these
    await updater(PARTITION, records(4, 5))
    assert gaps(metrics) == 0


async def test_a_record_that_is_no_decision_is_set_aside_and_the_others_are_counted(pending, metrics):
    letters = DeadLetters()
    updater = DecisionsToMerchants(MemoryStore(Keys(12)), pending, letters, metrics)
    bad = SimpleNamespace(offset=1, value=b'{"partition": 5}')
    await updater(PARTITION, [*records(0, 1), bad, *records(2, 2)])
    assert letters.fields == [("invalid", "body", "is not a decision record")]
    assert pending.open == set(range(3, 20))
    assert gaps(metrics) == 0
