"""From the outbox to topic `decisions`: in sequence order, nothing skipped; a repetition is skipped by its readers.

One batch of a partition is on its way at a time, so a failed one cannot be overtaken by the next. It is trimmed from
the outbox when the broker has acknowledged it, and not before.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
from functools import partial

import msgspec
from aiokafka import AIOKafkaProducer
from starlette.applications import Starlette

from feature_store.keys import Keys
from feature_store.outbox import Entry, Outbox
from services.decision.record import placed
from services.kafka import open_producer
from services.metrics import Metrics
from services.ops import ops_routes
from services.process import Process
from services.resources import open_redis, redis_problem
from services.settings import Settings
from services.topics import DECISIONS

MOST_RECORDS = 500
WAIT_MILLISECONDS = 500
"""Longest wait for a record before the lease is looked at again."""
LEASE_MILLISECONDS = 5_000
MEASURE_SECONDS = 1.0


class Relay:
    """Publishes the partitions it holds the lease of."""

    def __init__(self, outbox: Outbox, producer: AIOKafkaProducer, partitions: int, metrics: Metrics) -> None:
        self._outbox = outbox
        self._producer = producer
        self._partitions = partitions
        self._metrics = metrics

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop`. The first error ends all; after a restart publishing goes on from the outbox."""
        async with asyncio.TaskGroup() as group:
            for partition in range(self._partitions):
                group.create_task(self._publish(partition, stop))
            group.create_task(self._measure(stop))

    async def _publish(self, partition: int, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if not await self._outbox.lease(partition):
                await _pause(stop, LEASE_MILLISECONDS / 1_000 / 5)
                continue
            entries = await self._outbox.read(partition, MOST_RECORDS, wait_milliseconds=WAIT_MILLISECONDS)
            while entries:
                sent = await self._send(partition, entries)
                await self._outbox.trim(partition, entries[sent - 1].sequence)
                self._metrics.published.inc(sent)
                entries = entries[sent:]
        await self._outbox.release(partition)

    async def _send(self, partition: int, entries: Sequence[Entry]) -> int:
        """Send as many entries as fit into one batch; returns how many, when the broker has them."""
        batch = self._producer.create_batch()
        for entry in entries:
            card = _card(entry.record)
            if batch.append(key=card, value=placed(entry.record, partition, entry.sequence), timestamp=None) is None:
                break
        count = int(batch.record_count())
        batch.close()
        await (await self._producer.send_batch(batch, DECISIONS, partition=partition))
        return count

    async def _measure(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._metrics.outbox_length.set(sum(await self._outbox.lengths()))
            await _pause(stop, MEASURE_SECONDS)


class _Transaction(msgspec.Struct):
    card_id: str


class _Keyed(msgspec.Struct):
    transaction: _Transaction


_keyed = msgspec.json.Decoder(_Keyed)


def _card(record: bytes) -> bytes:
    return _keyed.decode(record).transaction.card_id.encode()


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


@contextlib.asynccontextmanager
async def open_relay(settings: Settings) -> AsyncIterator[Process]:
    """Compose the process."""
    metrics = Metrics()
    async with (
        open_redis(settings, patience=settings.redis_patience_seconds) as client,
        open_producer(settings, patient=True) as producer,
    ):
        outbox = Outbox(
            client, Keys(settings.partitions), owner=uuid.uuid4().hex, lease_milliseconds=LEASE_MILLISECONDS
        )
        relay = Relay(outbox, producer, settings.partitions, metrics)
        routes = ops_routes(metrics, partial(redis_problem, client))
        yield Process(Starlette(routes=routes), settings.ops_host, settings.ops_port, relay.run)
