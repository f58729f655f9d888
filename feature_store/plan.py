"""What the features ask of one entity, worked out once: which measures its tiles hold, and which windows are read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from feature_store.definitions import Aggregate, Entity, Measure, Op, Tile

_NEVER = frozenset({Op.SINCE, Op.RUN_AGE, Op.ELAPSED})
"""What is -1 where there is nothing."""


class Walk(NamedTuple):
    """An aggregate for which the rows of its window are walked one by one."""

    place: int
    op: Op
    column: int
    frauds: int
    """Column of the labelled frauds, where the operation needs both; else 0."""


class Window(NamedTuple):
    """So many tiles, and what is asked of them."""

    tiles: int
    sums: tuple[tuple[int, int], ...]
    """Place in what is read, and the column that is added up."""
    largest: tuple[tuple[int, int], ...]
    """Likewise, where the maximum is asked for."""
    walks: tuple[Walk, ...]


class Ending(NamedTuple):
    """Windows that end together, `delay` seconds before the event; the widest first."""

    delay: int
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class TilePlan:
    """One kind of tile of an entity. Its table has the tile's number in column 0, then `measures`, sorted by number."""

    tile: Tile
    seconds: int
    kept: int
    measures: tuple[Measure, ...]
    largest: int
    """Column of LARGEST_RATIO, of which a tile keeps the maximum; 0 if there is none."""
    endings: tuple[Ending, ...]


class Plan:
    """What is kept and read of one entity. `aggregates` is the order in which its integers are read."""

    def __init__(self, entity: Entity, aggregates: Iterable[Aggregate]) -> None:
        self.entity = entity
        self.aggregates = tuple(dict.fromkeys(aggregates))
        self.tiles = tuple(plan for tile in Tile if (plan := self._tile_plan(tile)).measures)
        self.elapsed = tuple(
            (place, a.window * a.tile.seconds) for place, a in enumerate(self.aggregates) if a.op is Op.ELAPSED
        )
        """Place and limit in seconds of each ELAPSED."""
        self.nothing = [-1 if a.op in _NEVER else 0 for a in self.aggregates]
        """What is read of an entity of which nothing is known."""

    @property
    def stored(self) -> dict[Tile, tuple[Measure, ...]]:
        """What the tiles hold: no more than some feature asks for."""
        return {plan.tile: plan.measures for plan in self.tiles}

    def _tile_plan(self, tile: Tile) -> TilePlan:
        asked = [(place, a) for place, a in enumerate(self.aggregates) if a.tile is tile and a.op is not Op.ELAPSED]
        needed = {measure for _, a in asked for measure in a.needs}
        measures = tuple(measure for measure in Measure if measure in needed)
        columns = {measure: column for column, measure in enumerate(measures, start=1)}
        endings: dict[int, dict[int, list[tuple[int, Aggregate]]]] = {}
        for place, a in asked:
            endings.setdefault(a.delay, {}).setdefault(a.window, []).append((place, a))
        return TilePlan(
            tile,
            tile.seconds,
            tile.kept,
            measures,
            columns.get(Measure.LARGEST_RATIO, 0),
            tuple(_ending(delay, windows, columns) for delay, windows in endings.items()),
        )


def _ending(delay: int, asked: Mapping[int, Sequence[tuple[int, Aggregate]]], columns: Mapping[Measure, int]) -> Ending:
    widest_first = sorted(asked, reverse=True)
    return Ending(delay, tuple(_window(tiles, asked[tiles], columns) for tiles in widest_first))


def _window(tiles: int, asked: Sequence[tuple[int, Aggregate]], columns: Mapping[Measure, int]) -> Window:
    sums, largest, walks = [], [], []
    for place, a in asked:
        both = Measure.FRAUDS in a.needs and Measure.COUNT in a.needs
        column = columns[Measure.COUNT if both else a.measure]
        if a.op is not Op.TOTAL:
            walks.append(Walk(place, a.op, column, columns[Measure.FRAUDS] if both else 0))
        elif a.measure is Measure.LARGEST_RATIO:
            largest.append((place, column))
        else:
            sums.append((place, column))
    return Window(tiles, tuple(sums), tuple(largest), tuple(walks))
