"""The topics as the log that state is a function of: what of it counts is decided here, for all its readers."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from feature_store.transaction import Label, parse
from services.decision.record import Record, decode_record

MOST_RECORDS = 5_000
MOST_LOOKED_AT = 100
FOLLOWS = "follows"
"""Header of the record that begins an epoch: the epoch before it."""
NONE = -1
SILENCE_SECONDS = 30.0
"""After this long without a record that must be there, the reader gives up."""


class Epochs:
    """Follows one partition of topic decisions from an offset on: which epoch is in force there.

    An empty record begins an epoch; its offset is its number, and its header names the epoch it follows. It counts only
    where that one is in force: a recovery that another one has overtaken begins nothing. What a relay of an earlier
    epoch still publishes does not count either: state went on without it (`feature_store/gate.py`).

    For example: begins 0, two decisions stamped 0, begins 3 (follows 0), a decision stamped 0, one stamped 3. The
    fourth record begins epoch 3, so the fifth does not count.

    Args:
        known: epochs that are known to have begun, such as a gate names; those from `offset` on are read again.
        offset: where reading goes on.
    """

    def __init__(self, known: Iterable[int], offset: int) -> None:
        self.begun = [epoch for epoch in sorted(known) if epoch < offset]

    def decision(self, record: ConsumerRecord) -> Record | None:
        """Take the next record: give its decision, or None if there is none that counts; it may begin an epoch.

        Raises:
            msgspec.MsgspecError, UnicodeDecodeError: it is neither empty nor a decision.
        """
        if not record.value:
            if dict(record.headers).get(FOLLOWS) == self.beginning() or self._from_the_middle(record):
                self.begun.append(record.offset)
            return None
        decision = decode_record(record.value)
        if self._from_the_middle(record):
            self.begun.append(decision.epoch)
        return decision if decision.epoch == self.current else None

    def _from_the_middle(self, record: ConsumerRecord) -> bool:
        """Whether the log has forgotten its beginning: then what it has now is the epoch in force."""
        return not self.begun and record.offset > 0

    @property
    def current(self) -> int:
        """The epoch in force; NONE before the first."""
        return self.begun[-1] if self.begun else NONE

    def beginning(self) -> bytes:
        """Give the header of a record that begins the next epoch."""
        return b"%d" % self.current


async def has_newer(
    reader: AIOKafkaConsumer, partition: TopicPartition, oldest: int, end: int, milliseconds: int
) -> bool:
    """Tell whether one of the last records was written at that time or later."""
    async for records in read(reader, partition, max(oldest, end - MOST_LOOKED_AT), end):
        if any(record.timestamp >= milliseconds for record in records):
            return True
    return False


async def epochs_in_force(reader: AIOKafkaConsumer, partition: TopicPartition, start: int, end: int) -> list[int]:
    """Find the epoch in force at offset `start` of topic decisions, from what follows; empty if nothing tells.

    A relay stamps its records with its epoch, and the record that begins an epoch names the one it follows. Nobody can
    name a later epoch than the one in force, so the greatest one named that had begun by `start` is it, where anything
    that counts follows `start`.
    """
    named = NONE
    async for records in read(reader, partition, start, end):
        for record in records:
            epoch = _named_epoch(record)
            if epoch is not None and epoch < start:
                named = max(named, epoch)
    return [] if named == NONE else [named]


class _Stamped(msgspec.Struct):
    epoch: int


_stamps = msgspec.json.Decoder(_Stamped)


def _named_epoch(record: ConsumerRecord) -> int | None:
    if not record.value:
        follows = dict(record.headers).get(FOLLOWS, b"")
        return int(follows) if follows.isdigit() else None
    try:
        return _stamps.decode(record.value).epoch
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def sent_at(record: ConsumerRecord) -> datetime | None:
    """Give the time of a record; None where it is none that a clock can show."""
    try:
        return datetime.fromtimestamp(record.timestamp / 1_000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def label_of(record: ConsumerRecord) -> Label:
    """Give the label of a record, judged by the time it was sent: it is valid for every reader or for none.

    Raises:
        InvalidError: it is none.
    """
    return parse(Label, record.value or b"", now=datetime.fromtimestamp(record.timestamp / 1_000, UTC))


async def read(
    reader: AIOKafkaConsumer, partition: TopicPartition, start: int, end: int
) -> AsyncIterator[Sequence[ConsumerRecord]]:
    """Read the records with offsets from `start` to `end` (exclusive), in batches.

    Raises:
        TimeoutError: the broker does not give them.
    """
    if start >= end:
        return
    reader.assign([partition])
    reader.seek(partition, start)
    while True:
        async with asyncio.timeout(SILENCE_SECONDS):
            batch: Sequence[ConsumerRecord] = ()
            while not batch:
                batch = (await reader.getmany(timeout_ms=500, max_records=MOST_RECORDS)).get(partition, ())
        yield [record for record in batch if record.offset < end]
        if batch[-1].offset + 1 >= end:
            return
