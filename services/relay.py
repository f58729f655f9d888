"""From the outbox to topic `decisions`: in sequence order, nothing skipped; a repetition is skipped by its readers.

Records of all partitions are collected for a moment and go out in one request. One request is on its way at a time, so
a failed one cannot be overtaken by the next. A record is trimmed from the outbox when the broker has acknowledged it,
and not before. The relay is also who opens the gates: it has Redis and the log at hand, and without it nobody would
publish what is decided behind them.
"""

import asyncio
import contextlib
import logging
import math
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial

import msgspec
from aiokafka import AIOKafkaProducer
from starlette.applications import Starlette

from feature_store.feature_set import FeatureSet
from feature_store.features import SHIPPED
from feature_store.gate import Gate, Gates
from feature_store.keys import Keys
from feature_store.layout import claim_layout
from feature_store.lease import Lease
from feature_store.outbox import Entry, Outbox
from feature_store.scripts import ClosedError
from services.decision.record import placed
from services.kafka import open_producer, open_reader
from services.metrics import Metrics
from services.ops import ops_routes
from services.process import Process, is_over
from services.recovery import Advance, Recoveries
from services.resources import open_redis, redis_problem, utc_now
from services.settings import Settings
from services.topics import DECISIONS

log = logging.getLogger(__name__)

MOST_RECORDS = 500
"""Of a partition, in one request."""
MOST_BYTES = 900_000
"""Of a partition, in one request: below what brokers take by default."""
LOOK_SECONDS = 0.01
"""Between two looks at the outboxes."""
COLLECT_SECONDS = 0.1
"""Longest wait for more records: a broker's work goes by requests, and merchant windows end minutes ago anyway."""
TELL_SECONDS = 5.0
"""Between two words of how far a recovery is."""
CHECK_SECONDS = 0.2
"""Between two looks whether the gates are as they were."""
LEASE_MILLISECONDS = 5_000
RECOVERY_LEASE = "recovery"
"""Key of the lease that a relay takes to bring state up to the log."""
OPENED_SECONDS = 0.1
"""Between two looks whether another relay has opened the gates."""


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
            ClosedError: a gate is no longer as it was.
            KafkaError, redis.exceptions.RedisError: the broker or Redis did not do its part.
        """
        held: list[int] = []
        taken_at = checked_at = -math.inf
        while not is_over(stop):
            now = time.monotonic()
            if now - taken_at > LEASE_MILLISECONDS / 3_000:
                held, taken_at = await self._take_leases(), now
            if now - checked_at > CHECK_SECONDS:
                await self._outbox.check()
                lengths = await self._outbox.lengths(range(len(self._gates)))
                self._metrics.outbox_length.set(sum(lengths.values()))
                checked_at = now
            if not await self.publish_once(held):
                await _pause(stop, LOOK_SECONDS)
        await asyncio.gather(*(self._leases[partition].release() for partition in held))

    async def publish_once(self, partitions: Sequence[int]) -> int:
        """Collect what is waiting, publish it in one request and trim it; give how many records that were."""
        waiting = await self._collect(partitions)
        if not waiting:
            return 0
        entries = await self._outbox.read(waiting, MOST_RECORDS)
        epochs = {partition: self._gates[partition].epoch for partition in entries}
        sent = await publish(self._producer, epochs, entries)
        await self._outbox.trim(sent)
        published = sum(entry.sequence <= sent[p] for p, several in entries.items() for entry in several)
        self._metrics.published.inc(published)
        return published

    async def _collect(self, partitions: Sequence[int]) -> list[int]:
        """Wait until no more records come, or `COLLECT_SECONDS` are over; give the partitions that have some."""
        if not partitions:
            return []
        before, give_up = 0, time.monotonic() + COLLECT_SECONDS
        while True:
            lengths = await self._outbox.lengths(partitions)
            count = sum(lengths.values())
            if count == before or time.monotonic() > give_up:
                return [partition for partition, length in lengths.items() if length]
            before = count
            await asyncio.sleep(LOOK_SECONDS)

    async def _take_leases(self) -> list[int]:
        taken = await asyncio.gather(*(lease.take() for lease in self._leases))
        return [partition for partition, ours in enumerate(taken) if ours]


async def publish(
    producer: AIOKafkaProducer, epochs: Mapping[int, int], entries: Mapping[int, Sequence[Entry]]
) -> dict[int, int]:
    """Send a batch of each partition, as many entries as fit.

    Returns:
        The last sequence sent of each partition, when the broker has them all.
    """
    sent, acknowledgements = {}, []
    for partition, several in entries.items():
        batch = producer.create_batch()
        for entry in several:
            value = placed(entry.record, epochs[partition], partition, entry.sequence)
            if batch.append(key=_card(entry.record), value=value, timestamp=None) is None:
                break
            sent[partition] = entry.sequence
        batch.close()
        acknowledgements.append(await producer.send_batch(batch, DECISIONS, partition=partition))
    await asyncio.gather(*acknowledgements)
    return sent


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


async def opened(recoveries: Recoveries, producer: AIOKafkaProducer, owner: str, stop: asyncio.Event) -> list[Gate]:
    """Give the gates when they stand open; if they are closed and no other relay is at it, by a recovery.

    Gives none if it was told to stop before; a recovery that has begun is finished.
    """
    gates = Gates(recoveries.client, recoveries.keys)
    lease = Lease(recoveries.client, RECOVERY_LEASE, owner=owner, milliseconds=LEASE_MILLISECONDS)
    while not is_over(stop):
        with contextlib.suppress(ClosedError):
            return await gates.all_open()
        if await lease.take():
            log.info("state may lack what the log has: recovering")
            started = time.monotonic()
            async with lease.kept(), open_reader(recoveries.settings) as reader:
                recovery = await recoveries.begin(reader)
                records = await recovery.run(producer, utc_now(), _telling())
            log.info("recovered: %d records in %.2f s", records, time.monotonic() - started)
        await _pause(stop, OPENED_SECONDS)
    return []


def _telling() -> Advance:
    """Give what says now and then how far a recovery is."""
    told = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            log.info("recovering: %d of %d records", done, total)

    return tell


@contextlib.asynccontextmanager
async def open_relay(settings: Settings, features: FeatureSet = SHIPPED) -> AsyncIterator[Process]:
    """Compose the process."""
    metrics = Metrics()
    keys = Keys(settings.partitions)
    owner = uuid.uuid4().hex
    async with (
        open_redis(settings, patience=settings.redis_patience_seconds) as client,
        open_producer(settings, patient=True, most_bytes=MOST_BYTES) as producer,
    ):
        await claim_layout(client, features, settings.partitions)

        async def work(stop: asyncio.Event) -> None:
            recover = Recoveries(settings, client, keys, features)
            gates = await opened(recover, producer, owner, stop)
            leases = [
                Lease(client, keys.relay_lease(partition), owner=owner, milliseconds=LEASE_MILLISECONDS)
                for partition in range(keys.partitions)
            ]
            await Relay(Outbox(client, keys, gates), gates, leases, producer, metrics).run(stop)

        routes = ops_routes(metrics, partial(redis_problem, client))
        yield Process(Starlette(routes=routes), settings.ops_host, settings.ops_port, work)
