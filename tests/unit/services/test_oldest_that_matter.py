"""A recovery reads no further back than state reaches, and back to the beginning where that is not sure."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition

from services.recovery import HORIZON, MOST_OF_PAST_EPOCHS, oldest_that_matter
from services.topics import DECISIONS, LABELS

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
DECIDED, LABELLED = TopicPartition(DECISIONS, 0), TopicPartition(LABELS, 0)
END = 5 * MOST_OF_PAST_EPOCHS


class Reader:
    """A log of `END` records in each partition, one an hour, the last one `age` old; with a time index or without."""

    def __init__(self, age=timedelta(), *, indexed=True, oldest=0):
        self.last, self.indexed, self.oldest = NOW - age, indexed, oldest

    def at(self, offset):
        return int((self.last - timedelta(hours=END - 1 - offset)).timestamp() * 1_000)

    async def beginning_offsets(self, partitions):
        return dict.fromkeys(partitions, self.oldest)

    async def offsets_for_times(self, wanted):
        found = {}
        for partition, time in wanted.items():
            later = [offset for offset in range(self.oldest, END) if self.at(offset) >= time]
            found[partition] = SimpleNamespace(offset=later[0]) if later and self.indexed else None
        return found

    def assign(self, _):
        pass

    def seek(self, partition, offset):
        self.partition, self.offset = partition, offset

    async def getmany(self, **_):
        return {self.partition: [SimpleNamespace(offset=o, timestamp=self.at(o)) for o in range(self.offset, END)]}


async def starts(reader):
    both = [DECIDED, LABELLED]
    return list((await oldest_that_matter(reader, both, dict.fromkeys(both, END), NOW)).values())


async def test_what_is_older_than_entities_are_kept_is_left_out(monkeypatch):
    monkeypatch.setattr("services.recovery.MOST_OF_PAST_EPOCHS", 100)
    kept = int(HORIZON / timedelta(hours=1))
    assert await starts(Reader()) == [END - 1 - kept] * 2


async def test_a_log_cut_short_is_read_from_where_it_begins(monkeypatch):
    monkeypatch.setattr("services.recovery.MOST_OF_PAST_EPOCHS", 100)
    assert await starts(Reader(oldest=END - 200)) == [END - 200] * 2


async def test_where_little_is_younger_decisions_are_read_whole():
    assert await starts(Reader()) == [0, 0]  # an hour each: 1,080 in 45 days


@pytest.mark.parametrize("age", [HORIZON + timedelta(hours=1), 3 * HORIZON], ids=str)
async def test_in_an_old_log_the_sequence_is_found_and_labels_are_not_read(age):
    assert await starts(Reader(age)) == [0, END]


async def test_a_broker_without_a_time_index_is_read_whole():
    assert await starts(Reader(indexed=False)) == [0, 0]
