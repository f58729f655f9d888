"""All policy of talking to Redis, in one factory.

A scoring client must fail fast: redis-py by default retries ten times and waits five seconds, which turns a dead
server into a dead caller and runs a script whose reply was lost a second time. Here nothing is retried and every wait
is short; the caller knows that repeating a decision is safe.
"""

import asyncio
import math
from collections.abc import Iterable, Sequence
from typing import Any

from hiredis import pack_command
from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.typing import EncodableT

from feature_store.cluster_client import CONNECTIONS_PER_NODE, PromptCluster

Client = Redis | RedisCluster

UNAVAILABLE = (exceptions.RedisError, exceptions.RedisClusterException, OSError)
"""What a call raises when Redis cannot be reached, does not answer in time, or refuses."""
CONNECTIONS = 64
"""Most connections of one process; further callers wait for one as long as for a reply."""


class _Connection(Connection):
    """Packs commands in C: what redis-py 8.1 does in Python here is a third of its work on a round trip."""

    @property
    def is_closed_by_server(self) -> bool:
        """Whether the server has closed it: it is to be made anew, before a call is lost on it."""
        return self._reader is not None and self._reader.at_eof()

    def pack_commands(self, commands: Iterable[Iterable[EncodableT]]) -> list[bytes]:
        return [b"".join([pack_command(tuple(command)) for command in commands])]  # type: ignore[arg-type]  # wants 1-tuples


def connect(url: str, *, timeout: float, cluster: bool = False) -> Client:
    """Make a client whose every wait ends after `timeout` seconds. It connects when first used.

    On a cluster the whole of a call ends by then, or as long again later where it has to find the slots first.
    """
    retry = Retry(NoBackoff(), 0)
    if cluster:
        return PromptCluster.from_url(url, timeout=timeout, max_connections=CONNECTIONS_PER_NODE, retry=retry)
    pool = BlockingConnectionPool.from_url(
        url,
        connection_class=_Connection,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        max_connections=CONNECTIONS,
        timeout=timeout,
        retry=retry,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    return Redis.from_pool(pool)


class Line:
    """Round trips over one client. A connection taken from the pool is kept: asking for one costs as much as a trip.

    Raises, when sending:
        redis.exceptions.RedisError: no answer came, or not in time.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._idle: list[_Connection] = []

    async def send(self, commands: Sequence[Sequence[EncodableT]]) -> list[Any]:
        """Send commands in one round trip and give their replies in order, errors that Redis answered among them."""
        if isinstance(self._client, RedisCluster):
            pipeline = self._client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
            return replies
        pool = self._client.connection_pool
        timeout = pool.connection_kwargs["socket_timeout"]
        connection = self._idle.pop() if self._idle else await self._taken(pool)
        try:
            async with asyncio.timeout(timeout):  # one for all replies
                if connection.is_closed_by_server:
                    await connection.disconnect(nowait=True)
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                return [await _reply(connection) for _ in commands]
        except TimeoutError:
            await connection.disconnect(nowait=True)
            raise exceptions.TimeoutError("Redis did not answer in time") from None
        finally:
            self._idle.append(connection)

    async def _taken(self, pool: ConnectionPool) -> _Connection:
        connection: _Connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        connection.socket_timeout = None  # here all of a round trip has one
        return connection


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(timeout=math.inf)
    except exceptions.ResponseError as error:
        return error
