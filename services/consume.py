"""The consumer loop of worker and updater: partitions side by side, each in order, offsets only after the effect.

An error ends the process; the records come again after the restart, and their effects are idempotent.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError

from services.metrics import Metrics
from services.process import is_over

log = logging.getLogger(__name__)

Handle = Callable[[TopicPartition, Sequence[ConsumerRecord]], Coroutine[None, None, None]]
"""Gives every record of one partition its effect, in order, before it returns."""

MOST_RECORDS = 500
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
        ExceptionGroup: what `handle` raised.
    """
    lags: dict[TopicPartition, int] = {}
    while not is_over(stop):
        fetched = await consumer.getmany(timeout_ms=200, max_records=MOST_RECORDS)
        at_its_place = {partition for partition in consumer.assignment() if ready(partition)}
        batches = {partition: records for partition, records in fetched.items() if partition in at_its_place}
        async with asyncio.TaskGroup() as group:
            for partition, records in batches.items():
                group.create_task(handle(partition, records))
        offsets = {partition: records[-1].offset + 1 for partition, records in batches.items()}
        await _commit(consumer, offsets)
        lags = _lags(consumer, lags, offsets)
        metrics.consumer_lag.clear()
        for partition, behind in lags.items():
            metrics.consumer_lag.labels(partition.topic, partition.partition).set(behind)


async def _commit(consumer: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
    if not offsets:
        return
    try:
        await asyncio.wait_for(consumer.commit(offsets), COMMIT_SECONDS)
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
