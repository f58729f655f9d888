"""The Kafka door: topic `transactions` into the same `decide` as the HTTP door."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from functools import partial

from aiokafka import ConsumerRecord, TopicPartition
from starlette.applications import Starlette

from feature_store.transaction import InvalidError, Transaction, parse
from services.consume import consume
from services.dead_letter import DeadLetters
from services.decision.decide import ConflictError, Decide
from services.kafka import open_consumer, open_producer
from services.metrics import Metrics
from services.ops import ops_routes
from services.process import Process
from services.resources import closed_problem, open_deciding, utc_now, when_open
from services.settings import Settings
from services.topics import TRANSACTIONS

GROUP = "worker"


class TransactionDoor:
    """Gives each record its decision, or its place in the dead-letter topic."""

    def __init__(
        self, decide: Decide, dead_letters: DeadLetters, metrics: Metrics, now: Callable[[], datetime]
    ) -> None:
        self._decide = decide
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._now = now

    async def __call__(self, _: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        """Decide the records of one partition in their order."""
        for record in records:
            outcome = await self._one(record)
            self._metrics.requests.labels("kafka", outcome).inc()

    async def _one(self, record: ConsumerRecord) -> str:
        set_aside = partial(self._dead_letters.send, record)
        with self._metrics.stage_seconds.labels("total").time():
            try:
                transaction = parse(Transaction, record.value or b"", now=self._now())
                outcome = await self._decide(transaction)
            except InvalidError as error:
                await set_aside(cause="invalid", field=error.field, message=error.message)
                return "invalid"
            except ConflictError as error:
                await set_aside(cause="conflict", field="transaction_id", message=str(error))
                return "conflict"
        return "repeated" if outcome.repeated else "decided"


@contextlib.asynccontextmanager
async def open_worker(settings: Settings) -> AsyncIterator[Process]:
    """Compose the process."""
    metrics = Metrics()
    async with (
        open_deciding(settings, metrics, patience=settings.redis_patience_seconds) as deciding,
        open_producer(settings, patient=True) as producer,
        open_consumer(settings, GROUP, TRANSACTIONS) as consumer,
    ):
        door = TransactionDoor(deciding.decide, DeadLetters(producer, metrics), metrics, utc_now)

        async def work(stop: asyncio.Event) -> None:
            await when_open(deciding.gates, stop)
            await consume(consumer, door, stop, metrics)

        routes = ops_routes(metrics, partial(closed_problem, deciding.gates))
        yield Process(Starlette(routes=routes), settings.ops_host, settings.ops_port, work)
