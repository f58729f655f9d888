"""All that is kept of one card, merchant or other entity: how it counts events, and what a window over it reads.

This is the only execution of the features' windows. Serving, training, recovery and audit run it on the same rows.

Tiles are a function of the set of events counted, not of their order: an entity keeps the tiles back to `Tile.kept`
before its newest transaction, and an event older than that leaves no trace, whether it came early or late. (The two
measures in `definitions.ORDERED` depend on the card's order in the log, which is the order of its commits.)
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping

from feature_store.definitions import Measure, Op
from feature_store.plan import Plan, TilePlan, Walk

Table = list[list[int]]
"""Rows as columns of equal length."""
Offsets = dict[int, int]
"""By partition: the last sequence (decisions) or offset (labels) that was counted."""


class History:
    """One entity.

    Attributes:
        plan: what its tiles hold and which windows are read.
        newest: second of its newest transaction, None before the first. A label never moves it.
        revision: how often it was written; compare-and-set compares this.
        decisions: which transactions it has counted. A card's come from one partition, its own.
        labels: which labels it has counted.
        tables: for each kind of tile in `plan.tiles`: tile numbers, then a column for each measure.
    """

    __slots__ = ("decisions", "labels", "newest", "plan", "revision", "tables")

    def __init__(self, plan: Plan, tables: list[Table] | None = None) -> None:
        self.plan = plan
        self.newest: int | None = None
        self.revision = 0
        self.decisions: Offsets = {}
        self.labels: Offsets = {}
        self.tables = tables or [[[] for _ in range(len(tile.measures) + 1)] for tile in plan.tiles]

    def count(self, second: int, values: Mapping[Measure, int]) -> None:
        """Count a transaction at event time `second`, and drop the tiles that fall out of what is kept."""
        if self.newest is None or second > self.newest:
            self.newest = second
            for tile, table in zip(self.plan.tiles, self.tables, strict=True):
                numbers, oldest = table[0], second // tile.seconds - tile.kept
                if numbers and numbers[0] < oldest:
                    gone = bisect_left(numbers, oldest)
                    for column in table:
                        del column[:gone]
        self.add(second, values)

    def add(self, second: int, values: Mapping[Measure, int]) -> None:
        """Add `values` to the tiles of event time `second`, as a label does. What is no longer kept is left out."""
        newest = self.newest
        for tile, table in zip(self.plan.tiles, self.tables, strict=True):
            number = second // tile.seconds
            if newest is None or number >= newest // tile.seconds - tile.kept:
                added = [values.get(measure, 0) for measure in tile.measures]
                if any(added):
                    _add(tile, table, number, added)

    def read(self, second: int) -> list[int]:
        """Read every aggregate of the plan, in its order, as of event time `second`."""
        values = self.plan.nothing.copy()
        for place, limit in self.plan.elapsed:
            if self.newest is not None and second - self.newest <= limit:
                values[place] = max(0, second - self.newest)
        for tile, table in zip(self.plan.tiles, self.tables, strict=True):
            numbers, seconds = table[0], tile.seconds
            for delay, windows in tile.endings:
                last = last_tile(second, seconds, delay)
                first, end = 0, bisect_right(numbers, last)
                for tiles, sums, largest, walks in windows:
                    first = bisect_left(numbers, last - tiles + 1, first, end)
                    if first == end:
                        break  # narrower ones are empty too
                    for place, column in sums:
                        values[place] = sum(table[column][first:end])
                    for place, column in largest:
                        values[place] = max(table[column][first:end])
                    for walk in walks:
                        values[walk.place] = _walked(table, first, end, last, walk)
        return values

    def covers(self, second: int) -> bool:
        """Whether every window of an event at `second` lies in what is kept. A late one may reach further back."""
        if self.newest is None or second >= self.newest:
            return True
        return all(
            last_tile(second, tile.seconds, ending.delay) - window.tiles + 1 >= self.newest // tile.seconds - tile.kept
            for tile in self.plan.tiles
            for ending in tile.endings
            for window in ending.windows
        )


def last_tile(second: int, seconds: int, delay: int) -> int:
    """Give the number of the newest tile in the window of an event at `second`, for tiles of so many `seconds`."""
    return (second - delay) // seconds - 1 if delay else second // seconds


def _add(tile: TilePlan, table: Table, number: int, added: list[int]) -> None:
    numbers = table[0]
    if not numbers or number > numbers[-1]:
        numbers.append(number)
        for column, value in enumerate(added, start=1):
            table[column].append(value)
        return
    row = bisect_left(numbers, number)
    if numbers[row] != number:
        numbers.insert(row, number)
        for column, value in enumerate(added, start=1):
            table[column].insert(row, value)
        return
    for column, value in enumerate(added, start=1):
        values = table[column]
        values[row] = max(values[row], value) if column == tile.largest else values[row] + value


def _walked(table: Table, first: int, end: int, last: int, walk: Walk) -> int:
    """Walk a window from its newest tile to its oldest."""
    numbers, counted = table[0], table[walk.column]
    frauds = table[walk.frauds] if walk.frauds else None
    if walk.op is Op.SINCE:
        for row in range(end - 1, first - 1, -1):
            if counted[row] > (frauds[row] if frauds is not None else 0):
                return last - numbers[row]
        return -1
    length, age = 0, -1
    for row in range(end - 1, first - 1, -1):
        if frauds is None or counted[row] > frauds[row]:  # a genuine one ends the run
            break
        if frauds[row]:
            length, age = length + frauds[row], last - numbers[row]
    return length if walk.op is Op.RUN else age
