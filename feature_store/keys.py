"""The one partition number, and the keys that carry it as their hash tag.

A card's Kafka partition and its Redis slot come from the same number, so that all keys a decision touches share a slot.
"""

from dataclasses import dataclass

from aiokafka.partitioner import murmur2

from feature_store.definitions import Entity
from feature_store.transaction import Event


def owner(entity: Entity, event: Event) -> str:
    """Give the identifier of the event's card or merchant."""
    return event.card_id if entity is Entity.CARD else event.merchant_id


@dataclass(frozen=True, slots=True)
class Keys:
    """Names every key for a fixed number of `partitions`. Identifiers hold no '/', so it separates them."""

    partitions: int

    def partition(self, identifier: str) -> int:
        """Give the partition that Kafka's own partitioner gives the key `identifier`."""
        return int(murmur2(identifier.encode()) & 0x7FFFFFFF) % self.partitions

    def history(self, entity: Entity, event: Event) -> str:
        """Hash: tiles and newest event of the event's card or merchant.

        A card's also holds its version, a merchant's the last sequence counted of each partition of the log, and both
        the offset of the last label.
        """
        return self.history_of(entity, owner(entity, event))

    def history_of(self, entity: Entity, name: str) -> str:
        """Give the same by the name of the card or merchant."""
        return f"{{{self.partition(name)}}}{entity}:{name}"

    def decided(self, card_id: str, transaction_id: str) -> str:
        """String: the decision stored under its transaction's id."""
        return f"{{{self.partition(card_id)}}}decided:{card_id}/{transaction_id}"

    def label(self, entity: Entity, event: Event) -> str:
        """String: the label applied to this entity for that transaction."""
        name = owner(entity, event)
        return f"{{{self.partition(name)}}}label:{entity}:{name}/{event.card_id}/{event.transaction_id}"

    def sequence(self, partition: int) -> str:
        """Integer: the last sequence number given in this partition."""
        return f"{{{partition}}}sequence"

    def outbox(self, partition: int) -> str:
        """Stream: records that topic `decisions` does not have yet; an entry's id is its sequence."""
        return f"{{{partition}}}outbox"

    def pending(self, partition: int) -> str:
        """Sorted set: sequences that merchant state does not have yet, by their event's second."""
        return f"{{{partition}}}pending"

    def gate(self, partition: int) -> str:
        """String: whether this partition may be written, see `gate.py`."""
        return f"{{{partition}}}gate"

    def progress(self, partition: int) -> str:
        """Hash: for each partition of the topics, how far all entities of this partition of state follow it."""
        return f"{{{partition}}}progress"

    def relay_lease(self, partition: int) -> str:
        """String: the relay that may publish this partition now."""
        return f"{{{partition}}}relay"
