"""How far state follows the topics, kept beside the state itself: if that goes back, so does this.

An entity's own positions keep each event from counting twice; these tell from where to read again so that none is
missed. One entry for each partition of state, because on a cluster one server may go back and the others not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from feature_store.gate import Gate
from feature_store.keys import Keys
from feature_store.redis_client import Client
from feature_store.scripts import load, run_all


@dataclass(frozen=True, slots=True)
class Reached:
    """A place in a partition of a topic: the offset that comes next, and the last sequence before it (decisions)."""

    next_offset: int
    sequence: int = 0


class Progress:
    """Reads and notes it, for all partitions of state at once."""

    def __init__(self, client: Client, keys: Keys, gates: Sequence[Gate]) -> None:
        self._client = client
        self._gates = [(keys.gate(partition), gate.text) for partition, gate in enumerate(gates)]
        self._names = [keys.progress(partition) for partition in range(keys.partitions)]
        self._note = load("note_progress")

    async def reached(self, topic: str, partition: int) -> Reached:
        """Give the place up to which all entities have been given all of this partition of a topic."""
        pipeline = self._client.pipeline(transaction=False)
        for name in self._names:
            pipeline.hget(name, _field(topic, partition))
        noted = [(entry or b"0 0").split() for entry in await pipeline.execute()]
        return min((Reached(int(offset), int(sequence)) for offset, sequence in noted), key=lambda at: at.next_offset)

    async def note(self, topic: str, partition: int, reached: Reached) -> None:
        """Note that all entities have been given everything before this place.

        Raises:
            ClosedError: state may have gone back meanwhile.
        """
        place = (_field(topic, partition), reached.next_offset, reached.sequence)
        calls = [
            (self._note, (name, gate), (text, *place))
            for name, (gate, text) in zip(self._names, self._gates, strict=True)
        ]
        await run_all(self._client, calls)

    async def forget(self, topic: str, partition: int) -> None:
        """Go back to the beginning: the topic is not the one that was followed."""
        pipeline = self._client.pipeline(transaction=False)
        for name in self._names:
            pipeline.hdel(name, _field(topic, partition))
        await pipeline.execute()


def _field(topic: str, partition: int) -> str:
    return f"{topic}:{partition}"
