"""From the outbox to topic `decisions`: in sequence order, nothing skipped; a repetition is skipped by its readers.

One batch of a partition is on its way at a time, so a failed one cannot be overtaken by the next. It is trimmed from
the outbox when the broker has acknowledged it, and not before. The relay is also who opens the gates: it has Redis and
the log at hand, and without it nobody would publish what is decided behind them.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from functools import partial

import msgspec
from aiokafka import AIOKafkaProducer
from starlette.applications import Starlette

from feature_store.gate import Gate, Gates
from feature_store.keys import Keys
from feature_store.layout import claim_layout
from feature_store.lease import Lease
from feature_store.outbox import Entry, Outbox
from feature_store.redis_client import Client
from feature_store.scripts import ClosedError
from services.decision.record import placed
from services.kafka import open_producer, open_reader
from services.metrics import Metrics
from services.ops import ops_routes
from services.process import Process, is_over
from services.recovery import Recovery
from services.resources import open_redis, redis_problem, utc_now
from services.settings import Settings
from services.topics import DECISIONS

log = logging.getLogger(__name__)

MOST_RECORDS = 500
WAIT_MILLISECONDS = 500
"""Longest wait for a record before the lease is looked at again."""
LEASE_MILLISECONDS = 5_000
RECOVERY_LEASE = "recovery"
"""Key of the lease that a relay takes to bring state up to the log."""
OPENED_SECONDS = 0.1
"""Between two looks whether another relay has opened the gates."""
MEASURE_SECONDS = 1.0


class Relay:
    """Publishes the partitions it holds the lease of, behind gates that stand open."""

    def __init__(
        self,
        outbox: Outbox,
        gates: Sequence[Gate],
        leases: Sequence[Lease],
        producer: AIOKafkaProducer,
        metrics: Metrics,
    ) -> None:
        self._outbox = outbox
        self._gates = gates
        self._leases = leases
        self._producer = producer
        self._metrics = metrics

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop`. The first error ends all; after a restart publishing goes on from the outbox.

        Raises:
            ExceptionGroup: what ended it; a ClosedError among them where a gate is no longer as it was.
        """
        async with asyncio.TaskGroup() as group:
            for partition in range(len(self._gates)):
                group.create_task(self._publish(partition, stop))
            group.create_task(self._measure(stop))

    async def _publish(self, partition: int, stop: asyncio.Event) -> None:
        while not is_over(stop):
            if not await self._leases[partition].take():
                await _pause(stop, LEASE_MILLISECONDS / 1_000 / 5)
                continue
            entries = await self._outbox.read(partition, MOST_RECORDS)
            if not entries:
                await self._outbox.wait(partition, WAIT_MILLISECONDS)
            while entries:
                sent = await self._send(partition, entries)
                await self._outbox.trim(partition, entries[sent - 1].sequence)
                self._metrics.published.inc(sent)
                entries = entries[sent:]
        await self._leases[partition].release()

    async def _send(self, partition: int, entries: Sequence[Entry]) -> int:
        return await publish(self._producer, self._gates[partition].epoch, partition, entries)

    async def _measure(self, stop: asyncio.Event) -> None:
        while not is_over(stop):
            self._metrics.outbox_length.set(sum(await self._outbox.lengths()))
            await _pause(stop, MEASURE_SECONDS)


async def publish(producer: AIOKafkaProducer, epoch: int, partition: int, entries: Sequence[Entry]) -> int:
    """Send as many entries as fit into one batch; returns how many, when the broker has them."""
    batch = producer.create_batch()
    for entry in entries:
        value = placed(entry.record, epoch, partition, entry.sequence)
        if batch.append(key=_card(entry.record), value=value, timestamp=None) is None:
            break
    count = int(batch.record_count())
    batch.close()
    await (await producer.send_batch(batch, DECISIONS, partition=partition))
    return count


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


async def opened(
    settings: Settings, client: Client, keys: Keys, producer: AIOKafkaProducer, owner: str, stop: asyncio.Event
) -> list[Gate]:
    """Give the gates when they stand open; if they are closed and no other relay is at it, by a recovery.

    Gives none if it was told to stop before; a recovery that has begun is finished.
    """
    gates = Gates(client, keys)
    lease = Lease(client, RECOVERY_LEASE, owner=owner, milliseconds=LEASE_MILLISECONDS)
    while not is_over(stop):
        with contextlib.suppress(ClosedError):
            return await gates.all_open()
        if await lease.take():
            log.info("state may lack what the log has: recovering")
            async with lease.kept(), open_reader(settings) as reader:
                recovery = await Recovery.begin(client, keys, reader, keep=timedelta(days=settings.decided_days))
                await recovery.run(producer, utc_now(), lambda _done, _total: None)
        await _pause(stop, OPENED_SECONDS)
    return []


@contextlib.asynccontextmanager
async def open_relay(settings: Settings) -> AsyncIterator[Process]:
    """Compose the process."""
    metrics = Metrics()
    keys = Keys(settings.partitions)
    owner = uuid.uuid4().hex
    async with (
        open_redis(settings, patience=settings.redis_patience_seconds) as client,
        open_producer(settings, patient=True) as producer,
    ):
        await claim_layout(client, settings.partitions)

        async def work(stop: asyncio.Event) -> None:
            gates = await opened(settings, client, keys, producer, owner, stop)
            leases = [
                Lease(client, keys.relay_lease(partition), owner=owner, milliseconds=LEASE_MILLISECONDS)
                for partition in range(keys.partitions)
            ]
            await Relay(Outbox(client, keys, gates), gates, leases, producer, metrics).run(stop)

        routes = ops_routes(metrics, partial(redis_problem, client))
        yield Process(Starlette(routes=routes), settings.ops_host, settings.ops_port, work)
