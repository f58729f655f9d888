import asyncio
from types import SimpleNamespace

from aiokafka import TopicPartition

from services.consume import consume
from services.metrics import Metrics

READY, NOT_YET = TopicPartition("decisions", 0), TopicPartition("decisions", 1)


class Consumer:
    """Hands over one batch of two partitions; notes what is committed."""

    def __init__(self, stop):
        self.stop = stop
        self.committed = []

    async def getmany(self, *, timeout_ms, max_records):
        self.stop.set()
        return {READY: [SimpleNamespace(offset=4)], NOT_YET: [SimpleNamespace(offset=900)]}

    async def commit(self, offsets):
        self.committed.append(offsets)

    def assignment(self):
        return {READY, NOT_YET}

    def highwater(self, _partition):
        return 10


async def test_records_of_a_partition_whose_place_is_not_known_yet_are_neither_handled_nor_committed():
    async def handle(partition, records):
        handled.append((partition, [record.offset for record in records]))

    handled, stop = [], asyncio.Event()
    consumer = Consumer(stop)
    await consume(consumer, handle, stop, Metrics(), ready=lambda partition: partition == READY)
    assert handled == [(READY, [4])]
    assert consumer.committed == [{READY: 5}]
