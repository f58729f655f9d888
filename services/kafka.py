"""All policy of talking to Kafka: nothing acknowledged is lost, nothing waits for ever."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

from services.settings import Settings

PAUSE_SECONDS = 0.5
"""Between two attempts to reach a broker that is not there yet."""

READER_BYTES = 8 << 20
"""Of a partition, in one answer to a reader of the whole log."""


@contextlib.asynccontextmanager
async def open_producer(
    settings: Settings, *, patient: bool = False, most_bytes: int = 1 << 14
) -> AsyncIterator[AIOKafkaProducer]:
    """Open an idempotent producer: acknowledged by all replicas, in order, no duplicates from its own retries.

    Args:
        settings: where the broker is, and the longest wait for it.
        patient: wait for a broker that is not there yet. For a process that can do nothing without it: ending and
            starting again at once would take the processor from the broker that is starting beside it.
        most_bytes: of one batch.
    """
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap,
        enable_idempotence=True,
        acks="all",
        max_batch_size=most_bytes,
        request_timeout_ms=int(settings.kafka_timeout_seconds * 1_000),
    )
    try:
        if patient:
            await when_there(producer.start, settings.kafka_timeout_seconds)
        else:
            await asyncio.wait_for(producer.start(), settings.kafka_timeout_seconds)
        yield producer
    finally:
        await _stop(producer, settings)


@contextlib.asynccontextmanager
async def open_consumer(settings: Settings, group: str, *topics: str) -> AsyncIterator[AIOKafkaConsumer]:
    """Open a member of a consumer group. It starts at the beginning, and only what is processed is committed."""
    consumer = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=settings.kafka_fetch_wait_ms,
        max_poll_interval_ms=60_000,
    )
    try:
        await asyncio.wait_for(consumer.start(), settings.kafka_timeout_seconds)
        yield consumer
    finally:
        await _stop(consumer, settings)


@contextlib.asynccontextmanager
async def open_reader(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """Open a reader without a group: it is told what to read, and leaves no trace.

    A missing or out-of-range offset starts at the beginning of the partition.
    """
    reader = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=settings.kafka_fetch_wait_ms,
        max_partition_fetch_bytes=READER_BYTES,
    )
    try:
        await when_there(reader.start, settings.kafka_timeout_seconds)
        yield reader
    finally:
        await _stop(reader, settings)


async def when_there(start: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Call `start`, and again while no broker answers.

    Raises:
        TimeoutError: not started within `seconds`.
    """
    try:
        async with asyncio.timeout(seconds):
            while True:
                with contextlib.suppress(KafkaConnectionError):
                    await start()
                    return
                await asyncio.sleep(PAUSE_SECONDS)
    except TimeoutError:
        raise TimeoutError(f"no Kafka broker answered within {seconds:g} s") from None


async def _stop(client: AIOKafkaProducer | AIOKafkaConsumer, settings: Settings) -> None:
    """Stop without waiting for ever, which aiokafka does while the broker is away."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(client.stop(), settings.kafka_timeout_seconds)
