"""Follows the log while a replay runs: which decisions are in it, what was set aside, how far its readers are."""

import asyncio
import contextlib
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import dataclass, field

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from services.dead_letter import DeadLetter
from services.log import Epochs
from services.settings import Settings
from services.topics import DECISIONS, LABELS, TRANSACTIONS, dead_letter
from services.updater import GROUP as UPDATER
from services.worker import GROUP as WORKER

LOOK_SECONDS = 0.01
"""How often the progress of worker and updater is looked at."""

Identity = tuple[str, str]
"""Card and transaction: the id of a decision."""


@dataclass(frozen=True, slots=True)
class Logged:
    """A decision in the log."""

    sequence: int
    action: str
    degraded: tuple[str, ...]
    at: float
    """When this process saw it, on its monotonic clock."""


@dataclass
class Watch:
    """What the log has shown so far. `settled` is told what nobody has to wait for any more."""

    settled: Callable[[Hashable], None]
    in_log: bool = False
    """Whether that is a decision in the log, or only one that merchant state has."""
    decisions: dict[Identity, Logged] = field(default_factory=dict)
    doubles: int = 0
    """Decisions that stand in the log under a second sequence number: effects that happened twice."""
    dead_letters: Counter[str] = field(default_factory=Counter)
    set_aside: set[tuple[int, int]] = field(default_factory=set)
    """Partition and offset in topic transactions of what went to the dead-letter topic."""
    processed: dict[TopicPartition, int] = field(default_factory=dict)
    """How far the worker is in topic transactions, and the updater in decisions and labels."""
    _epochs: defaultdict[int, Epochs] = field(default_factory=lambda: defaultdict(lambda: Epochs((), 0)))
    _behind: defaultdict[TopicPartition, deque[tuple[int, Hashable]]] = field(
        default_factory=lambda: defaultdict(deque)
    )

    def record(self, record: ConsumerRecord) -> None:
        """Take in a record of topic decisions or of the dead letters."""
        if record.topic == DECISIONS:
            self._decision(record)
            return
        letter = msgspec.json.decode(record.value, type=DeadLetter)
        self.dead_letters[letter.cause] += 1
        self.set_aside.add((letter.partition, letter.offset))
        self.settled((letter.partition, letter.offset))

    def _decision(self, record: ConsumerRecord) -> None:
        decision = self._epochs[record.partition].decision(record)
        if decision is None:
            return
        identity = (decision.transaction.card_id, decision.transaction.transaction_id)
        known = self.decisions.get(identity)
        if known is None:
            answer = decision.answer
            self.decisions[identity] = Logged(decision.sequence, answer.action, answer.degraded, time.perf_counter())
        elif known.sequence != decision.sequence:
            self.doubles += 1
        if self.in_log:
            self.settled(identity)
        else:
            self.expect(TopicPartition(record.topic, record.partition), record.offset, identity)

    def expect(self, partition: TopicPartition, offset: int, key: Hashable) -> None:
        """Call `settled(key)` when the updater has passed this place."""
        self._behind[partition].append((offset, key))

    def reached(self, partition: TopicPartition, offset: int) -> None:
        """Take in that everything before `offset` was processed: by the worker, or by the updater for its topics."""
        self.processed[partition] = offset
        waiting = self._behind[partition]
        while waiting and waiting[0][0] < offset:
            self.settled(waiting.popleft()[1])


@contextlib.asynccontextmanager
async def watching(settings: Settings, watch: Watch) -> AsyncIterator[None]:
    """Read the topics from their beginning into `watch`; yields when what was there before has been read."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap, enable_auto_commit=False, auto_offset_reset="earliest",
        fetch_max_wait_ms=10,
    )  # fmt: skip
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await asyncio.wait_for(consumer.start(), settings.kafka_timeout_seconds)
    try:
        await asyncio.wait_for(admin.start(), settings.kafka_timeout_seconds)
        topics = (DECISIONS, dead_letter(TRANSACTIONS))
        consumer.assign([TopicPartition(topic, n) for topic in topics for n in range(settings.partitions)])
        await _read_to(consumer, await consumer.end_offsets(consumer.assignment()), watch)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_follow(consumer, watch)),
                group.create_task(_follow_groups(admin, watch, settings.partitions)),
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
    finally:
        await admin.close()
        await consumer.stop()


async def _read_to(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int], watch: Watch) -> None:
    while any([await consumer.position(partition) < end for partition, end in ends.items()]):
        await _take(consumer, watch)


async def _follow(consumer: AIOKafkaConsumer, watch: Watch) -> None:
    while True:
        await _take(consumer, watch)


async def _take(consumer: AIOKafkaConsumer, watch: Watch) -> None:
    for records in (await consumer.getmany(timeout_ms=200)).values():
        for record in records:
            watch.record(record)


async def _follow_groups(admin: AIOKafkaAdminClient, watch: Watch, partitions: int) -> None:
    """Look how far worker and updater are. Partitions are named: librdkafka's broker does not know 'all of them'."""
    read = {
        group: [TopicPartition(topic, number) for topic in topics for number in range(partitions)]
        for group, topics in ((WORKER, (TRANSACTIONS,)), (UPDATER, (DECISIONS, LABELS)))
    }
    coordinators = {group: await admin.find_coordinator(group) for group in read}
    while True:
        for group, coordinator in coordinators.items():
            offsets = await admin.list_consumer_group_offsets(group, coordinator, read[group])
            for partition, (offset, _) in offsets.items():
                watch.reached(partition, offset)
        await asyncio.sleep(LOOK_SECONDS)
