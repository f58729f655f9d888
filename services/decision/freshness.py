"""Tells a decision how far merchant state may be behind it, without asking Redis each time."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Protocol

from feature_store.redis_client import UNAVAILABLE


class Oldest(Protocol):
    """What knows the oldest pending event."""

    async def oldest(self) -> float:
        """Give its second, or infinity."""


class Freshness:
    """Tells how far merchant state may be behind an event, from a regular look and this process's own commits.

    It may say too much, never too little, but for one case: what another process committed since the last look. That
    can only matter if it is older than the features' delay, two minutes of event time.
    """

    def __init__(self, pending: Oldest) -> None:
        self._pending = pending
        self._oldest = math.inf
        self._since_look: list[int] = []
        self._looking = asyncio.Lock()

    def committing(self, second: int) -> None:
        """Note a commit of this process, which the last look could not see.

        Before it happens: its effect on merchant state may be there before its reply is here.
        """
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
                    await self._look()
        return self.known_lag(second)

    async def look(self) -> None:
        """Ask Redis. One look at a time, or an older answer could replace a newer one."""
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
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
                with contextlib.suppress(*UNAVAILABLE):
                    await self.look()

        task = asyncio.create_task(watch())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
