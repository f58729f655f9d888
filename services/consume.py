"""The consumer loop of worker and updater: what was fetched is handed over whole, offsets only after the effect.

An error ends the process; the records come again after the restart, and their effects are idempotent.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError

from services.metrics import Metrics
from services.process import is_over

log = logging.getLogger(__name__)

Batches = Mapping[TopicPartition, Sequence[ConsumerRecord]]
"""What was fetched: of each partition its next records, in order."""
Handle = Callable[[Batches], Coroutine[None, None, None]]
"""Gives every record its effect before it returns."""

MOST_RECORDS = 2_000
WAIT_MILLISECONDS = 200
"""Longest wait for records before the loop looks whether it is to end."""
COMMIT_EVERY_SECONDS = 1.0
"""A broker's work goes by requests. What was not committed comes again after a crash, without effect."""
IDLE_MILLISECONDS = 20
"""After so long without a record offsets are committed at once: others wait for them to move."""
COMMIT_SECONDS = 10.0
"""aiokafka tries a commit for ever; after this long the process ends, and the records come again."""


async def consume(
    consumer: AIOKafkaConsumer,
    handle: Handle,
    stop: asyncio.Event,
    metrics: Metrics,
    ready: Callable[[TopicPartition], bool] = lambda _: True,
) -> None:
    """Hand records to `handle` until `stop`; commit what was handled.

    Args:
        consumer: a member of a group.
        handle: gives the records their effect.
        stop: ends it, after what was begun.
        metrics: the consumer lag.
        ready: False for an assigned partition whose reader has yet to say where to begin; what came until then comes
            again. What it raises ends the loop.

    Raises:
        TimeoutError: the broker did not take the offsets in time.
        Exception: what `handle` raised.
    """
    lags: dict[TopicPartition, int] = {}
    uncommitted: dict[TopicPartition, int] = {}
    committed_at = time.monotonic()
    while not is_over(stop):
        patience = IDLE_MILLISECONDS if uncommitted else WAIT_MILLISECONDS
        fetched = await consumer.getmany(timeout_ms=patience, max_records=MOST_RECORDS)
        at_its_place = {partition for partition in consumer.assignment() if ready(partition)}
        batches = {partition: records for partition, records in fetched.items() if partition in at_its_place}
        if batches:
            await handle(batches)
            offsets = {partition: records[-1].offset + 1 for partition, records in batches.items()}
            uncommitted |= offsets
            lags = _lags(consumer, lags, offsets)
            _show(metrics, lags)
        if uncommitted and (not batches or time.monotonic() - committed_at > COMMIT_EVERY_SECONDS):
            await _commit(consumer, uncommitted)
            uncommitted, committed_at = {}, time.monotonic()
    await _commit(consumer, uncommitted)


def _show(metrics: Metrics, lags: dict[TopicPartition, int]) -> None:
    metrics.consumer_lag.clear()
    for partition, behind in lags.items():
        metrics.consumer_lag.labels(partition.topic, partition.partition).set(behind)


async def _commit(consumer: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
    ours = {partition: offset for partition, offset in offsets.items() if partition in consumer.assignment()}
    if not ours:
        return
    try:
        await asyncio.wait_for(consumer.commit(ours), COMMIT_SECONDS)
    except (CommitFailedError, IllegalStateError) as error:
        # A partition moved to another member meanwhile. It gets these records again, which has no effect.
        log.warning("offsets not committed, another member goes on from the last ones: %s", error)


def _lags(
    consumer: AIOKafkaConsumer, before: dict[TopicPartition, int], offsets: dict[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """Give the records behind of every partition that is still ours, renewed where some were handled."""
    ours = consumer.assignment()
    now = {
        partition: (consumer.highwater(partition) or offset) - offset
        for partition, offset in offsets.items()
        if partition in ours
    }
    return {partition: behind for partition, behind in before.items() if partition in ours} | now
