"""From the log to state: decisions to their merchants, labels to card and merchant, each with one effect."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import msgspec
from aiokafka import ConsumerRecord, TopicPartition
from starlette.applications import Starlette

from feature_store.entity_state import EntityState, LabelConflictError, RedisEntityState
from feature_store.keys import Keys
from feature_store.layout import claim_layout
from feature_store.pending import Pending
from feature_store.transaction import InvalidError, Label, parse
from services.consume import Handle, consume
from services.dead_letter import DeadLetters
from services.decision.record import Record, decode_record
from services.kafka import open_consumer, open_producer
from services.metrics import Metrics
from services.ops import ops_routes
from services.process import Process
from services.resources import open_redis, redis_problem, utc_now
from services.settings import Settings
from services.topics import DECISIONS, LABELS

log = logging.getLogger(__name__)
GROUP = "updater"


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a partition was followed: the offset that comes next, and the greatest sequence so far."""

    next_offset: int
    sequence: int


class DecisionsToMerchants:
    """Counts decisions for their merchants, and strikes them off the list of what is pending."""

    def __init__(self, state: EntityState, pending: Pending, dead_letters: DeadLetters, metrics: Metrics) -> None:
        self._state = state
        self._pending = pending
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._reached: dict[int, Reached] = {}

    async def __call__(self, partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        """Apply the records of one partition."""
        number = partition.partition
        decisions = [decision for record in records if (decision := await self._read(record))]
        if decisions:
            positions = [(decision.sequence, decision.transaction) for decision in decisions]
            new = await self._state.count(number, positions)
            self._metrics.repeats.labels("count").inc(len(positions) - new)
            sequences = [sequence for sequence, _ in positions]
            await self._note_gaps(number, records[0].offset, sequences)
            await self._pending.settle(number, sequences)
            self._reached[number] = Reached(records[-1].offset + 1, max(sequences))

    async def _read(self, record: ConsumerRecord) -> Record | None:
        try:
            return decode_record(record.value or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError):
            await self._dead_letters.send(record, cause="invalid", field="body", message="is not a decision record")
            return None

    async def _note_gaps(self, partition: int, offset: int, sequences: Sequence[int]) -> None:
        """Count the sequence numbers that the log should have brought and did not, and stop waiting for them."""
        reached = self._reached.get(partition)
        if reached is not None and reached.next_offset == offset:
            last, missing = reached.sequence, []
        else:  # the partition is new to this process: what is pending from before it will not come any more
            last = sequences[0]
            missing = await self._pending.settle_before(partition, last)
        for sequence in sequences:
            missing += range(last + 1, sequence)
            last = max(last, sequence)
        if missing:
            log.error("partition %d of topic %s lost %d decisions before %d", partition, DECISIONS, len(missing), last)
            self._metrics.sequence_gaps.inc(len(missing))
            await self._pending.settle(partition, missing)


class LabelsToEntities:
    """Applies labels, once per transaction."""

    def __init__(
        self, state: EntityState, dead_letters: DeadLetters, metrics: Metrics, now: Callable[[], datetime]
    ) -> None:
        self._state = state
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._now = now

    async def __call__(self, _: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        """Apply the records of one partition."""
        for record in records:
            try:
                applied = await self._state.label(parse(Label, record.value or b"", now=self._now()))
            except InvalidError as error:
                await self._dead_letters.send(record, cause="invalid", field=error.field, message=error.message)
            except LabelConflictError as error:
                await self._dead_letters.send(record, cause="conflict", field="is_fraud", message=str(error))
            else:
                self._metrics.labels.labels("applied" if applied else "repeated").inc()


@contextlib.asynccontextmanager
async def open_updater(settings: Settings) -> AsyncIterator[Process]:
    """Compose the process."""
    metrics = Metrics()
    keys = Keys(settings.partitions)
    async with (
        open_redis(settings, patience=settings.redis_patience_seconds) as client,
        open_producer(settings, patient=True) as producer,
        open_consumer(settings, GROUP, DECISIONS, LABELS) as consumer,
    ):
        await claim_layout(client, settings.partitions)
        state = RedisEntityState(client, keys)
        dead_letters = DeadLetters(producer, metrics)
        handlers: dict[str, Handle] = {
            DECISIONS: DecisionsToMerchants(state, Pending(client, keys), dead_letters, metrics),
            LABELS: LabelsToEntities(state, dead_letters, metrics, utc_now),
        }

        async def handle(partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
            await handlers[partition.topic](partition, records)

        async def work(stop: asyncio.Event) -> None:
            await consume(consumer, handle, stop, metrics)

        routes = ops_routes(metrics, partial(redis_problem, client))
        yield Process(Starlette(routes=routes), settings.ops_host, settings.ops_port, work)
