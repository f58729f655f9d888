"""Recovery: brings the state in Redis up to the log, and opens its gates. With empty state it is a rebuild.

While it runs nothing is decided. It closes the gates. For each partition of topic decisions it applies what state lacks
up to the end as it is now, writes the empty record that begins the next epoch (after which nothing of an earlier one
counts), applies what came in between, and makes sure that this epoch is the one in force. Then come the labels, and
then it opens.
"""

import contextlib
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
from feature_store.scripts import ClosedError
from feature_store.transaction import InvalidError
from services.decision.record import Record, Stored
from services.log import FOLLOWS, Epochs, label_of, read
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
        decisions, labels = (self._partitions_of(topic) for topic in (DECISIONS, LABELS))
        oldest = await self._reader.beginning_offsets(decisions + labels)
        ends = await self._reader.end_offsets(decisions + labels)
        starts = {each: max(oldest[each], await self._start(each, ends[each])) for each in decisions + labels}
        total = sum(ends[each] - starts[each] for each in decisions + labels)

        def done(partition: TopicPartition) -> None:
            self._done += ends[partition] - starts[partition]
            advance(self._done, total)

        epochs, reached = [], []
        for each in decisions:
            begun, place = await self._catch_up(each, starts[each], ends[each], producer, now)
            epochs.append(begun)
            reached.append(place)
            done(each)
        for each in labels:
            await self._labels(each, starts[each], ends[each])
            done(each)
        gates = Gates(self._client, self._keys)
        await gates.open(self._closed, epochs)
        progress = Progress(self._client, self._keys, await gates.all_open())
        for each, place in zip(decisions, reached, strict=True):
            await progress.note(each.topic, each.partition, place)  # last: who starts there needs the gate's epochs

    def _partitions_of(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, partition) for partition in range(self._keys.partitions)]

    async def _start(self, partition: TopicPartition, end: int) -> int:
        """Give the offset from which something may be missing.

        Sequences begin at 1 and each takes a record at least, so what follows sequence s is at offset s or later.
        """
        start = (await self._progress.reached(partition.topic, partition.partition)).next_offset
        if start > end:  # another log: a broker that keeps it in memory was started again
            await self._progress.forget(partition.topic, partition.partition)
            return 0
        if partition.topic == LABELS:
            return start
        if not self._closed[partition.partition].epochs:  # the gate was gone; which is in force only the log tells
            return 0
        return min(start, await self._cards.sequence(partition.partition))

    async def _catch_up(
        self, partition: TopicPartition, start: int, end: int, producer: AIOKafkaProducer, now: datetime
    ) -> tuple[list[int], Reached]:
        """Apply what state lacks of one partition's decisions and begin its next epoch.

        Returns:
            Its epochs, and the place from which to go on.
        """
        number, epochs = partition.partition, Epochs(self._closed[partition.partition].epochs, start)
        noted = await self._progress.reached(partition.topic, number)
        last = max(noted.sequence, await self._decisions(partition, start, end, epochs, now))
        await self._make_sure_the_gates_are_ours(partition, noted)
        begun = await self._begin_epoch(producer, partition, epochs)
        last = max(last, await self._decisions(partition, end, begun + 1, epochs, now))
        if epochs.current != begun:
            raise ClosedError(f"another recovery began an epoch in partition {number} before this one")
        await self._pending.settle_to(number, last)
        known = [epoch for epoch in epochs.begun if epoch <= begun]  # later: of a log that is gone, with its broker
        return known, Reached(begun + 1, last)

    async def _make_sure_the_gates_are_ours(self, partition: TopicPartition, noted: Reached) -> None:
        """Note what is noted: nothing new, but refused where another recovery has closed them since."""
        await self._progress.note(partition.topic, partition.partition, noted)

    async def _begin_epoch(self, producer: AIOKafkaProducer, partition: TopicPartition, epochs: Epochs) -> int:
        """Write the record that begins the next epoch."""
        headers = [(FOLLOWS, epochs.beginning())]
        sent = await producer.send_and_wait(partition.topic, b"", partition=partition.partition, headers=headers)
        return int(sent.offset)

    async def _decisions(self, partition: TopicPartition, start: int, end: int, epochs: Epochs, now: datetime) -> int:
        """Restore and count the decisions of one partition from `start` to `end`; give the last sequence of them."""
        last, number = 0, partition.partition
        async for records in read(self._reader, partition, start, end):
            if decisions := _counting(epochs, records):
                await self._cards.restore(number, [self._restored(decision, now) for decision in decisions])
                await self._entities.count(number, [(each.sequence, each.transaction) for each in decisions])
                last = max(last, *(decision.sequence for decision in decisions))
        return last

    def _restored(self, decision: Record, now: datetime) -> Restored:
        left = int((decision.decided_at + self._keep - now).total_seconds())
        return Restored(
            decision.sequence,
            decision.transaction,
            {Measure[name.upper()]: value for name, value in decision.counted.items()},
            Stored.of(decision.transaction, decision.answer).to_bytes(),
            max(0, left),
        )

    async def _labels(self, partition: TopicPartition, start: int, end: int) -> None:
        async for records in read(self._reader, partition, start, end):
            for record in records:
                with contextlib.suppress(InvalidError, LabelConflictError):  # the updater has set it aside, or will
                    await self._entities.label(label_of(record), (record.partition, record.offset))
        await self._progress.note(partition.topic, partition.partition, Reached(end))


def _counting(epochs: Epochs, records: Sequence[ConsumerRecord]) -> list[Record]:
    """Give the decisions among the records that count."""
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
