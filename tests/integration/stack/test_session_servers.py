import pytest
from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis

from services.topics import ALL


@pytest.mark.parametrize("run", ["first", "second"])
async def test_each_test_that_asks_for_a_clean_redis_gets_an_empty_one(clean_redis, run):
    async with Redis.from_url(clean_redis) as client:
        assert await client.dbsize() == 0
        await client.set("left by", run)


async def test_the_broker_of_the_session_has_every_topic(broker):
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        for name in ALL:
            assert await producer.partitions_for(name) == set(range(broker.partitions))
