"""Leases: who of several processes does a piece of work now. They save double work; nothing rests on them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from feature_store.redis_client import UNAVAILABLE, Client


class Lease:
    """A lease on what `key` names, for `milliseconds` unless it is taken again."""

    def __init__(self, client: Client, key: str, *, owner: str, milliseconds: int) -> None:
        self._client = client
        self._key = key
        self._owner = owner
        self._milliseconds = milliseconds

    async def take(self) -> bool:
        """Take or extend it; False while somebody else has it."""
        if await self._client.set(self._key, self._owner, nx=True, px=self._milliseconds):
            return True
        if await self._client.get(self._key) != self._owner.encode():
            return False
        return bool(await self._client.pexpire(self._key, self._milliseconds))

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Extend it again and again, once it is taken, and give it back at the end of the block."""

        async def extend() -> None:
            while not over.is_set():  # a CancelledError can get lost: see `is_over` in services/process.py
                await asyncio.sleep(self._milliseconds / 3_000)
                with contextlib.suppress(*UNAVAILABLE):
                    await self.take()

        over, extending = asyncio.Event(), asyncio.create_task(extend())
        try:
            yield
        finally:
            over.set()
            extending.cancel()
            await asyncio.gather(extending, return_exceptions=True)
            with contextlib.suppress(*UNAVAILABLE):
                await self.release()

    async def release(self) -> None:
        """Give it back, if it is still ours."""
        if await self._client.get(self._key) == self._owner.encode():
            await self._client.delete(self._key)
