"""The vocabulary in which features are declared: whose history, cut into which tiles, holding what, read how.

What is declared in it stands in `features.py`; `feature_set.py` makes it executable.
"""

from dataclasses import dataclass
from enum import StrEnum

MINUTES, HOURS, DAYS = 60, 3_600, 86_400


class Writer(StrEnum):
    """Who counts transactions for an entity."""

    COMMIT = "commit"
    """The decision itself, in the same step that stores it: the next decision sees it. The card, and only the card."""
    UPDATER = "updater"
    """The updater, which follows topic `decisions`: its windows end some `delay` before the event."""


@dataclass(frozen=True, slots=True, eq=False)
class Entity:
    """Whose history is kept: everything with the same value in the transaction's field `key`."""

    name: str
    key: str
    """The field of a transaction. Where it is absent, the entity reads as one that nothing is known of."""
    written_by: Writer


class Tile(StrEnum):
    """The length of the pieces that time is cut into."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"

    @property
    def seconds(self) -> int:
        """Length of one tile."""
        return _SECONDS[self]

    @property
    def kept(self) -> int:
        """How many tiles before the newest are kept: the longest window, its delay, and some for late events."""
        return KEPT[self]


_SECONDS = {Tile.MINUTE: MINUTES, Tile.HOUR: HOURS, Tile.DAY: DAYS}
KEPT = {Tile.MINUTE: 90, Tile.HOUR: 36, Tile.DAY: 41}


class Measure(StrEnum):
    """What a tile holds, all integers. Amounts are in cents of the reference currency, see `rates.py`."""

    __hash__ = str.__hash__  # that of an Enum is a call of Python, and these are keys on the way of every decision

    COUNT = "count"
    AMOUNT = "amount"
    """Sum of amounts."""
    SQUARES = "squares"
    """Sum of squared amounts."""
    LARGEST_RATIO = "largest_ratio"
    """Greatest amount / own mean at that time, in thousandths. Depends on the order of the log."""
    HIGH_RATIOS = "high_ratios"
    """How many of those ratios were above 2.5. Depends on the order of the log likewise."""
    FRAUDS = "frauds"
    """Transactions labelled as fraud."""
    GENUINE = "genuine"
    """COUNT - FRAUDS, never stored: a transaction is known genuine when its label delay passed without a chargeback."""


ORDERED = frozenset({Measure.LARGEST_RATIO, Measure.HIGH_RATIOS})
"""Measures that depend on the order of an entity's transactions: only `commit` sees them in that order."""
LABELLED = frozenset({Measure.FRAUDS, Measure.GENUINE})
"""Measures that labels change."""


class Op(StrEnum):
    """How the tiles of a window become one integer."""

    TOTAL = "total"
    """Sum over the window (for LARGEST_RATIO: the maximum)."""
    SINCE = "since"
    """Tiles between the window's end and the newest with any of the measure; -1 if there is none."""
    RUN = "run"
    """Frauds in tiles newer than the newest one with a genuine transaction: the current run."""
    RUN_AGE = "run_age"
    """Tiles between the window's end and the oldest of that run; -1 if there is none."""
    ELAPSED = "elapsed"
    """Seconds since the entity's newest transaction, 0 for a late one; -1 if that is longer ago than the window."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One integer read from an entity: `op` of `measure` over the last `window` tiles that ended `delay` seconds ago.

    With no delay the window includes the tile the event falls in. With one, it ends with the last tile that was over
    `delay` seconds before the event, so that state which lags by less than that cannot be told from current state.
    """

    entity: Entity
    op: Op
    measure: Measure
    tile: Tile
    window: int
    delay: int = 0

    @property
    def needs(self) -> tuple[Measure, ...]:
        """The measures that tiles must hold for it."""
        if self.op is Op.ELAPSED:
            return ()
        if self.measure is Measure.GENUINE or self.op in {Op.RUN, Op.RUN_AGE}:
            return (Measure.COUNT, Measure.FRAUDS)
        return (self.measure,)


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the model's input: `formula` (see `formulas.py`) of the transaction and the aggregates `of`."""

    name: str
    formula: str
    of: tuple[Aggregate, ...] = ()
