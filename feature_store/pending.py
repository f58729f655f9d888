"""How far merchant state is behind the log, in event time: what is committed, but not counted for its merchant yet."""

import math
from collections.abc import Iterable
from typing import Any

from feature_store.keys import Keys
from feature_store.redis_client import Client


class Pending:
    """The sequences of each partition that merchant state does not have yet. `commit` adds, the updater settles."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def settle(self, partition: int, sequences: Iterable[int]) -> None:
        """Strike out what has been counted."""
        await self._client.zrem(self._keys.pending(partition), *sequences)

    async def settle_before(self, partition: int, sequence: int) -> list[int]:
        """Strike out all before `sequence`, which the log will not bring again; give what was struck out."""
        key = self._keys.pending(partition)
        members: Any = await self._client.zrange(key, 0, -1)
        gone = [int(member) for member in members if int(member) < sequence]
        if gone:
            await self._client.zrem(key, *gone)
        return gone

    async def oldest(self) -> float:
        """Give the second of the oldest pending event over all partitions; infinity if there is none."""
        pipeline = self._client.pipeline(transaction=False)
        for partition in range(self._keys.partitions):
            pipeline.zrange(self._keys.pending(partition), 0, 0, withscores=True)
        return min((first[0][1] for first in await pipeline.execute() if first), default=math.inf)
