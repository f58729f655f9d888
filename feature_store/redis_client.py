"""All policy of talking to Redis, in one factory.

A scoring client must fail fast: redis-py by default retries ten times and waits five seconds, which turns a dead
server into a dead caller and runs a script whose reply was lost a second time. Here nothing is retried and every wait
is short; the caller knows that repeating a decision is safe.
"""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

Client = Redis | RedisCluster

UNAVAILABLE = (RedisError, RedisClusterException, OSError)
"""What a call raises when Redis cannot be reached, does not answer in time, or refuses."""
CONNECTIONS = 64
"""Most connections of one process; further callers wait for one as long as for a reply."""


def connect(url: str, *, timeout: float, cluster: bool = False) -> Client:
    """Make a client whose every wait ends after `timeout` seconds. It connects when first used."""
    retry = Retry(NoBackoff(), 0)
    if cluster:
        return RedisCluster.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            max_connections=CONNECTIONS,
            retry=retry,
        )
    pool = BlockingConnectionPool.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        max_connections=CONNECTIONS,
        timeout=timeout,
        retry=retry,
    )
    return Redis.from_pool(pool)
