import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import NamedTuple

import msgspec
import pytest
from aiokafka import TopicPartition

from feature_store.held import Held
from feature_store.transaction import InvalidError, Label, Transaction
from services import log
from services.decision.record import Answer, Record, placed, unplaced
from services.log import FOLLOWS, NONE, Epochs, label_of, read

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
PARTITION = TopicPartition("decisions", 5)


def decision(epoch, sequence):
    """A decision as a relay of `epoch` publishes it."""
    transaction = Transaction(
        transaction_id=f"t{sequence}", card_id="c", merchant_id="m", amount=5, currency="EUR", event_time=NOW
    )
    answer = Answer(
        transaction_id="t", action="approve", score=0.1, reasons=(), model="m", policy="p",
        features_version="f", degraded=(), stage_ms={},
    )  # fmt: skip
    record = Record(
        epoch=0, partition=0, sequence=0, decided_at=NOW, transaction=transaction, features=(),
        held=Held(card_decisions=0, card_labels={}, merchant_decisions={}, merchant_labels={}),
        counted={}, answer=answer,
    )  # fmt: skip
    return placed(unplaced(record), epoch, PARTITION.partition, sequence)


BEGIN = b""
"""An empty record that follows the epoch in force where it stands."""


class Beginning(NamedTuple):
    """An empty record that follows another epoch."""

    follows: int


def counting(epochs, first_offset, *values):
    """The sequences of the decisions that count."""
    counted = []
    for offset, value in enumerate(values, first_offset):
        headers = []
        if not value:
            headers = [(FOLLOWS, epochs.beginning())]
        elif isinstance(value, Beginning):
            headers, value = [(FOLLOWS, b"%d" % value.follows)], BEGIN  # noqa: PLW2901
        decision = epochs.decision(SimpleNamespace(offset=offset, value=value, headers=tuple(headers)))
        counted += [decision.sequence] if decision else []
    return counted


@pytest.mark.parametrize("empty", [b"", None])
def test_an_empty_record_begins_an_epoch_whose_number_is_its_offset(empty):
    epochs = Epochs((), 0)
    assert counting(epochs, 0, empty, decision(0, 1), decision(0, 2)) == [1, 2]
    assert counting(epochs, 3, empty, decision(3, 3)) == [3]
    assert epochs.begun == [0, 3]


def test_what_a_relay_of_an_earlier_epoch_publishes_behind_a_later_ones_beginning_does_not_count():
    epochs = Epochs((), 0)
    values = [BEGIN, decision(0, 1), BEGIN, decision(0, 2), decision(2, 7), decision(0, 3), decision(2, 8)]
    assert counting(epochs, 0, *values) == [1, 7, 8]


def test_what_it_published_before_that_counts_also_if_a_later_epoch_is_known():
    epochs = Epochs([0, 3], 1)
    assert counting(epochs, 1, decision(0, 1), decision(0, 2), BEGIN, decision(3, 3)) == [1, 2, 3]
    assert epochs.begun == [0, 3]


def test_a_record_of_an_epoch_that_has_not_begun_yet_does_not_count():
    assert counting(Epochs((), 0), 0, BEGIN, decision(2, 1), BEGIN) == []


def test_before_the_first_epoch_of_a_log_that_has_its_beginning_nothing_counts():
    epochs = Epochs((), 0)
    assert counting(epochs, 0, decision(0, 1)) == []
    assert (epochs.begun, epochs.current) == ([], NONE)


def test_the_first_epoch_follows_none_and_begins_the_log():
    epochs = Epochs((), 0)
    assert epochs.beginning() == b"-1"
    assert counting(epochs, 0, Beginning(follows=NONE), decision(0, 1)) == [1]
    assert (epochs.begun, epochs.current, epochs.beginning()) == ([0], 0, b"0")


@pytest.mark.parametrize("follows", [NONE, 0, 9])
def test_a_beginning_that_follows_another_epoch_than_the_one_in_force_is_void(follows):
    epochs = Epochs((), 0)
    assert counting(epochs, 0, BEGIN, decision(0, 1), BEGIN, decision(2, 2)) == [1, 2]
    assert counting(epochs, 4, Beginning(follows), decision(2, 3), decision(4, 3), decision(2, 4)) == [3, 4]
    assert (epochs.begun, epochs.current) == ([0, 2], 2)
    assert counting(epochs, 8, Beginning(follows=2), decision(2, 5), decision(8, 5)) == [5]
    assert epochs.begun == [0, 2, 8]


def test_a_beginning_at_the_beginning_of_the_log_that_follows_an_epoch_is_void():
    epochs = Epochs((), 0)
    assert counting(epochs, 0, Beginning(follows=7)) == []
    assert (epochs.begun, epochs.beginning()) == ([], b"-1")


def test_a_beginning_that_does_not_say_what_it_follows_is_void():
    epochs = Epochs([0], 5)
    assert epochs.decision(SimpleNamespace(offset=5, value=b"", headers=())) is None
    assert counting(epochs, 6, decision(5, 1), decision(0, 1)) == [1]


def test_in_a_log_that_has_forgotten_its_beginning_the_epoch_of_the_first_decision_is_in_force():
    epochs = Epochs((), 50)
    assert counting(epochs, 50, decision(7, 1), decision(0, 2), decision(7, 3)) == [1, 3]
    assert epochs.begun == [7]
    assert counting(epochs, 53, Beginning(follows=0), decision(7, 4), Beginning(follows=7), decision(55, 5)) == [4, 5]
    assert epochs.begun == [7, 55]


def test_in_a_log_that_has_forgotten_its_beginning_the_first_beginning_is_in_force_whatever_it_follows():
    epochs = Epochs((), 50)
    assert counting(epochs, 50, Beginning(follows=7), decision(7, 1), decision(50, 2)) == [2]
    assert epochs.begun == [50]
    assert counting(epochs, 53, Beginning(follows=7), decision(53, 3), decision(50, 3)) == [3]
    assert epochs.begun == [50]


def test_a_log_whose_epochs_are_known_is_not_entered_anew():
    epochs = Epochs([0], 50)
    assert counting(epochs, 50, decision(7, 1), Beginning(follows=7), decision(51, 1), decision(0, 1)) == [1]
    assert epochs.begun == [0]


def test_a_reader_that_starts_in_the_middle_knows_which_epoch_is_in_force_there():
    known = {20, 0, 7}  # in no order
    assert counting(Epochs(known, 9), 9, decision(0, 1), decision(7, 2), decision(20, 3)) == [2]
    at_a_beginning = Epochs(known, 7)
    assert counting(at_a_beginning, 7, BEGIN, decision(7, 1)) == [1]
    assert at_a_beginning.begun == [0, 7]
    assert counting(Epochs(known, 8), 8, decision(7, 1)) == [1]
    assert counting(Epochs(known, 21), 21, decision(7, 1), decision(20, 2)) == [2]


@pytest.mark.parametrize("garbage", [b"{", b'{"epoch": 0}', b"null", b'"\xff"'])
def test_what_is_neither_empty_nor_a_decision_raises_and_changes_nothing(garbage):
    epochs = Epochs([0], 1)
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        counting(epochs, 1, garbage)
    assert counting(epochs, 2, decision(0, 1)) == [1]


def label_record(event_time, sent_at):
    label = Label(transaction_id="t", card_id="c", merchant_id="m", event_time=event_time, is_fraud=True)
    return SimpleNamespace(value=msgspec.json.encode(label), timestamp=int(sent_at.timestamp() * 1_000))


def test_a_label_is_judged_by_the_time_it_was_sent_whenever_it_is_read():
    long_ago, far_ahead = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    assert label_of(label_record(far_ahead, far_ahead)).event_time == far_ahead
    assert label_of(label_record(long_ago, long_ago + timedelta(days=30))).is_fraud
    with pytest.raises(InvalidError, match="ahead of the clock"):
        label_of(label_record(long_ago + timedelta(days=1), long_ago))


@pytest.mark.parametrize("value", [None, b"", b"{"])
def test_what_is_no_label_is_invalid(value):
    with pytest.raises(InvalidError):
        label_of(SimpleNamespace(value=value, timestamp=0))


class Reader:
    """A consumer of one partition with `length` records, that gives `most` at a time, and at first none."""

    def __init__(self, length, most=2):
        self.length, self.most = length, most
        self.at = None
        self.silent = True

    def assign(self, partitions):
        assert partitions == [PARTITION]

    def seek(self, partition, offset):
        assert partition == PARTITION
        self.at = offset

    async def getmany(self, *, timeout_ms, max_records):
        await asyncio.sleep(0)
        self.silent = not self.silent
        if self.silent or self.at >= self.length:
            return {}
        offsets = range(self.at, min(self.at + self.most, self.length))
        self.at = offsets.stop
        return {PARTITION: [SimpleNamespace(offset=offset) for offset in offsets]}


async def offsets_read(reader, start, end):
    return [[record.offset for record in batch] async for batch in read(reader, PARTITION, start, end)]


async def test_a_part_of_the_log_is_read_up_to_its_end_and_not_beyond():
    assert await offsets_read(Reader(9), 2, 7) == [[2, 3], [4, 5], [6]]
    assert await offsets_read(Reader(9), 2, 6) == [[2, 3], [4, 5]]
    assert await offsets_read(Reader(9), 0, 1) == [[0]]


@pytest.mark.parametrize(("start", "end"), [(0, 0), (5, 5), (6, 5)])
async def test_where_there_is_nothing_to_read_the_broker_is_not_asked(start, end):
    reader = Reader(9)
    assert await offsets_read(reader, start, end) == []
    assert reader.at is None


async def test_a_broker_that_does_not_give_what_must_be_there_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(log, "SILENCE_SECONDS", 0.05)
    with pytest.raises(TimeoutError):
        await offsets_read(Reader(3), 0, 5)
