"""The consumer loop of worker and updater: partitions side by side, each in order, offsets only after the effect.

An error ends the process; the records come again after the restart, and their effects are idempotent.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError

from services.metrics import Metrics

log = logging.getLogger(__name__)

Handle = Callable[[TopicPartition, Sequence[ConsumerRecord]], Coroutine[None, None, None]]
"""Gives every record of one partition its effect, in order, before it returns."""

MOST_RECORDS = 500


async def consume(consumer: AIOKafkaConsumer, handle: Handle, stop: asyncio.Event, metrics: Metrics) -> None:
    """Hand records to `handle` until `stop`; commit what was handled."""
    while not stop.is_set():
        batches = await consumer.getmany(timeout_ms=200, max_records=MOST_RECORDS)
        async with asyncio.TaskGroup() as group:
            for partition, records in batches.items():
                group.create_task(handle(partition, records))
        offsets = {partition: records[-1].offset + 1 for partition, records in batches.items()}
        await _commit(consumer, offsets)
        _measure_lag(consumer, metrics, offsets)


async def _commit(consumer: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
    if not offsets:
        return
    try:
        await consumer.commit(offsets)
    except (CommitFailedError, IllegalStateError) as error:
        # A partition moved to another member meanwhile. It gets these records again, which has no effect.
        log.warning("offsets not committed, another member goes on from the last ones: %s", error)


def _measure_lag(consumer: AIOKafkaConsumer, metrics: Metrics, offsets: dict[TopicPartition, int]) -> None:
    for partition in offsets.keys() & consumer.assignment():
        behind = (consumer.highwater(partition) or offsets[partition]) - offsets[partition]
        metrics.consumer_lag.labels(partition.topic, partition.partition).set(behind)
