"""The outbox: records committed with their decisions, on their way to topic `decisions`, in sequence order."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feature_store.gate import Gate
from feature_store.keys import Keys
from feature_store.redis_client import Client
from feature_store.scripts import load, run_all


@dataclass(frozen=True, slots=True)
class Entry:
    """One record and its place in the partition."""

    sequence: int
    record: bytes


class Outbox:
    """Reads and trims the outboxes of partitions, while their gates are as they were found in `gates`.

    Two relays may work on a partition at once: they publish duplicates in sequence order, and trimming is by sequence,
    so nothing is lost and every consumer skips what is not newer.
    """

    def __init__(self, client: Client, keys: Keys, gates: Sequence[Gate]) -> None:
        self._client = client
        self._keys = keys
        self._gates = gates
        self._read = load("read_outbox")
        self._trim = load("trim_outbox")

    async def read(self, partitions: Collection[int], most: int) -> dict[int, list[Entry]]:
        """Read the oldest records of each partition, at most so many; leaves out the empty ones.

        Raises:
            ClosedError: a gate has moved.
        """
        calls = [(self._read, self._names(each), (self._gates[each].text, most)) for each in partitions]
        found = zip(partitions, await run_all(self._client, calls), strict=True)
        return {
            partition: [Entry(int(identity.split(b"-")[0]), fields[1]) for identity, fields in entries]
            for partition, entries in found
            if entries
        }

    async def trim(self, published: Mapping[int, int]) -> None:
        """Drop, of each partition, every record up to and including that sequence.

        Raises:
            ClosedError: a gate has moved, so what was published may not count.
        """
        await run_all(
            self._client,
            [
                (self._trim, self._names(partition), (self._gates[partition].text, f"{sequence + 1}-0"))
                for partition, sequence in published.items()
            ],
        )

    async def lengths(self, partitions: Collection[int]) -> dict[int, int]:
        """Count the records waiting in each partition."""
        pipeline: Any = self._client.pipeline(transaction=False)
        for partition in partitions:
            pipeline.xlen(self._keys.outbox(partition))
        return dict(zip(partitions, await pipeline.execute(), strict=True))

    async def check(self) -> None:
        """Make sure that all gates are as they were.

        Raises:
            ClosedError: one is not.
        """
        await self.read(range(self._keys.partitions), 0)

    def _names(self, partition: int) -> tuple[str, str]:
        return (self._keys.outbox(partition), self._keys.gate(partition))
