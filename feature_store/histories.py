"""All cards and merchants in plain Python: the state that training replays through, and the reference for Redis."""

from collections import defaultdict
from dataclasses import dataclass, field

from feature_store.definitions import AGGREGATES, STORED, Entity, Measure
from feature_store.formulas import Aggregates
from feature_store.keys import owner
from feature_store.tiles import History
from feature_store.transaction import Event


@dataclass
class Histories:
    """The histories of all cards and merchants, and how events change them."""

    of: dict[Entity, defaultdict[str, History]] = field(
        default_factory=lambda: {entity: defaultdict(History) for entity in Entity}
    )

    def read(self, event: Event) -> Aggregates:
        """Read card and merchant as of the event's time."""
        return Aggregates(*(self._read(entity, event) for entity in (Entity.CARD, Entity.MERCHANT)))

    def _read(self, entity: Entity, event: Event) -> tuple[int, ...]:
        history = self.of[entity].get(owner(entity, event), _EMPTY)
        return history.read(event.second, AGGREGATES[entity])

    def add(self, entity: Entity, event: Event, values: dict[Measure, int]) -> None:
        """Count `values` for the event's card or merchant."""
        self.of[entity][owner(entity, event)].add(event.second, values, STORED[entity])


_EMPTY = History()
