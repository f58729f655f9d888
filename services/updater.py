"""From the log to state: decisions to their merchants, labels to card and merchant, each with one effect."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial

import msgspec
from aiokafka import ConsumerRecord, TopicPartition
from starlette.applications import Starlette

from feature_store.entity_writer import EntityWriter, LoggedDecision, LoggedLabel, RedisEntityWriter
from feature_store.feature_set import FeatureSet
from feature_store.features import SHIPPED
from feature_store.gate import Gates
from feature_store.keys import Keys
from feature_store.layout import claim_layout
from feature_store.pending import Pending
from feature_store.progress import Progress, Reached
from feature_store.round_trips import RoundTrips
from feature_store.transaction import InvalidError
from services.consume import Batches, Handle, consume
from services.dead_letter import DeadLetters
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


class Decisions:
    """Counts decisions for the entities that follow the log, and strikes them off the list of what is pending."""

    def __init__(
        self, writer: EntityWriter, pending: Pending, following: Following, dead_letters: DeadLetters, metrics: Metrics
    ) -> None:
        self._writer = writer
        self._pending = pending
        self._following = following
        self._dead_letters = dead_letters
        self._metrics = metrics

    async def __call__(self, batches: Batches) -> None:
        """Apply the records of all partitions, an entity at a time."""
        places = {each: self._following.at(each, records[0].offset) for each, records in batches.items()}
        decisions = {each: await self._read(places[each], records) for each, records in batches.items()}
        logged = [decision for several in decisions.values() for decision in several]
        if logged:
            new = await self._writer.count(logged)
            self._metrics.repeats.labels("count").inc(len(logged) - new)
        settled: dict[int, Sequence[int]] = {}
        reached = {}
        for each, records in batches.items():
            number, last = each.partition, places[each].reached.sequence
            sequences = [decision.sequence for decision in decisions[each]]
            if sequences:
                settled[number] = [*sequences, *self._missing(number, last, sequences)]
            reached[each] = Reached(records[-1].offset + 1, max([last, *sequences]))
        await self._pending.settle(settled)
        for each, place in places.items():
            await self._following.reached(each, place, reached[each])

    async def _read(self, place: Place, records: Sequence[ConsumerRecord]) -> list[LoggedDecision]:
        """Give the decisions among the records that count."""
        found = []
        for record in records:
            try:
                decision = place.epochs.decision(record)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                letter = {"cause": "invalid", "field": "body", "message": "is not a decision record"}
                await self._dead_letters.send(record, **letter)
                continue
            if decision is not None:
                found.append(LoggedDecision(record.partition, decision.sequence, decision.transaction))
        return found

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


class Labels:
    """Applies labels, once per transaction."""

    def __init__(self, writer: EntityWriter, following: Following, dead_letters: DeadLetters, metrics: Metrics) -> None:
        self._writer = writer
        self._following = following
        self._dead_letters = dead_letters
        self._metrics = metrics

    async def __call__(self, batches: Batches) -> None:
        """Apply the records of all partitions, an entity at a time."""
        places = {each: self._following.at(each, records[0].offset) for each, records in batches.items()}
        valid: list[tuple[ConsumerRecord, LoggedLabel]] = []
        for record in (record for records in batches.values() for record in records):
            try:
                valid.append((record, LoggedLabel(record.partition, record.offset, label_of(record))))
            except InvalidError as error:
                await self._dead_letters.send(record, cause="invalid", field=error.field, message=error.message)
        outcomes = await self._writer.label([label for _, label in valid])
        for (record, label), applied in zip(valid, outcomes, strict=True):
            if applied is None:
                message = f"another label stands for transaction {label.label.transaction_id}"
                await self._dead_letters.send(record, cause="conflict", field="is_fraud", message=message)
            else:
                self._metrics.labels.labels("applied" if applied else "repeated").inc()
        for each, place in places.items():
            await self._following.reached(each, place, Reached(batches[each][-1].offset + 1))


class Updater:
    """Both topics, each in its own way."""

    def __init__(
        self, handlers: Mapping[str, Handle], is_ours: Callable[[TopicPartition], bool] = lambda _: True
    ) -> None:
        self._handlers = handlers
        self._is_ours = is_ours

    async def __call__(self, batches: Batches) -> None:
        """Apply what was fetched: first decisions, then labels. What moved to another member is left to it."""
        for topic, handle in self._handlers.items():
            mine = {each: records for each, records in batches.items() if each.topic == topic and self._is_ours(each)}
            if mine:
                await handle(mine)


@contextlib.asynccontextmanager
async def open_updater(settings: Settings, features: FeatureSet = SHIPPED) -> AsyncIterator[Process]:
    """Compose the process."""
    metrics = Metrics()
    keys = Keys(settings.partitions)
    async with (
        open_redis(settings, patience=settings.redis_patience_seconds) as client,
        open_producer(settings, patient=True) as producer,
        open_consumer(settings, GROUP) as consumer,
    ):
        await claim_layout(client, features, settings.partitions)
        dead_letters = DeadLetters(producer, metrics)

        async def work(stop: asyncio.Event) -> None:
            gates = await when_open(Gates(client, keys), stop)
            writer = RedisEntityWriter(RoundTrips(client), keys, features, gates)
            following = Following(consumer, Progress(client, keys, gates), gates)
            updater = Updater(
                {
                    DECISIONS: Decisions(writer, Pending(client, keys), following, dead_letters, metrics),
                    LABELS: Labels(writer, following, dead_letters, metrics),
                },
                following.knows,
            )
            if not stop.is_set():
                consumer.subscribe([DECISIONS, LABELS], listener=following)
                await consume(consumer, updater, stop, metrics, following.knows)
                await following.note_all()

        routes = ops_routes(metrics, partial(redis_problem, client))
        yield Process(Starlette(routes=routes), settings.ops_host, settings.ops_port, work)
