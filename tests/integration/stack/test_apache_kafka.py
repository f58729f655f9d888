import os
import signal

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from services.stack.apache_kafka import _answers, apache_kafka
from services.stack.kafka_jars import available
from services.topics import DECISIONS, ensure_topics

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(bool(available()) and os.environ.get("CI") != "true", reason=str(available())),
]


async def produce(bootstrap, values):
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True) as producer:
        for value in values:
            await producer.send_and_wait(DECISIONS, value, partition=0)


async def consume(bootstrap, count):
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(DECISIONS, 0)])
        return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


async def test_the_log_survives_a_stop_on_another_port_and_a_kill_on_the_same(tmp_path, eventually):
    async with apache_kafka(tmp_path) as first:
        await ensure_topics(first.bootstrap, 4)
        await produce(first.bootstrap, [b"before the stop"])

    async with apache_kafka(tmp_path) as second:
        assert second.bootstrap != first.bootstrap
        await ensure_topics(second.bootstrap, 4)  # they exist, with as many partitions
        assert await consume(second.bootstrap, 1) == [b"before the stop"]
        await produce(second.bootstrap, [b"before the kill"])
        os.kill(second.pid, signal.SIGKILL)

    port = int(second.bootstrap.rpartition(":")[2])
    async with apache_kafka(tmp_path, port, restart=True) as third:
        assert third.bootstrap == second.bootstrap
        assert await consume(third.bootstrap, 2) == [b"before the stop", b"before the kill"]

        killed = third.pid
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: third.pid != killed)
        await third.process.until(lambda: _answers(port), seconds=60, crashes=1)
        assert len(await consume(third.bootstrap, 2)) == 2


async def test_a_topic_that_nobody_made_does_not_come_into_being(kafka):
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, request_timeout_ms=1000) as producer:
        with pytest.raises(KafkaError):
            await producer.send_and_wait("misspelt", b"lost")
