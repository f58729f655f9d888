import asyncio
import os
import signal
import sys

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from services.settings import Settings
from services.stack.broker import LIBRDKAFKA, open_broker
from services.stack.errors import StackError
from services.stack.librdkafka_broker import PARTITIONS, librdkafka_broker, touch_topics
from services.topics import ALL, TRANSACTIONS

pytest.importorskip("confluent_kafka")


async def test_it_serves_idempotent_producing_consuming_in_a_group_and_committed_offsets():
    async with librdkafka_broker() as broker:
        await touch_topics(broker.bootstrap, [TRANSACTIONS])
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap, enable_idempotence=True) as producer:
            for number in range(20):
                await producer.send_and_wait(TRANSACTIONS, str(number).encode(), partition=number % PARTITIONS)

        async with AIOKafkaConsumer(
            TRANSACTIONS,
            bootstrap_servers=broker.bootstrap,
            group_id="readers",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        ) as consumer:
            async with asyncio.timeout(30):
                values = [int((await consumer.getone()).value) for _ in range(20)]
            await consumer.commit()
            partitions = [TopicPartition(TRANSACTIONS, number) for number in range(PARTITIONS)]
            assert [await consumer.committed(partition) for partition in partitions] == PARTITIONS * [5]
        assert sorted(values) == list(range(20))


async def test_touched_topics_exist_with_the_partitions_it_imposes():
    async with open_broker(Settings(broker="librdkafka"), directory=None) as broker:
        assert (broker.choice, broker.partitions) == (LIBRDKAFKA, PARTITIONS)
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
            for name in ALL:
                assert await producer.partitions_for(name) == set(range(PARTITIONS))


async def test_its_process_ends_when_its_standard_input_closes():
    async with librdkafka_broker() as broker:
        broker.process.stdin.close()
        assert await asyncio.wait_for(broker.process.wait(), 10) == 0


async def test_its_process_ends_on_sigterm():
    async with librdkafka_broker() as broker:
        os.kill(broker.pid, signal.SIGTERM)
        assert await asyncio.wait_for(broker.process.wait(), 10) == -signal.SIGTERM


async def test_without_librdkafka_the_error_names_every_way_to_a_broker(monkeypatch):
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(StackError, match=r"\[embedded\].*Java 17 and Maven.*FRAUD_KAFKA_BOOTSTRAP"):
        async with librdkafka_broker():
            pass
