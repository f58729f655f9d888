"""The outbox: records committed with their decisions, on their way to topic `decisions`, in sequence order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feature_store.gate import Gate
from feature_store.keys import Keys
from feature_store.redis_client import Client
from feature_store.scripts import load


@dataclass(frozen=True, slots=True)
class Entry:
    """One record and its place in the partition."""

    sequence: int
    record: bytes


class Outbox:
    """Reads and trims the outbox of each partition, while its gate is as it was found in `gates`.

    Two relays may work on a partition at once: they publish duplicates in sequence order, and trimming is by sequence,
    so nothing is lost and every consumer skips what is not newer.
    """

    def __init__(self, client: Client, keys: Keys, gates: Sequence[Gate]) -> None:
        self._client = client
        self._keys = keys
        self._gates = gates
        self._read = load("read_outbox")
        self._trim = load("trim_outbox")

    async def read(self, partition: int, most: int) -> list[Entry]:
        """Read the oldest records.

        Raises:
            ClosedError: the gate has moved.
        """
        entries = await self._read.run(self._client, self._names(partition), (self._gates[partition].text, most))
        return [Entry(int(identity.split(b"-")[0]), fields[1]) for identity, fields in entries]

    async def wait(self, partition: int, milliseconds: int) -> None:
        """Wait until there is a record, or the time is over."""
        found: Any = await self._client.xread({self._keys.outbox(partition): 0}, count=1, block=milliseconds)
        del found

    async def trim(self, partition: int, published: int) -> None:
        """Drop every record up to and including sequence `published`.

        Raises:
            ClosedError: the gate has moved, so what was published may not count.
        """
        first_kept = f"{published + 1}-0"
        await self._trim.run(self._client, self._names(partition), (self._gates[partition].text, first_kept))

    async def lengths(self) -> list[int]:
        """Count the records waiting in each partition."""
        pipeline = self._client.pipeline(transaction=False)
        for partition in range(self._keys.partitions):
            pipeline.xlen(self._keys.outbox(partition))
        return list(await pipeline.execute())

    def _names(self, partition: int) -> tuple[str, str]:
        return (self._keys.outbox(partition), self._keys.gate(partition))
