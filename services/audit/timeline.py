"""The state of one entity at any position in the log, computed from its events alone."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

from feature_store.definitions import Measure
from feature_store.held import Held
from feature_store.history import History
from feature_store.plan import Plan

Source = tuple[str, int]
"""A partition of a topic."""


@dataclass(frozen=True, slots=True)
class Event:
    """A transaction, or a label, as an entity counts it."""

    second: int
    values: Mapping[Measure, int]
    is_label: bool = False

    def applied_to(self, history: History) -> None:
        """Count it."""
        (history.add if self.is_label else history.count)(self.second, self.values)


@dataclass
class _Events:
    numbers: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


class Timeline:
    """All events of an entity. Positions asked for in the order in which they were reached cost one pass in all."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sources: dict[Source, _Events] = {}
        self._reached: dict[Source, int] = {}
        self._history = History(plan)

    def add(self, source: Source, number: int, event: Event) -> None:
        """Take in an event, numbered in its source; numbers of a source ascend."""
        events = self._sources.setdefault(source, _Events())
        events.numbers.append(number)
        events.events.append(event)

    def at(self, position: Mapping[Source, int]) -> History:
        """Give the state that had counted each source up to and including a number; valid until the next call."""
        counts = {source: bisect_right(self._sources[source].numbers, to) for source, to in position.items()
                  if source in self._sources}  # fmt: skip
        if any(counts.get(source, 0) < count for source, count in self._reached.items()):
            self._history, self._reached = History(self._plan), {}  # before what was reached: from the beginning
        for source, count in counts.items():
            for event in self._sources[source].events[self._reached.get(source, 0) : count]:
                event.applied_to(self._history)
        self._reached = counts
        return self._history


def position(held: Held, decisions: str, labels: str) -> dict[Source, int]:
    """Give the position that a decision names, in the two topics."""
    return {(decisions, partition): number for partition, number in held.decisions.items()} | {
        (labels, partition): number for partition, number in held.labels.items()
    }
