"""Where the updater is in the log: it goes on from where state stands, and not where its consumer group does.

State may have gone back with its server; then the group's offsets are too far. They are committed all the same, because
operators look at them.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition

from feature_store.gate import Gate
from feature_store.progress import Progress, Reached
from services.log import Epochs
from services.topics import DECISIONS

NOTE_SECONDS = 2.0
"""How often progress is noted. What was not noted is read again after a restart, without effect."""


class SkippedError(Exception):
    """Records were not handed over in order: going on would lose their effect."""


@dataclass
class Place:
    """How far a partition was followed in this assignment."""

    reached: Reached
    epochs: Epochs
    noted_at: float = field(default_factory=time.monotonic)


class Following(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """The places of the partitions that are assigned now."""

    def __init__(self, consumer: AIOKafkaConsumer, progress: Progress, gates: Sequence[Gate]) -> None:
        self._consumer = consumer
        self._progress = progress
        self._gates = gates
        self._places: dict[TopicPartition, Place] = {}
        self._failure: Exception | None = None

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Go to where state stands, or to the beginning of a log that has forgotten what came next."""
        try:
            await self._go(assigned)
        except Exception as error:  # aiokafka would only log it, and nobody would read these partitions
            self._failure = error
            raise

    async def _go(self, assigned: Collection[TopicPartition]) -> None:
        oldest = await self._consumer.beginning_offsets(assigned) if assigned else {}
        for partition in assigned:
            reached = await self._progress.reached(partition.topic, partition.partition)
            known = self._gates[partition.partition].epochs if partition.topic == DECISIONS else ()
            reached = Reached(max(reached.next_offset, oldest[partition]), reached.sequence)
            self._places[partition] = Place(reached, Epochs(known, reached.next_offset))
            self._consumer.seek(partition, reached.next_offset)

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Leave the place to who comes after."""
        for partition in revoked:
            if place := self._places.pop(partition, None):
                await self._note(partition, place)

    def knows(self, partition: TopicPartition) -> bool:
        """Tell whether the partition's place is known; aiokafka may hand over records before it was looked up.

        Raises:
            Exception: what kept a place from being found out.
        """
        if self._failure is not None:
            raise self._failure
        return partition in self._places

    def at(self, partition: TopicPartition, offset: int) -> Place:
        """Give the place for a batch that begins at `offset`.

        Raises:
            SkippedError: what was to come before it did not. The process starts again from what state has.
        """
        place = self._places.get(partition)
        if place is None or offset > place.reached.next_offset:
            wanted = "nothing, it is not ours" if place is None else f"offset {place.reached.next_offset}"
            raise SkippedError(f"{partition.topic} {partition.partition}: next is {wanted}, and {offset} came")
        return place

    async def reached(self, partition: TopicPartition, place: Place, reached: Reached) -> None:
        """Note that everything before `reached` has its effect."""
        place.reached = reached
        if time.monotonic() - place.noted_at > NOTE_SECONDS:
            await self._note(partition, place)

    async def note_all(self) -> None:
        """Note all places, before a stop."""
        await self.on_partitions_revoked(list(self._places))

    async def _note(self, partition: TopicPartition, place: Place) -> None:
        await self._progress.note(partition.topic, partition.partition, place.reached)
        place.noted_at = time.monotonic()
