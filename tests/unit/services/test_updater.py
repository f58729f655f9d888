from datetime import UTC, datetime
from types import SimpleNamespace

import msgspec
import pytest
from aiokafka import TopicPartition

from feature_store.gate import Gate
from feature_store.held import Held
from feature_store.keys import Keys
from feature_store.memory import MemoryStore
from feature_store.progress import Reached
from feature_store.transaction import Label, Transaction
from services.decision.record import Answer, Record, placed, unplaced
from services.following import Following, SkippedError
from services.log import FOLLOWS
from services.metrics import Metrics
from services.topics import DECISIONS, LABELS
from services.updater import DecisionsToMerchants, LabelsToEntities

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
PARTITION = TopicPartition(DECISIONS, 5)
LABEL_PARTITION = TopicPartition(LABELS, 5)
GATES = [Gate("0@abc")] * 12


class Pending:
    def __init__(self, *sequences):
        self.open = set(sequences)

    async def settle(self, _partition, sequences):
        self.open -= set(sequences)


class DeadLetters:
    def __init__(self):
        self.fields = []

    async def send(self, _record, *, cause, field, message):
        self.fields.append((cause, field, message))


class Consumer:
    """Its topics begin at `oldest`."""

    def __init__(self):
        self.oldest = 0

    async def beginning_offsets(self, partitions):
        return dict.fromkeys(partitions, self.oldest)

    def seek(self, partition, offset):
        pass


class Progress:
    """State has been given the record that began the first epoch, at offset 0, and no label."""

    def __init__(self):
        self.places = {DECISIONS: Reached(1)}

    async def reached(self, topic, _partition):
        return self.places.get(topic, Reached(0))

    async def note(self, topic, _partition, reached):
        self.places[topic] = reached


def transaction(number):
    return Transaction(
        transaction_id=f"t{number}", card_id="c", merchant_id="m", amount=5, currency="EUR", event_time=NOW
    )


def decision(sequence, epoch=0, number=None):
    answer = Answer(
        transaction_id="t", action="approve", score=0.1, reasons=(), model="m", policy="p",
        features_version="f", degraded=(), stage_ms={},
    )  # fmt: skip
    record = Record(
        epoch=0, partition=0, sequence=0, decided_at=NOW, transaction=transaction(number or sequence), features=(),
        held=Held(card_decisions=0, card_labels={}, merchant_decisions={}, merchant_labels={}),
        counted={}, answer=answer,
    )  # fmt: skip
    return placed(unplaced(record), epoch, PARTITION.partition, sequence)


def at_offsets(first_offset, *values):
    """Records; an empty one follows the first epoch."""
    return [
        SimpleNamespace(
            offset=first_offset + n,
            partition=5,
            timestamp=NOW.timestamp() * 1_000,
            value=value,
            headers=() if value else ((FOLLOWS, b"0"),),
        )
        for n, value in enumerate(values)
    ]


def records(first_offset, *sequences):
    return at_offsets(first_offset, *map(decision, sequences))


@pytest.fixture
def store():
    return MemoryStore(Keys(12))


@pytest.fixture
def pending():
    return Pending(*range(1, 20))


@pytest.fixture
def letters():
    return DeadLetters()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def consumer():
    return Consumer()


@pytest.fixture
def progress():
    return Progress()


@pytest.fixture
def following(consumer, progress):
    return Following(consumer, progress, GATES)


@pytest.fixture
async def updater(store, pending, following, letters, metrics):
    await following.on_partitions_assigned([PARTITION])
    return DecisionsToMerchants(store, pending, following, letters, metrics)


@pytest.fixture
async def labels(store, following, letters, metrics):
    await following.on_partitions_assigned([LABEL_PARTITION])
    return LabelsToEntities(store, following, letters, metrics)


def gaps(metrics):
    return metrics.registry.get_sample_value("fraud_sequence_gaps_total")


def repeats(metrics):
    return metrics.registry.get_sample_value("fraud_repeats_total", {"what": "count"})


def applied(metrics, outcome="applied"):
    return metrics.registry.get_sample_value("fraud_labels_total", {"outcome": outcome})


async def held_of(store):
    seen = await store.read(transaction(99))
    return seen.held


async def test_what_was_counted_is_no_longer_pending(updater, pending, metrics):
    await updater(PARTITION, records(1, 1, 2, 3))
    await updater(PARTITION, records(4, 4))
    assert pending.open == set(range(5, 20))
    assert gaps(metrics) == 0


async def test_records_that_come_again_are_repetitions_and_no_gap(updater, metrics):
    await updater(PARTITION, records(1, 1, 2, 3))
    await updater(PARTITION, records(4, 2, 3, 4))  # a relay published again after a crash
    await updater(PARTITION, records(2, 2, 3, 4))  # offsets were not committed before a rebalance
    assert (repeats(metrics), gaps(metrics)) == (5, 0)


async def test_a_sequence_that_never_came_is_counted_and_not_waited_for(updater, pending, metrics):
    await updater(PARTITION, records(1, 1, 2))
    await updater(PARTITION, records(3, 5))
    assert gaps(metrics) == 2
    assert pending.open == set(range(6, 20))


async def test_what_the_log_will_not_bring_any_more_is_counted_and_not_waited_for(
    updater, following, consumer, pending, metrics
):
    consumer.oldest = 100
    await following.on_partitions_assigned([PARTITION])
    await updater(PARTITION, records(100, 7))
    assert pending.open == set(range(8, 20))
    assert gaps(metrics) == 6


async def test_a_partition_that_was_elsewhere_meanwhile_has_no_gap(updater, following, progress, pending, metrics):
    await updater(PARTITION, records(1, 1))
    pending.open -= {2, 3, 4}  # another member counted these
    progress.places[DECISIONS] = Reached(5, 4)
    await following.on_partitions_assigned([PARTITION])
    await updater(PARTITION, records(5, 5))
    assert gaps(metrics) == 0


async def test_a_record_that_is_no_decision_is_set_aside_and_the_others_are_counted(updater, letters, pending, metrics):
    await updater(PARTITION, at_offsets(1, decision(1), b'{"partition": 5}', b"\xff", decision(2)))
    assert letters.fields == [("invalid", "body", "is not a decision record")] * 2
    assert pending.open == set(range(3, 20))
    assert gaps(metrics) == 0


async def test_what_a_relay_of_an_earlier_epoch_publishes_late_is_not_counted(updater, store, pending, metrics):
    late, real = decision(3, number=33), decision(3, epoch=3)
    await updater(PARTITION, at_offsets(1, decision(1), decision(2), b"", late))
    assert pending.open == set(range(3, 20))
    assert (await held_of(store)).merchant_decisions == {5: 2}
    await updater(PARTITION, at_offsets(5, real))
    assert pending.open == set(range(4, 20))
    assert (await held_of(store)).merchant_decisions == {5: 3}
    assert (repeats(metrics), gaps(metrics)) == (0, 0)


async def test_records_that_hold_no_decision_are_passed_all_the_same(updater, following, progress):
    await updater(PARTITION, at_offsets(1, b"", b"no decision"))
    await following.note_all()
    assert progress.places[DECISIONS] == Reached(3, 0)


async def test_behind_records_that_did_not_come_nothing_is_counted(updater, pending):
    with pytest.raises(SkippedError):
        await updater(PARTITION, records(2, 1))
    assert pending.open == set(range(1, 20))


async def test_where_it_is_is_noted_with_the_last_sequence(updater, following, progress):
    await updater(PARTITION, records(1, 1, 2, 3))
    await updater(PARTITION, records(4, 2))  # a repetition at the end does not take it back
    await following.note_all()
    assert progress.places[DECISIONS] == Reached(5, 3)


def label(number, *, is_fraud=True, event_time=NOW):
    t = transaction(number)
    return msgspec.json.encode(
        Label(transaction_id=t.transaction_id, card_id="c", merchant_id="m", event_time=event_time, is_fraud=is_fraud)
    )


async def test_labels_are_applied_once_with_their_place_in_the_topic(labels, store, following, progress, metrics):
    await labels(LABEL_PARTITION, at_offsets(0, label(1), label(2), label(1)))
    assert (applied(metrics), applied(metrics, "repeated")) == (2, 1)
    assert (await held_of(store)).card_labels == (await held_of(store)).merchant_labels == {5: 1}
    await following.note_all()
    assert progress.places[LABELS] == Reached(3)


async def test_labels_that_cannot_be_applied_are_set_aside_and_never_block_a_partition(
    labels, letters, metrics, following, progress
):
    contradiction, of_the_future = label(1, is_fraud=False), label(2, event_time=NOW.replace(year=2027))
    await labels(LABEL_PARTITION, at_offsets(0, label(1), contradiction, b"", of_the_future, label(3)))
    assert [letter[:2] for letter in letters.fields] == [
        ("conflict", "is_fraud"),
        ("invalid", "body"),
        ("invalid", "event_time"),
    ]
    assert applied(metrics) == 2
    await following.note_all()
    assert progress.places[LABELS] == Reached(5)


async def test_behind_labels_that_did_not_come_none_is_applied(labels, metrics):
    with pytest.raises(SkippedError):
        await labels(LABEL_PARTITION, at_offsets(1, label(1)))
    assert applied(metrics) == 0
