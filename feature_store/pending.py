"""What is committed and not counted by the updater yet: how far merchant state is behind the log, in event time."""

from collections.abc import Sequence
from typing import Any

from feature_store.keys import Keys
from feature_store.redis_client import Client
from feature_store.scripts import load, run_all

MOST_IN_A_SCRIPT = 1_000


class Pending:
    """The sequences of each partition that the updater has yet to count. `commit` adds, the updater settles."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._settle = load("settle")

    async def settle(self, counted: dict[int, Sequence[int]]) -> None:
        """Strike out what has been counted: sequences by partition."""
        calls = [
            (self._settle, self._names(partition), several[first : first + MOST_IN_A_SCRIPT])
            for partition, several in counted.items()
            for first in range(0, len(several), MOST_IN_A_SCRIPT)
        ]
        if calls:
            await run_all(self._client, calls)

    async def settle_to(self, partition: int, sequence: int) -> None:
        """Strike out everything up to `sequence`: all of it has been counted."""
        members: Any = await self._client.zrange(self._keys.pending(partition), 0, -1)
        await self.settle({partition: [int(member) for member in members if int(member) <= sequence]})

    def _names(self, partition: int) -> tuple[str, str]:
        return self._keys.pending(partition), self._keys.pending_since(partition)
