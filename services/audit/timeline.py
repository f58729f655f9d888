"""The state of one card or merchant at any position in the log, computed from its events alone."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

from feature_store.definitions import STORED, Entity, Measure
from feature_store.tiles import History

Source = tuple[str, int]
"""A partition of a topic."""
Position = Mapping[Source, int]
"""How far an entity had followed each source: everything up to and including this number."""


@dataclass
class _Events:
    numbers: list[int] = field(default_factory=list)
    events: list[tuple[int, Mapping[Measure, int]]] = field(default_factory=list)


class Timeline:
    """All events of an entity. Positions asked for in the order in which they were reached cost one pass in all."""

    def __init__(self, entity: Entity) -> None:
        self._stored = STORED[entity]
        self._sources: dict[Source, _Events] = {}
        self._reached: dict[Source, int] = {}
        self._history = History()

    def add(self, source: Source, number: int, second: int, values: Mapping[Measure, int]) -> None:
        """Take in an event, numbered in its source; numbers of a source ascend."""
        events = self._sources.setdefault(source, _Events())
        events.numbers.append(number)
        events.events.append((second, values))

    def at(self, position: Position) -> History:
        """Give the state at `position`; valid until the next call."""
        counts = {source: bisect_right(self._sources[source].numbers, to) for source, to in position.items()
                  if source in self._sources}  # fmt: skip
        if any(counts.get(source, 0) < count for source, count in self._reached.items()):
            self._history, self._reached = History(), {}  # behind what was reached: from the beginning
        for source, count in counts.items():
            for second, values in self._sources[source].events[self._reached.get(source, 0) : count]:
                self._history.add(second, values, self._stored)
        self._reached = counts
        return self._history
