"""The one partition number, and the keys that carry it as their hash tag.

A card's Kafka partition and its Redis slot come from the same number, so that all keys a decision touches share a slot.
"""

import functools
from dataclasses import dataclass

from aiokafka.partitioner import murmur2

from feature_store.definitions import Entity
from feature_store.transaction import Event


@functools.lru_cache(maxsize=1 << 16)
def _hash(identifier: str) -> int:
    return int(murmur2(identifier.encode()) & 0x7FFFFFFF)


@dataclass(frozen=True)
class Keys:
    """Names every key for a fixed number of `partitions`. Identifiers hold no '/', so it separates them."""

    partitions: int

    @functools.cached_property
    def _tags(self) -> tuple[str, ...]:
        """The hash tag of each partition."""
        return tuple(f"{{{partition}}}" for partition in range(self.partitions))

    def partition(self, identifier: str) -> int:
        """Give the partition that Kafka's own partitioner gives the key `identifier`."""
        return _hash(identifier) % self.partitions

    def history(self, entity: Entity, value: str) -> str:
        """String: the history of the card, merchant or other entity of that value, see `codec.py`."""
        return f"{self._tags[self.partition(value)]}{entity.name}:{value}"

    def decided(self, card_id: str, transaction_id: str) -> str:
        """String: the decision stored under its transaction's id."""
        return f"{self._tags[self.partition(card_id)]}decided:{card_id}/{transaction_id}"

    def label(self, entity: Entity, value: str, event: Event) -> str:
        """String: the label applied to this entity for that transaction."""
        return f"{self._tags[self.partition(value)]}label:{entity.name}:{value}/{event.card_id}/{event.transaction_id}"

    def sequence(self, partition: int) -> str:
        """Integer: the last sequence number given in this partition."""
        return self._tags[partition] + "sequence"

    def outbox(self, partition: int) -> str:
        """Stream: records that topic `decisions` does not have yet; an entry's id is its sequence."""
        return self._tags[partition] + "outbox"

    def pending(self, partition: int) -> str:
        """Sorted set: sequences that the updater has not counted yet, by their event's second."""
        return self._tags[partition] + "pending"

    def pending_since(self, partition: int) -> str:
        """Integer: the least second in `pending`; absent while nothing is pending."""
        return self._tags[partition] + "pending_since"

    def gate(self, partition: int) -> str:
        """String: whether this partition may be written, see `gate.py`."""
        return self._tags[partition] + "gate"

    def progress(self, partition: int) -> str:
        """Hash: for each partition of the topics, how far all entities of this partition of state follow it."""
        return self._tags[partition] + "progress"

    def relay_lease(self, partition: int) -> str:
        """String: the relay that may publish this partition now."""
        return self._tags[partition] + "relay"
