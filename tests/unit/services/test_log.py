"""Reading the log: a part of it, its labels, and from the middle of it which epoch is in force."""

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import msgspec
import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from logged import label_of as label
from logged import paid, published

from feature_store.transaction import InvalidError
from services import log
from services.log import FOLLOWS, Epochs, epochs_in_force, has_newer, label_of, read

PARTITION = TopicPartition("decisions", 5)


class Reader:
    """A consumer of one partition that gives two records at a time, and at first none."""

    def __init__(self, records):
        self.records = records
        self.at = None
        self.silent = True
        self.read = []
        """Offsets that were handed over, and where reading began."""

    def assign(self, partitions):
        assert partitions == [PARTITION]

    def seek(self, partition, offset):
        assert partition == PARTITION
        self.at = offset
        self.read.append(f"from {offset}")

    async def getmany(self, *, timeout_ms, max_records):
        await asyncio.sleep(0)
        self.silent = not self.silent
        found = [] if self.silent else [record for record in self.records if record.offset >= self.at][:2]
        if not found:
            return {}
        self.at = found[-1].offset + 1
        self.read += [record.offset for record in found]
        return {PARTITION: found}


# --- a part of the log


def a_log(length):
    return Reader([SimpleNamespace(offset=offset) for offset in range(length)])


async def offsets_read(reader, start, end):
    return [[record.offset for record in batch] async for batch in read(reader, PARTITION, start, end)]


async def test_a_part_of_the_log_is_read_to_its_end_and_no_further():
    assert await offsets_read(a_log(9), 2, 7) == [[2, 3], [4, 5], [6]]
    assert await offsets_read(a_log(9), 2, 6) == [[2, 3], [4, 5]]
    assert await offsets_read(a_log(9), 0, 1) == [[0]]


@pytest.mark.parametrize(("start", "end"), [(0, 0), (5, 5), (6, 5)])
async def test_where_there_is_nothing_to_read_nobody_is_asked(start, end):
    reader = a_log(9)
    assert await offsets_read(reader, start, end) == []
    assert reader.at is None


async def test_a_broker_that_is_silent_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(log, "SILENCE_SECONDS", 0.05)
    with pytest.raises(TimeoutError):
        await offsets_read(a_log(3), 0, 5)


# --- labels


def label_record(event_time, sent_at):
    value = msgspec.json.encode(label(paid(event_time=event_time)))
    return SimpleNamespace(value=value, timestamp=int(sent_at.timestamp() * 1_000))


def test_a_label_is_judged_by_the_time_it_was_sent():
    long_ago, far_ahead = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    assert label_of(label_record(far_ahead, far_ahead)).event_time == far_ahead
    assert label_of(label_record(long_ago, long_ago + timedelta(days=30))).is_fraud
    with pytest.raises(InvalidError, match="ahead of the clock"):
        label_of(label_record(long_ago + timedelta(days=1), long_ago))


@pytest.mark.parametrize("value", [None, b"", b"{"])
def test_what_is_no_label_is_invalid(value):
    with pytest.raises(InvalidError):
        label_of(SimpleNamespace(value=value, timestamp=0))


# --- epochs from the middle. In a story a number is a decision stamped so, "5" begins an epoch that follows 5


def told(*story, first=0):
    records = []
    for offset, what in enumerate(story, first):
        value, headers = b"garbage", ()
        if isinstance(what, int):
            value = published(paid(), offset, epoch=what)
        elif what != "garbage":
            value, headers = b"", ((FOLLOWS, what.encode()),) if what else ()
        records.append(SimpleNamespace(offset=offset, value=value, headers=headers))
    return records


STORY = ("-1", 0, 0, "0", 0, 3, "garbage", 3, "3", "3", 3, 0, 8, 8)
"""Epochs 0, 3 and 8. The other beginning at 9 is void; what stands stamped 0 at 4 and 11, or 3 at 10, is too late."""
IN_FORCE = [[], *[[0]] * 3, *[[3]] * 5, *[[8]] * 5]
"""By offset: the epoch that was in force before it."""


@pytest.mark.parametrize("start", range(len(STORY)))
async def test_the_epoch_in_force_is_found_from_what_follows(start):
    assert await epochs_in_force(Reader(told(*STORY)), PARTITION, start, len(STORY)) == IN_FORCE[start]


@pytest.mark.parametrize("start", range(1, len(STORY)))
async def test_from_there_on_the_same_decisions_count(start):
    whole = Epochs((), 0)
    part = Epochs(await epochs_in_force(Reader(told(*STORY)), PARTITION, start, len(STORY)), start)
    for record in told(*STORY):
        if record.value == b"garbage":
            continue
        counted = whole.decision(record)
        if record.offset >= start:
            assert part.decision(record) == counted
    assert part.current == whole.current == 8


@pytest.mark.parametrize("rest", [(), ("garbage",), ("",), ("x", "garbage"), ("-1",)])
async def test_where_nothing_names_an_epoch_none_is_known(rest):
    reader = Reader(told(*rest, first=50))
    assert await epochs_in_force(reader, PARTITION, 50, 50 + len(rest)) == []


async def test_an_epoch_that_begins_later_is_not_in_force_yet():
    story = told("49", 49, "40", 51, 54, first=50)
    assert await epochs_in_force(Reader(story), PARTITION, 50, 55) == [49]
    assert await epochs_in_force(Reader(told(50, 51, first=50)), PARTITION, 50, 52) == []


@given(
    steps=st.lists(st.sampled_from(["decide", "fenced", "recover", "overtaken", "garbage"]), min_size=2, max_size=12),
    start=st.integers(1, 11),
)
def test_whatever_happened_the_epoch_in_force_is_found(steps, start):
    """A log that begins an epoch once more at its end: so the one in force before that is named for sure."""
    story, begun, in_force = ["-1"], [0], [[]]
    for step in [*steps, "recover"]:
        in_force.append([begun[-1]])
        if step == "recover":
            story.append(str(begun[-1]))
            begun.append(len(story) - 1)
        else:
            story.append({"decide": begun[-1], "fenced": begun[0], "overtaken": "-1"}.get(step, step))
    start = min(start, len(story) - 1)
    found = asyncio.run(epochs_in_force(Reader(told(*story)), PARTITION, start, len(story)))
    assert found == in_force[start]


# --- the last decision


# --- how old the log is


@pytest.fixture
def steps_of_two(monkeypatch):
    monkeypatch.setattr(log, "MOST_LOOKED_AT", 2)


async def newer_in(*times, since, oldest=0):
    reader = Reader([SimpleNamespace(offset=offset, timestamp=time) for offset, time in enumerate(times, oldest)])
    return await has_newer(reader, PARTITION, oldest, oldest + len(times), since), reader.read


async def test_whether_the_log_has_anything_as_new_as_that(steps_of_two):
    assert (await newer_in(5, 6, 7, 8, since=8))[0]
    assert (await newer_in(5, 6, 8, 7, since=8))[0]
    assert not (await newer_in(5, 6, 7, 8, since=9))[0]


async def test_only_the_last_records_are_looked_at(steps_of_two):
    assert await newer_in(9, 9, 9, 5, 6, since=9) == (False, ["from 3", 3, 4])


async def test_of_an_empty_partition_nothing_is_new(steps_of_two):
    assert await newer_in(since=0, oldest=7) == (False, [])
    assert await newer_in(9, since=9, oldest=7) == (True, ["from 7", 7])
