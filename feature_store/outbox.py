"""The outbox: records committed with their decisions, on their way to topic `decisions`, in sequence order."""

from dataclasses import dataclass
from typing import Any

from feature_store.keys import Keys
from feature_store.redis_client import Client


@dataclass(frozen=True, slots=True)
class Entry:
    """One record and its place in the partition."""

    sequence: int
    record: bytes


class Outbox:
    """Reads and trims the outbox of each partition, under a lease so that relays share the work.

    The lease only saves double work: two relays that both believe they hold one publish duplicates in sequence order,
    and trimming is by sequence, so nothing is lost and every consumer skips what is not newer.
    """

    def __init__(self, client: Client, keys: Keys, *, owner: str, lease_milliseconds: int) -> None:
        self._client = client
        self._keys = keys
        self._owner = owner
        self._lease_milliseconds = lease_milliseconds

    async def lease(self, partition: int) -> bool:
        """Take or extend the lease of a partition; False while another relay has it."""
        key = self._keys.relay_lease(partition)
        taken = await self._client.set(key, self._owner, nx=True, px=self._lease_milliseconds)
        if taken:
            return True
        if await self._client.get(key) != self._owner.encode():
            return False
        return bool(await self._client.pexpire(key, self._lease_milliseconds))

    async def release(self, partition: int) -> None:
        """Give the lease back, if it is still ours."""
        key = self._keys.relay_lease(partition)
        if await self._client.get(key) == self._owner.encode():
            await self._client.delete(key)

    async def read(self, partition: int, most: int, *, wait_milliseconds: int) -> list[Entry]:
        """Read the oldest records, waiting a while for the first."""
        streams: Any = await self._client.xread({self._keys.outbox(partition): 0}, count=most, block=wait_milliseconds)
        if not streams:
            return []
        entries = streams[0][1] if isinstance(streams, list) else next(iter(streams.values()))[0]
        return [Entry(int(identity.split(b"-")[0]), fields[b"record"]) for identity, fields in entries]

    async def trim(self, partition: int, published: int) -> None:
        """Drop every record up to and including sequence `published`."""
        await self._client.xtrim(self._keys.outbox(partition), minid=f"{published + 1}-0", approximate=False)

    async def lengths(self) -> list[int]:
        """Count the records waiting in each partition."""
        pipeline = self._client.pipeline(transaction=False)
        for partition in range(self._keys.partitions):
            pipeline.xlen(self._keys.outbox(partition))
        return list(await pipeline.execute())
