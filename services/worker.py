"""The Kafka door: topic `transactions` into the same `decide` as the HTTP door."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from functools import partial
from time import perf_counter

from aiokafka import ConsumerRecord
from starlette.applications import Starlette

from feature_store.transaction import EARLIEST, InvalidError, Transaction, parse
from services.consume import Batches, consume
from services.dead_letter import DeadLetters
from services.decision.decide import ConflictError, ContendedError, Decide, Outcome
from services.kafka import open_consumer, open_producer
from services.log import sent_at
from services.metrics import Metrics
from services.ops import ops_routes
from services.process import Process
from services.resources import closed_problem, oldest_accepted, open_deciding, utc_now, when_open
from services.settings import Settings
from services.topics import TRANSACTIONS

GROUP = "worker"


MOST_AT_ONCE = 64
"""Transactions of a partition that are decided side by side. Those of one card take turns, in the order they came."""


class TransactionDoor:
    """Gives each record its decision, or its place in the dead-letter topic."""

    def __init__(
        self,
        decide: Decide,
        dead_letters: DeadLetters,
        metrics: Metrics,
        now: Callable[[], datetime],
        oldest: Callable[[datetime], datetime] = lambda _: EARLIEST,
    ) -> None:
        self._decide = decide
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._now = now
        self._oldest = oldest

    async def __call__(self, batches: Batches) -> None:
        """Decide the records, each card's in their order."""
        async with asyncio.TaskGroup() as group:
            for records in batches.values():
                group.create_task(self._partition(records))

    async def _partition(self, records: Sequence[ConsumerRecord]) -> None:
        for first in range(0, len(records), MOST_AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for record in records[first : first + MOST_AT_ONCE]:
                    group.create_task(self._one(record))

    async def _one(self, record: ConsumerRecord) -> None:
        started = perf_counter()
        outcome = await self._outcome(record)
        self._metrics.observe_stages({"total": perf_counter() - started})
        self._metrics.count_request("kafka", outcome)

    async def _outcome(self, record: ConsumerRecord) -> str:
        set_aside = partial(self._dead_letters.send, record)
        try:
            oldest = self._oldest(sent_at(record) or self._now())  # the same for a record that comes again
            transaction = parse(Transaction, record.value or b"", now=self._now(), oldest=oldest)
            outcome = await self._until_uncontended(transaction)
        except InvalidError as error:
            await set_aside(cause="invalid", field=error.field, message=error.message)
            return "invalid"
        except ConflictError as error:
            await set_aside(cause="conflict", field="transaction_id", message=str(error))
            return "conflict"
        return "repeated" if outcome.repeated else "decided"

    async def _until_uncontended(self, transaction: Transaction) -> Outcome:
        """Decide, again and again while other processes are faster: here nobody waits for an answer."""
        while True:
            with contextlib.suppress(ContendedError):
                return await self._decide(transaction)
            self._metrics.count_request("kafka", "contended")


@contextlib.asynccontextmanager
async def open_worker(settings: Settings) -> AsyncIterator[Process]:
    """Compose the process."""
    metrics = Metrics()
    async with (
        open_deciding(settings, metrics, patience=settings.redis_patience_seconds) as deciding,
        open_producer(settings, patient=True) as producer,
        open_consumer(settings, GROUP, TRANSACTIONS) as consumer,
    ):
        oldest = partial(oldest_accepted, settings)
        door = TransactionDoor(deciding.decide, DeadLetters(producer, metrics), metrics, utc_now, oldest)

        async def work(stop: asyncio.Event) -> None:
            await when_open(deciding.gates, stop)
            await consume(consumer, door, stop, metrics)

        routes = ops_routes(metrics, partial(closed_problem, deciding.gates))
        yield Process(Starlette(routes=routes), settings.ops_host, settings.ops_port, work)
