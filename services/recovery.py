"""Recovery: brings the state in Redis up to the log, and opens its gates. With empty state it is a rebuild.

While it runs nothing is decided. It closes the gates. For each partition of topic decisions it applies what state lacks
up to the end as it is now, writes the empty record that begins the next epoch (after which nothing of an earlier one
counts), applies what came in between, and makes sure that this epoch is the one in force. Then come the labels, and
then it opens.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from feature_store.decision_store import EXPIRE_SECONDS
from feature_store.entity_writer import LoggedDecision, LoggedLabel, RedisEntityWriter, RestoredDecision
from feature_store.feature_set import FeatureSet
from feature_store.gate import Gate, Gates
from feature_store.keys import Keys
from feature_store.pending import Pending
from feature_store.progress import Progress, Reached
from feature_store.redis_client import Client
from feature_store.round_trips import RoundTrips
from feature_store.scripts import ClosedError
from feature_store.transaction import InvalidError
from services.decision.record import Record, Stored
from services.log import FOLLOWS, Epochs, epochs_in_force, has_newer, label_of, read
from services.settings import Settings
from services.topics import DECISIONS, LABELS

log = logging.getLogger(__name__)

HORIZON = timedelta(seconds=EXPIRE_SECONDS)
"""What was published longer ago than entities are kept has no place in any window of now."""
MOST_OF_PAST_EPOCHS = 10_000
"""More records than relays of past epochs can still publish: among more than that, one counts, and tells the epoch."""
Advance = Callable[[int, int], None]
"""Told how many records are done, and of how many."""


class Recovery:
    """One recovery, from the moment it has closed the gates. Another one that begins makes it fail.

    Raises, in every method:
        ClosedError: another recovery has begun, or a server was started again. Nothing is open; try again.
        KafkaError, TimeoutError, redis.exceptions.RedisError: the log or Redis cannot be reached; likewise.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        features: FeatureSet,
        closed: Sequence[Gate],
        reader: AIOKafkaConsumer,
        *,
        keep: timedelta,
    ) -> None:
        self._client = client
        self._keys = keys
        self._closed = closed
        self._reader = reader
        self._keep = keep
        self._writer = RedisEntityWriter(RoundTrips(client), keys, features, closed)
        self._progress = Progress(client, keys, closed)
        self._pending = Pending(client, keys)
        self._done = 0

    async def run(self, producer: AIOKafkaProducer, now: datetime, advance: Advance) -> int:
        """Bring state up to the log as it is now, and open the gates; give how many records were read."""
        decisions, labels = (self._partitions_of(topic) for topic in (DECISIONS, LABELS))
        ends = await self._reader.end_offsets(decisions + labels)
        oldest = await oldest_that_matter(self._reader, decisions + labels, ends, now)
        starts = {each: max(oldest[each], await self._start(each, ends[each])) for each in decisions + labels}
        total = sum(ends[each] - starts[each] for each in decisions + labels)

        def done(count: int) -> None:
            self._done += count
            advance(self._done, total)

        epochs, reached = [], []
        for each in decisions:
            begun, place = await self._catch_up(each, starts[each], ends[each], producer, now, done)
            epochs.append(begun)
            reached.append(place)
        for each in labels:
            await self._labels(each, starts[each], ends[each], done)
        gates = Gates(self._client, self._keys)
        await gates.open(self._closed, epochs)
        progress = Progress(self._client, self._keys, await gates.all_open())
        for each, place in zip(decisions, reached, strict=True):
            await progress.note(each.topic, each.partition, place)  # last: who starts there needs the gate's epochs
        return self._done

    def _partitions_of(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, partition) for partition in range(self._keys.partitions)]

    async def _start(self, partition: TopicPartition, end: int) -> int:
        """Give the offset from which something may be missing.

        Sequences begin at 1 and each takes a record at least, so what follows sequence s is at offset s or later: the
        eighth decision cannot be among the first seven records.
        """
        start = (await self._progress.reached(partition.topic, partition.partition)).next_offset
        if start > end:  # another log: a broker that keeps it in memory was started again
            await self._progress.forget(partition.topic, partition.partition)
            return 0
        if partition.topic == LABELS:
            return start
        if not self._closed[partition.partition].epochs:  # the gate was gone, and with it what else there was
            return 0
        return min(start, await self._writer.sequence(partition.partition))

    async def _catch_up(
        self,
        partition: TopicPartition,
        start: int,
        end: int,
        producer: AIOKafkaProducer,
        now: datetime,
        done: Callable[[int], None],
    ) -> tuple[list[int], Reached]:
        """Apply what state lacks of one partition's decisions and begin its next epoch.

        Returns:
            Its epochs, and the place from which to go on.
        """
        number = partition.partition
        known = self._closed[number].epochs
        if not known and start > 0:
            known = await epochs_in_force(self._reader, partition, start, end)
        epochs = Epochs(known, start)
        noted = await self._progress.reached(partition.topic, number)
        last = max(noted.sequence, await self._decisions(partition, start, end, epochs, now, done))
        await self._make_sure_the_gates_are_ours(partition, noted)
        begun = await self._begin_epoch(producer, partition, epochs)
        last = max(last, await self._decisions(partition, end, begun + 1, epochs, now, lambda _: None))
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

    async def _decisions(
        self,
        partition: TopicPartition,
        start: int,
        end: int,
        epochs: Epochs,
        now: datetime,
        done: Callable[[int], None],
    ) -> int:
        """Restore and count the decisions of one partition from `start` to `end`; give the last sequence of them."""
        last, number = 0, partition.partition
        async for records in read(self._reader, partition, start, end):
            if decisions := _counting(epochs, records):
                await asyncio.gather(
                    self._writer.restore(number, [self._restored(decision, now) for decision in decisions]),
                    self._writer.count([LoggedDecision(number, each.sequence, each.transaction) for each in decisions]),
                )
                last = max(last, *(decision.sequence for decision in decisions))
            done(len(records))
        return last

    def _restored(self, decision: Record, now: datetime) -> RestoredDecision:
        left = int((decision.decided_at + self._keep - now).total_seconds())
        stored = Stored.of(decision.transaction, decision.answer).to_bytes()
        return RestoredDecision(
            decision.sequence, decision.transaction, decision.counted, stored, keep_seconds=max(0, left)
        )

    async def _labels(self, partition: TopicPartition, start: int, end: int, done: Callable[[int], None]) -> None:
        async for records in read(self._reader, partition, start, end):
            labels = []
            for record in records:
                with contextlib.suppress(InvalidError):  # the updater has set it aside, or will
                    labels.append(LoggedLabel(record.partition, record.offset, label_of(record)))
            await self._writer.label(labels)
            done(len(records))
        await self._progress.note(partition.topic, partition.partition, Reached(end))


@dataclass(frozen=True, slots=True)
class Recoveries:
    """What every recovery of a system needs."""

    settings: Settings
    client: Client
    keys: Keys
    features: FeatureSet

    async def begin(self, reader: AIOKafkaConsumer) -> Recovery:
        """Close the gates, and give the recovery that may open them."""
        closed = await Gates(self.client, self.keys).close(uuid.uuid4().hex)
        keep = timedelta(days=self.settings.decided_days)
        return Recovery(self.client, self.keys, self.features, closed, reader, keep=keep)


async def oldest_that_matter(
    reader: AIOKafkaConsumer, partitions: Sequence[TopicPartition], ends: Mapping[TopicPartition, int], now: datetime
) -> dict[TopicPartition, int]:
    """Give the offset of the oldest record of each partition that state can still be a function of.

    What was published longer ago than entities are kept lies outside every window of a decision of now. Where little
    is younger, all is read: the last sequence has to be found, and the epoch in force.
    """
    oldest = await reader.beginning_offsets(partitions)
    horizon = int((now - HORIZON).timestamp() * 1_000)
    recent = await reader.offsets_for_times(dict.fromkeys(partitions, horizon))
    starts = {}
    for each in partitions:
        found, start = recent[each], oldest[each]
        if found is not None and ends[each] - found.offset > MOST_OF_PAST_EPOCHS:
            start = max(start, found.offset)
        elif (
            each.topic == LABELS
            and found is None
            and not await has_newer(
                reader,
                each,
                start,
                ends[each],
                horizon,  # a broker without time index finds none either
            )
        ):
            start = ends[each]
        starts[each] = start
    return starts


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
