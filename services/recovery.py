"""Recovery: brings the state in Redis up to the log, and opens its gates. With empty state it is a rebuild.

While it runs nothing is decided. It closes the gates, begins a new epoch in every partition of topic decisions (behind
which nothing of an earlier one counts), applies what state lacks before that point, and opens.
"""

import logging
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from feature_store.definitions import Measure
from feature_store.entity_state import LabelConflictError, RedisEntityState
from feature_store.gate import Gate, Gates
from feature_store.keys import Keys
from feature_store.pending import Pending
from feature_store.progress import Progress, Reached
from feature_store.redis_client import Client
from feature_store.restore import Cards, Restored
from feature_store.transaction import InvalidError
from services.decision.record import Record, Stored
from services.log import Epochs, label_of, read
from services.topics import DECISIONS, LABELS

log = logging.getLogger(__name__)

Advance = Callable[[int, int], None]
"""Told how many records are done, and of how many."""


class Recovery:
    """One recovery, from the moment it has closed the gates. Another one that begins makes it fail.

    Raises, in every method:
        ClosedError: another recovery has begun, or a server was started again. Nothing is open; try again.
        KafkaError, TimeoutError, redis.exceptions.RedisError: the log or Redis cannot be reached; likewise.
    """

    def __init__(
        self, client: Client, keys: Keys, closed: Sequence[Gate], reader: AIOKafkaConsumer, *, keep: timedelta
    ) -> None:
        self._client = client
        self._keys = keys
        self._closed = closed
        self._reader = reader
        self._keep = keep
        self._cards = Cards(client, keys, closed)
        self._entities = RedisEntityState(client, keys, closed)
        self._progress = Progress(client, keys, closed)
        self._pending = Pending(client, keys)
        self._done = 0

    @classmethod
    async def begin(cls, client: Client, keys: Keys, reader: AIOKafkaConsumer, *, keep: timedelta) -> "Recovery":
        """Close the gates. `keep` is how long a decision is kept under its id."""
        return cls(client, keys, await Gates(client, keys).close(uuid.uuid4().hex), reader, keep=keep)

    async def run(self, producer: AIOKafkaProducer, now: datetime, advance: Advance) -> None:
        """Bring state up to the log as it is now, and open the gates."""
        partitions = range(self._keys.partitions)
        begun = [await self._begin_epoch(producer, partition) for partition in partitions]
        labels = [TopicPartition(LABELS, partition) for partition in partitions]
        ends = await self._reader.end_offsets(labels)
        starts = [await self._start(partition, begun[partition]) for partition in partitions]
        reached = [await self._progress.reached(LABELS, partition) for partition in partitions]
        total = sum(end - start for start, end in zip(starts, begun, strict=True))
        total += sum(max(0, ends[label] - reached[label.partition].next_offset) for label in labels)

        def done(records: Sequence[ConsumerRecord]) -> None:
            self._done += len(records)
            advance(self._done, total)

        epochs = [await self._decisions(p, starts[p], begun[p], now, done) for p in partitions]
        for label in labels:
            await self._labels(label, reached[label.partition].next_offset, ends[label], done)
        await Gates(self._client, self._keys).open(self._closed, epochs)

    async def _begin_epoch(self, producer: AIOKafkaProducer, partition: int) -> int:
        sent = await producer.send_and_wait(DECISIONS, b"", partition=partition)
        return int(sent.offset)

    async def _start(self, partition: int, end: int) -> int:
        """Give the offset from which something may be missing. A sequence is never beyond its offset plus one."""
        counted = await self._progress.reached(DECISIONS, partition)
        return min(await self._cards.sequence(partition), counted.next_offset, end)

    async def _decisions(
        self, partition: int, start: int, end: int, now: datetime, done: Callable[[Sequence[ConsumerRecord]], None]
    ) -> list[int]:
        """Restore and count the decisions of one partition; give its epochs."""
        epochs = Epochs(self._closed[partition].epochs, start)
        last = (await self._progress.reached(DECISIONS, partition)).sequence
        async for records in read(self._reader, TopicPartition(DECISIONS, partition), start, end):
            decisions = [decision for decision in _decisions(epochs, records) if decision.sequence > 0]
            if decisions:
                await self._cards.restore(partition, [self._restored(decision, now) for decision in decisions])
                await self._entities.count(partition, [(each.sequence, each.transaction) for each in decisions])
                last = max(last, *(decision.sequence for decision in decisions))
            done(records)
        await self._progress.note(DECISIONS, partition, Reached(end + 1, last))
        await self._pending.settle_to(partition, last)
        return [*epochs.begun, end]

    def _restored(self, decision: Record, now: datetime) -> Restored:
        left = int((decision.decided_at + self._keep - now).total_seconds())
        return Restored(
            decision.sequence,
            decision.transaction,
            {Measure[name.upper()]: value for name, value in decision.counted.items()},
            Stored.of(decision.transaction, decision.answer).to_bytes(),
            max(0, left),
        )

    async def _labels(
        self, partition: TopicPartition, start: int, end: int, done: Callable[[Sequence[ConsumerRecord]], None]
    ) -> None:
        async for records in read(self._reader, partition, start, end):
            for record in records:
                try:
                    await self._entities.label(label_of(record), (record.partition, record.offset))
                except (InvalidError, LabelConflictError):
                    continue  # the updater has set it aside, or will
            done(records)
        await self._progress.note(LABELS, partition.partition, Reached(end))


def _decisions(epochs: Epochs, records: Sequence[ConsumerRecord]) -> list[Record]:
    found = []
    for record in records:
        try:
            decision = epochs.decision(record)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            log.error("offset %d of partition %d of %s is no decision", record.offset, record.partition, DECISIONS)  # noqa: TRY400  # its text is of no use, and may hold what must not be logged
            continue
        if decision is not None:
            found.append(decision)
    return found
