"""What the features ask of one entity, worked out once: which measures its tiles hold, and which windows are read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from feature_store.definitions import Aggregate, Entity, Measure, Op, Tile


class Walk(NamedTuple):
    """An aggregate for which the rows of its window are walked one by one."""

    place: int
    op: Op
    column: int
    frauds: int
    """Column of the labelled frauds, where the operation needs both; else 0."""


class Window(NamedTuple):
    """`tiles` tiles that end `delay` seconds before the event, and what is asked of them."""

    tiles: int
    delay: int
    sums: tuple[tuple[int, int], ...]
    """Place in what is read, and the column that is added up."""
    largest: tuple[tuple[int, int], ...]
    """Likewise, where the maximum is asked for."""
    walks: tuple[Walk, ...]


@dataclass(frozen=True, slots=True)
class TilePlan:
    """One kind of tile of an entity. Its table has the tile's number in column 0, then `measures`, sorted by number."""

    tile: Tile
    seconds: int
    kept: int
    measures: tuple[Measure, ...]
    largest: int
    """Column of LARGEST_RATIO, of which a tile keeps the maximum; 0 if there is none."""
    windows: tuple[Window, ...]


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

    @property
    def stored(self) -> dict[Tile, tuple[Measure, ...]]:
        """What the tiles hold: no more than some feature asks for."""
        return {plan.tile: plan.measures for plan in self.tiles}

    def _tile_plan(self, tile: Tile) -> TilePlan:
        asked = [(place, a) for place, a in enumerate(self.aggregates) if a.tile is tile and a.op is not Op.ELAPSED]
        needed = {measure for _, a in asked for measure in a.needs}
        measures = tuple(measure for measure in Measure if measure in needed)
        columns = {measure: column for column, measure in enumerate(measures, start=1)}
        windows: dict[tuple[int, int], list[tuple[int, Aggregate]]] = {}
        for place, a in asked:
            windows.setdefault((a.window, a.delay), []).append((place, a))
        return TilePlan(
            tile,
            tile.seconds,
            tile.kept,
            measures,
            columns.get(Measure.LARGEST_RATIO, 0),
            tuple(_window(tiles, delay, several, columns) for (tiles, delay), several in windows.items()),
        )


def _window(tiles: int, delay: int, asked: Sequence[tuple[int, Aggregate]], columns: Mapping[Measure, int]) -> Window:
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
    return Window(tiles, delay, tuple(sums), tuple(largest), tuple(walks))
