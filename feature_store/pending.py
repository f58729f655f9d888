"""How far merchant state is behind the log, in event time: what is committed, but not counted for its merchant yet."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterable
from typing import Any

from redis.exceptions import RedisError

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


class Freshness:
    """Tells how far merchant state may be behind an event, from a regular look and this process's own commits.

    It may say too much, never too little, but for one case: what another process committed since the last look. That
    can only matter if it is older than the features' delay, two minutes of event time.
    """

    def __init__(self, pending: Pending) -> None:
        self._pending = pending
        self._oldest = math.inf
        self._since_look: list[int] = []
        self._looking = asyncio.Lock()

    def committed(self, second: int) -> None:
        """Note a commit of this process, which the last look could not see."""
        self._since_look.append(second)

    def known_lag(self, second: int) -> float:
        """Give, from what is known now, how many seconds of event time merchant state may be behind `second`."""
        return max(0.0, second - min(self._oldest, min(self._since_look, default=math.inf)))

    async def lag(self, second: int, tolerated: float) -> float:
        """Give the lag; look again before saying that it is more than tolerated.

        Raises:
            redis.exceptions.RedisError: Redis did not answer.
        """
        if self.known_lag(second) > tolerated:
            async with self._looking:
                if self.known_lag(second) > tolerated:
                    await self.look()
        return self.known_lag(second)

    async def look(self) -> None:
        """Ask Redis; what this process commits meanwhile is kept beside the answer."""
        known = len(self._since_look)
        self._oldest = await self._pending.oldest()
        del self._since_look[:known]

    @contextlib.asynccontextmanager
    async def watching(self, every: float) -> AsyncIterator[None]:
        """Look every `every` seconds for as long as the context lasts. Between failed looks the last answer stands."""
        await self.look()

        async def watch() -> None:
            while True:
                await asyncio.sleep(every)
                with contextlib.suppress(OSError, RedisError):
                    await self.look()

        task = asyncio.create_task(watch())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
