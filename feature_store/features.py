"""The entities and features that ship, as data. To add one, add a line here; training and serving follow by themselves.

This tuple is the only place that lists them, and its order is the order of the model's input.
"""

from feature_store.definitions import DAYS, MINUTES, Aggregate, Entity, Feature, Measure, Op, Tile, Writer
from feature_store.feature_set import FeatureSet

CARD = Entity("card", key="card_id", written_by=Writer.COMMIT)
MERCHANT = Entity("merchant", key="merchant_id", written_by=Writer.UPDATER)
ENTITIES = (CARD, MERCHANT)

MERCHANT_DELAY = 2 * MINUTES
"""Merchant state follows the log; while it lags by less than this, nobody can tell."""
LABEL_DELAY = 7 * DAYS + MERCHANT_DELAY
"""Chargebacks take days: a label is used seven days after its transaction, plus the time to apply it."""


def _card(measure: Measure, tile: Tile, window: int) -> Aggregate:
    return Aggregate(CARD, Op.TOTAL, measure, tile, window)


def _merchant(measure: Measure, tile: Tile, window: int) -> Aggregate:
    return Aggregate(MERCHANT, Op.TOTAL, measure, tile, window, MERCHANT_DELAY)


def _labelled(op: Op, measure: Measure, window: int, entity: Entity = MERCHANT) -> Aggregate:
    return Aggregate(entity, op, measure, Tile.DAY, window, LABEL_DELAY)


def _moments(window: int) -> tuple[Aggregate, ...]:
    """Count, sum and squares of a card's amounts: what a mean and a spread are made of."""
    return tuple(_card(kind, Tile.DAY, window) for kind in (Measure.COUNT, Measure.AMOUNT, Measure.SQUARES))


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
    Feature("card_seconds_since_last", "since", (Aggregate(CARD, Op.ELAPSED, Measure.COUNT, Tile.DAY, 37),)),
    # The amount against the card's own
    Feature("amount_over_card_mean_30d", "over_mean", CARD_MEAN),
    Feature("amount_deviations_30d", "deviations", _moments(30)),
    Feature("card_largest_ratio_7d", "thousandths", (_card(Measure.LARGEST_RATIO, Tile.DAY, 7),)),
    Feature("card_high_ratios_7d", "value", (_card(Measure.HIGH_RATIOS, Tile.DAY, 7),)),
    Feature("card_frauds_30d", "value", (_labelled(Op.TOTAL, Measure.FRAUDS, 30, CARD),)),
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

SHIPPED = FeatureSet(ENTITIES, FEATURES, own_mean=(CARD_MEAN[0], CARD_MEAN[1]))
"""What every process serves, trains and verifies unless it is given another set."""
