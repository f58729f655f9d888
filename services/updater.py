"""From the log to state: decisions to their merchants, labels to card and merchant, each with one effect."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from functools import partial

import msgspec
from aiokafka import ConsumerRecord, TopicPartition
from starlette.applications import Starlette

from feature_store.entity_state import EntityState, LabelConflictError, RedisEntityState
from feature_store.gate import Gates
from feature_store.keys import Keys
from feature_store.layout import claim_layout
from feature_store.pending import Pending
from feature_store.progress import Progress, Reached
from feature_store.transaction import InvalidError
from services.consume import Handle, consume
from services.dead_letter import DeadLetters
from services.decision.record import Record
from services.following import Following, Place
from services.kafka import open_consumer, open_producer
from services.log import label_of
from services.metrics import Metrics
from services.ops import ops_routes
from services.process import Process
from services.resources import open_redis, redis_problem, when_open
from services.settings import Settings
from services.topics import DECISIONS, LABELS

log = logging.getLogger(__name__)
GROUP = "updater"


class DecisionsToMerchants:
    """Counts decisions for their merchants, and strikes them off the list of what is pending."""

    def __init__(
        self,
        state: EntityState,
        pending: Pending,
        following: Following,
        dead_letters: DeadLetters,
        metrics: Metrics,
    ) -> None:
        self._state = state
        self._pending = pending
        self._following = following
        self._dead_letters = dead_letters
        self._metrics = metrics

    async def __call__(self, partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        """Apply the records of one partition."""
        number = partition.partition
        place = self._following.at(partition, records[0].offset)
        decisions = [decision for record in records if (decision := await self._read(place, record))]
        last = place.reached.sequence
        if decisions:
            positions = [(decision.sequence, decision.transaction) for decision in decisions]
            new = await self._state.count(number, positions)
            self._metrics.repeats.labels("count").inc(len(positions) - new)
            sequences = [sequence for sequence, _ in positions]
            await self._pending.settle(number, [*sequences, *self._missing(number, last, sequences)])
            last = max(last, *sequences)
        await self._following.reached(partition, place, Reached(records[-1].offset + 1, last))

    async def _read(self, place: Place, record: ConsumerRecord) -> Record | None:
        try:
            return place.epochs.decision(record)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            await self._dead_letters.send(record, cause="invalid", field="body", message="is not a decision record")
            return None

    def _missing(self, partition: int, last: int, sequences: Sequence[int]) -> list[int]:
        """Give the sequence numbers that the log should have brought and did not; nobody waits for them any more."""
        missing: list[int] = []
        for sequence in sequences:
            missing += range(last + 1, sequence)
            last = max(last, sequence)
        if missing:
            log.error("partition %d of topic %s lost %d decisions before %d", partition, DECISIONS, len(missing), last)
            self._metrics.sequence_gaps.inc(len(missing))
        return missing


class LabelsToEntities:
    """Applies labels, once per transaction."""

    def __init__(self, state: EntityState, following: Following, dead_letters: DeadLetters, metrics: Metrics) -> None:
        self._state = state
        self._following = following
        self._dead_letters = dead_letters
        self._metrics = metrics

    async def __call__(self, partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        """Apply the records of one partition."""
        place = self._following.at(partition, records[0].offset)
        for record in records:
            try:
                applied = await self._state.label(label_of(record), (record.partition, record.offset))
            except InvalidError as error:
                await self._dead_letters.send(record, cause="invalid", field=error.field, message=error.message)
            except LabelConflictError as error:
                await self._dead_letters.send(record, cause="conflict", field="is_fraud", message=str(error))
            else:
                self._metrics.labels.labels("applied" if applied else "repeated").inc()
        await self._following.reached(partition, place, Reached(records[-1].offset + 1))


@contextlib.asynccontextmanager
async def open_updater(settings: Settings) -> AsyncIterator[Process]:
    """Compose the process."""
    metrics = Metrics()
    keys = Keys(settings.partitions)
    async with (
        open_redis(settings, patience=settings.redis_patience_seconds) as client,
        open_producer(settings, patient=True) as producer,
        open_consumer(settings, GROUP) as consumer,
    ):
        await claim_layout(client, settings.partitions)
        dead_letters = DeadLetters(producer, metrics)

        async def work(stop: asyncio.Event) -> None:
            gates = await when_open(Gates(client, keys), stop)
            state = RedisEntityState(client, keys, gates)
            following = Following(consumer, Progress(client, keys, gates), gates)
            handlers: dict[str, Handle] = {
                DECISIONS: DecisionsToMerchants(state, Pending(client, keys), following, dead_letters, metrics),
                LABELS: LabelsToEntities(state, following, dead_letters, metrics),
            }

            async def handle(partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
                await handlers[partition.topic](partition, records)

            if not stop.is_set():
                consumer.subscribe([DECISIONS, LABELS], listener=following)
                await consume(consumer, handle, stop, metrics, following.knows)
                await following.note_all()

        routes = ops_routes(metrics, partial(redis_problem, client))
        yield Process(Starlette(routes=routes), settings.ops_host, settings.ops_port, work)
