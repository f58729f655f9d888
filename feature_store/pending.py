"""How far merchant state is behind the log, in event time: what is committed, but not counted for its merchant yet."""

import math
from collections.abc import Iterable
from typing import Any

from redis.asyncio.cluster import RedisCluster

from feature_store.keys import Keys
from feature_store.redis_client import UNAVAILABLE, Client
from feature_store.scripts import Call, load, read_all


class Pending:
    """The sequences of each partition that merchant state does not have yet. `commit` adds, the updater settles."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._oldest = load("oldest_pending")

    async def settle(self, partition: int, sequences: Iterable[int]) -> None:
        """Strike out what has been counted."""
        await self._client.zrem(self._keys.pending(partition), *sequences)

    async def settle_to(self, partition: int, sequence: int) -> None:
        """Strike out everything up to `sequence`: all of it has been counted."""
        key = self._keys.pending(partition)
        members: Any = await self._client.zrange(key, 0, -1)
        gone = [member for member in members if int(member) <= sequence]
        if gone:
            await self._client.zrem(key, *gone)

    async def since(self, calls: list[Call]) -> tuple[float, list[Any]]:
        """Run `calls`, in one round trip where one server has everything.

        Returns:
            The second of the oldest event that what they read may lack (infinity: none), and their replies. It is
            looked up before they run, so it may say too much, never too little.
        """
        names = [self._keys.pending(partition) for partition in range(self._keys.partitions)]
        if isinstance(self._client, RedisCluster):  # no order between servers: look first, a partition each
            looks: list[Call] = [(self._oldest, (name,), ()) for name in names]
            return await self._look(looks), await read_all(self._client, calls)
        oldest, *replies = await read_all(self._client, [(self._oldest, names, ()), *calls])
        return _second(oldest), replies

    async def _look(self, looks: list[Call]) -> float:
        try:
            return min(map(_second, await read_all(self._client, looks)))
        except UNAVAILABLE:  # a server is away, and with it what it knows
            return -math.inf


def _second(reply: int | None) -> float:
    return math.inf if reply is None else reply
