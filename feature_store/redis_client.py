"""All policy of talking to Redis, in one factory.

A scoring client must fail fast: redis-py by default retries ten times and waits five seconds, which turns a dead
server into a dead caller and runs a script whose reply was lost a second time. Here nothing is retried and every wait
is short; the caller knows that repeating a decision is safe.
"""

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from feature_store.cluster_client import CONNECTIONS_PER_NODE, PromptCluster

Client = Redis | RedisCluster

UNAVAILABLE = (exceptions.RedisError, exceptions.RedisClusterException, OSError)
"""What a call raises when Redis cannot be reached, does not answer in time, or refuses."""
CONNECTIONS = 64
"""Most connections of one process; further callers wait for one as long as for a reply."""


def connect(url: str, *, timeout: float, cluster: bool = False) -> Client:
    """Make a client whose every wait ends after `timeout` seconds. It connects when first used.

    On a cluster the whole of a call ends by then, or as long again later where it has to find the slots first.
    """
    retry = Retry(NoBackoff(), 0)
    if cluster:
        return PromptCluster.from_url(url, timeout=timeout, max_connections=CONNECTIONS_PER_NODE, retry=retry)
    pool = BlockingConnectionPool.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        max_connections=CONNECTIONS,
        timeout=timeout,
        retry=retry,
    )
    return Redis.from_pool(pool)
