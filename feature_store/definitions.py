"""The features, as data: what is kept of an entity, over which window, and how it becomes a number.

This tuple is the only place that lists them. Python (`tiles.py`) and Lua (`lua/tiles.lua`) both execute it, training
and serving read it, and its fingerprint ties a model to it.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum

MINUTES, HOURS, DAYS = 60, 3_600, 86_400


class Entity(StrEnum):
    """Whose history a feature looks at."""

    CARD = "card"
    MERCHANT = "merchant"


class Tile(StrEnum):
    """The length of the pieces that time is cut into; the value is the letter in Redis."""

    MINUTE = "m"
    HOUR = "h"
    DAY = "d"

    @property
    def seconds(self) -> int:
        """Length of one tile."""
        return _SECONDS[self]

    @property
    def kept(self) -> int:
        """How many tiles before the newest are kept: the longest window, its delay, and some for late events."""
        return _KEPT[self]


_SECONDS = {Tile.MINUTE: MINUTES, Tile.HOUR: HOURS, Tile.DAY: DAYS}
_KEPT = {Tile.MINUTE: 90, Tile.HOUR: 36, Tile.DAY: 41}


class Measure(StrEnum):
    """What a tile holds, all integers; the value is the letter in Redis."""

    COUNT = "n"
    AMOUNT = "a"
    """Sum of amounts, minor units."""
    SQUARE_HIGH = "q"
    """Sum of amount**2 // 10**10; the squares are kept in two parts so that both sums stay exact in a double."""
    SQUARE_LOW = "r"
    """Sum of amount**2 % 10**10."""
    LARGEST_RATIO = "x"
    """Greatest amount / card's mean at that time, in thousandths. Depends on the card's order in the log."""
    HIGH_RATIOS = "y"
    """How many of those ratios were above 2.5. Depends on the order of the log likewise."""
    FRAUDS = "f"
    """Transactions labelled as fraud."""
    GENUINE = "g"
    """COUNT - FRAUDS, never stored: a transaction is known genuine when its label delay passed without a chargeback."""


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
    """Seconds since the entity's newest event, 0 for a late one; -1 if that is longer ago than the window."""


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


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the model's input: `formula` (see `formulas.py`) of the transaction and the aggregates `of`."""

    name: str
    formula: str
    of: tuple[Aggregate, ...] = ()


MERCHANT_DELAY = 2 * MINUTES
"""Merchant state follows the log; while it lags by less than this, nobody can tell."""
LABEL_DELAY = 7 * DAYS + MERCHANT_DELAY
"""Chargebacks take days: a label is used seven days after its transaction, plus the time to apply it."""


def _card(measure: Measure, tile: Tile, window: int) -> Aggregate:
    return Aggregate(Entity.CARD, Op.TOTAL, measure, tile, window)


def _merchant(measure: Measure, tile: Tile, window: int) -> Aggregate:
    return Aggregate(Entity.MERCHANT, Op.TOTAL, measure, tile, window, MERCHANT_DELAY)


def _labelled(op: Op, measure: Measure, window: int, entity: Entity = Entity.MERCHANT) -> Aggregate:
    return Aggregate(entity, op, measure, Tile.DAY, window, LABEL_DELAY)


def _moments(window: int) -> tuple[Aggregate, ...]:
    """Count, sum and squares of a card's amounts: what a mean and a spread are made of."""
    kinds = (Measure.COUNT, Measure.AMOUNT, Measure.SQUARE_HIGH, Measure.SQUARE_LOW)
    return tuple(_card(kind, Tile.DAY, window) for kind in kinds)


CARD_MEAN = _moments(30)[:2]
"""Count and sum behind the card's own mean, against which each amount is compared."""


def _fraud_share(window: int) -> tuple[Aggregate, ...]:
    return (
        _labelled(Op.TOTAL, Measure.FRAUDS, window),
        _labelled(Op.TOTAL, Measure.COUNT, window),
    )


FEATURES: tuple[Feature, ...] = (
    Feature("amount", "amount"),
    Feature("hour_of_day", "hour_of_day"),
    Feature("day_of_week", "day_of_week"),
    # The card's velocity
    Feature("card_count_10m", "value", (_card(Measure.COUNT, Tile.MINUTE, 10),)),
    Feature("card_count_1h", "value", (_card(Measure.COUNT, Tile.MINUTE, 60),)),
    Feature("card_count_1d", "value", (_card(Measure.COUNT, Tile.HOUR, 24),)),
    Feature("card_count_7d", "value", (_card(Measure.COUNT, Tile.DAY, 7),)),
    Feature("card_count_30d", "value", (_card(Measure.COUNT, Tile.DAY, 30),)),
    Feature("card_amount_1d", "money", (_card(Measure.AMOUNT, Tile.HOUR, 24),)),
    Feature("card_mean_7d", "mean", _moments(7)[:2]),
    Feature("card_mean_30d", "mean", CARD_MEAN),
    Feature(
        "card_seconds_since_last",
        "since",
        (Aggregate(Entity.CARD, Op.ELAPSED, Measure.COUNT, Tile.DAY, 37),),
    ),
    # The amount against the card's own
    Feature("amount_over_card_mean_30d", "over_mean", CARD_MEAN),
    Feature("amount_deviations_30d", "deviations", _moments(30)),
    Feature("card_largest_ratio_7d", "thousandths", (_card(Measure.LARGEST_RATIO, Tile.DAY, 7),)),
    Feature("card_high_ratios_7d", "value", (_card(Measure.HIGH_RATIOS, Tile.DAY, 7),)),
    Feature("card_frauds_30d", "value", (_labelled(Op.TOTAL, Measure.FRAUDS, 30, Entity.CARD),)),
    # The merchant's traffic
    Feature("merchant_count_1h", "value", (_merchant(Measure.COUNT, Tile.MINUTE, 60),)),
    Feature("merchant_count_1d", "value", (_merchant(Measure.COUNT, Tile.HOUR, 24),)),
    Feature("merchant_count_7d", "value", (_merchant(Measure.COUNT, Tile.DAY, 7),)),
    Feature(
        "amount_over_merchant_mean_7d",
        "over_mean",
        (_merchant(Measure.COUNT, Tile.DAY, 7), _merchant(Measure.AMOUNT, Tile.DAY, 7)),
    ),
    # The merchant's known frauds
    Feature("merchant_frauds_7d", "value", (_labelled(Op.TOTAL, Measure.FRAUDS, 7),)),
    Feature("merchant_fraud_share_7d", "share", _fraud_share(7)),
    Feature("merchant_fraud_share_30d", "share", _fraud_share(30)),
    Feature("merchant_fraud_run", "value", (_labelled(Op.RUN, Measure.FRAUDS, 30),)),
    Feature("merchant_fraud_run_age", "since", (_labelled(Op.RUN_AGE, Measure.FRAUDS, 30),)),
    Feature("merchant_days_since_fraud", "since", (_labelled(Op.SINCE, Measure.FRAUDS, 30),)),
    Feature("merchant_days_since_genuine", "since", (_labelled(Op.SINCE, Measure.GENUINE, 30),)),
)

NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)

AGGREGATES: dict[Entity, tuple[Aggregate, ...]] = {
    entity: tuple(dict.fromkeys(a for feature in FEATURES for a in feature.of if a.entity is entity))
    for entity in Entity
}
"""What is read of each entity, each integer once, in this order."""


def _needs(aggregate: Aggregate) -> tuple[Measure, ...]:
    if aggregate.op is Op.ELAPSED:
        return ()
    if aggregate.measure is Measure.GENUINE or aggregate.op in {Op.RUN, Op.RUN_AGE}:
        return (Measure.COUNT, Measure.FRAUDS)
    return (aggregate.measure,)


def _stored(entity: Entity, tile: Tile) -> tuple[Measure, ...]:
    wanted = {measure for a in AGGREGATES[entity] if a.tile is tile for measure in _needs(a)}
    return tuple(measure for measure in Measure if measure in wanted)


STORED: dict[Entity, dict[Tile, tuple[Measure, ...]]] = {
    entity: {tile: _stored(entity, tile) for tile in Tile} for entity in Entity
}
"""What the tiles of each entity hold: no more than some feature asks for."""

ARITHMETIC = 1
"""Raise it when code gives a feature another meaning: a formula, what is counted, how a window is cut or kept."""


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


FINGERPRINT = _digest(ARITHMETIC, _KEPT, [asdict(feature) for feature in FEATURES])
"""Names these features exactly: a model carries it, and is refused where another one runs."""
LAYOUT = _digest(ARITHMETIC, _KEPT, STORED)
"""Names what tiles hold: state carries it, and is refused by processes that would count something else."""
