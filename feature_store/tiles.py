"""The reference execution of tiles: how an entity counts events, and what a window over it reads.

`lua/tiles.lua` does the same inside Redis, line for line where it can; the contract suite holds the two together.
Tiles are a function of the set of events counted, not of their order: an entity keeps the tiles back to
`Tile.kept` before its newest event, and an event older than that leaves no trace, whether it came early or late.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from feature_store.definitions import Aggregate, Measure, Op, Tile

Counts = dict[Measure, int]
"""What one tile holds."""


@dataclass(slots=True)
class History:
    """All that is kept of one card or merchant: its newest event's second, and its tiles by number."""

    newest: int | None = None
    tiles: dict[Tile, dict[int, Counts]] = field(default_factory=lambda: {tile: {} for tile in Tile})

    def add(self, second: int, values: Mapping[Measure, int], stored: Mapping[Tile, Sequence[Measure]]) -> None:
        """Count `values` at event time `second` in every kind of tile that stores them."""
        self._advance(second)
        assert self.newest is not None  # noqa: S101 - _advance has just set it
        for tile, measures in stored.items():
            number = second // tile.seconds
            if number < self.newest // tile.seconds - tile.kept:
                continue
            held = [measure for measure in measures if values.get(measure)]
            if not held:
                continue
            counts = self.tiles[tile].setdefault(number, {})
            for measure in held:
                before = counts.get(measure, 0)
                counts[measure] = (
                    max(before, values[measure]) if measure is Measure.LARGEST_RATIO else before + values[measure]
                )

    def _advance(self, second: int) -> None:
        """Move the newest event forward, and drop the tiles that fall out of what is kept."""
        if self.newest is not None and second <= self.newest:
            return
        self.newest = second
        for tile, numbered in self.tiles.items():
            oldest = second // tile.seconds - tile.kept
            for number in [number for number in numbered if number < oldest]:
                del numbered[number]

    def read(self, second: int, aggregates: tuple[Aggregate, ...]) -> tuple[int, ...]:
        """Read each aggregate as of event time `second`."""
        values = [0] * len(aggregates)
        for window_of, asked in _by_window(aggregates).items():
            window = self._window(second, window_of)
            for place, a in asked:
                values[place] = self._elapsed(second, a) if a.op is Op.ELAPSED else _combined(window, a)
        return tuple(values)

    def _window(self, second: int, a: Aggregate) -> "Window":
        """Collect the tiles of a window, newest first, each with its distance from the window's end."""
        last = last_tile(second, a)
        numbered = self.tiles[a.tile]
        if len(numbered) < a.window:
            numbers = sorted((n for n in numbered if last - a.window < n <= last), reverse=True)
        else:
            numbers = [n for n in range(last, last - a.window, -1) if n in numbered]
        return [(last - n, numbered[n]) for n in numbers]

    def _elapsed(self, second: int, a: Aggregate) -> int:
        if self.newest is None or second - self.newest > a.window * a.tile.seconds:
            return -1
        return max(0, second - self.newest)


Window = list[tuple[int, Counts]]


@functools.cache
def _by_window(aggregates: tuple[Aggregate, ...]) -> dict[Aggregate, list[tuple[int, Aggregate]]]:
    """Group aggregates, each with its place, by the window they look at; the first of a group stands for it."""
    groups: dict[tuple[Tile, int, int], list[tuple[int, Aggregate]]] = {}
    for place, a in enumerate(aggregates):
        groups.setdefault((a.tile, a.window, a.delay), []).append((place, a))
    return {asked[0][1]: asked for asked in groups.values()}


def _combined(window: Window, a: Aggregate) -> int:
    match a.op:
        case Op.SINCE:
            return next((ago for ago, counts in window if measured(counts, a.measure) > 0), -1)
        case Op.RUN | Op.RUN_AGE:
            length, age = 0, -1
            for ago, counts in window:
                if measured(counts, Measure.GENUINE) > 0:
                    break
                if frauds := measured(counts, Measure.FRAUDS):
                    length, age = length + frauds, ago
            return length if a.op is Op.RUN else age
        case _:
            values = [measured(counts, a.measure) for _, counts in window]
            return max(values, default=0) if a.measure is Measure.LARGEST_RATIO else sum(values)


def last_tile(second: int, aggregate: Aggregate) -> int:
    """Give the number of the newest tile in the window of an event at `second`."""
    if aggregate.delay == 0:
        return second // aggregate.tile.seconds
    return (second - aggregate.delay) // aggregate.tile.seconds - 1


def measured(counts: Counts, measure: Measure) -> int:
    """Read one measure of a tile; never below zero, also where labels came before their transactions."""
    if measure is Measure.GENUINE:
        return max(0, counts.get(Measure.COUNT, 0) - counts.get(Measure.FRAUDS, 0))
    return counts.get(measure, 0)
