"""From integers to the model's input: the formulas that the features name, and the row they make.

Both executions of the tiles meet here: a feature differs between training and serving only if an integer does.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.currency import EXPONENT
from feature_store.definitions import AGGREGATES, CARD_MEAN, FEATURES, Entity, Measure
from feature_store.transaction import Transaction

SQUARE_BASE = 10**10
"""Where a squared amount is cut in two, see `Measure.SQUARE_HIGH`."""
HIGH_RATIO = 2_500
"""An amount above 2.5 times the card's mean (thousandths) is counted as high."""
RATIO_CAP = 10**9
"""Ratios are counted up to a million times the mean, in thousandths."""

FeatureVector = npt.NDArray[np.float32]
"""Shape (len(FEATURES),): the model's input for one transaction; NaN where a value is not known."""


@dataclass(frozen=True, slots=True)
class Aggregates:
    """The integers read for one transaction, each tuple in the order of `AGGREGATES[entity]`."""

    card: tuple[int, ...]
    merchant: tuple[int, ...]


def feature_vector(transaction: Transaction, read: Aggregates) -> FeatureVector:
    """Compute every feature in its fixed order, as float32."""
    values = {Entity.CARD: read.card, Entity.MERCHANT: read.merchant}
    return np.array(
        [formula(transaction, *[values[entity][index] for entity, index in places]) for formula, places in _PLAN],
        dtype=np.float32,
    )


def counted(transaction: Transaction, read: Aggregates) -> dict[Measure, int]:
    """Give what this transaction adds to its card's tiles.

    The ratio compares with the card's mean as read, so it depends on the card's earlier transactions in the log.
    """
    amount = transaction.amount
    high, low = divmod(amount * amount, SQUARE_BASE)
    count, total = (read.card[index] for index in _CARD_MEAN)
    ratio = min(amount * count * 1_000 // total, RATIO_CAP) if total else 0
    return {
        Measure.COUNT: 1,
        Measure.AMOUNT: amount,
        Measure.SQUARE_HIGH: high,
        Measure.SQUARE_LOW: low,
        Measure.LARGEST_RATIO: ratio,
        Measure.HIGH_RATIOS: int(ratio > HIGH_RATIO),
    }


def counted_at_merchant(transaction: Transaction) -> dict[Measure, int]:
    """Give what this transaction adds to its merchant's tiles. Nothing here depends on the order of the log."""
    return {Measure.COUNT: 1, Measure.AMOUNT: transaction.amount}


def _amount(transaction: Transaction) -> float:
    """Amount in major units (100.0 for 10000 EUR cents)."""
    return transaction.amount / _scale(transaction)


def _scale(transaction: Transaction) -> int:
    return int(10 ** EXPONENT[transaction.currency])


def _hour_of_day(transaction: Transaction) -> float:
    """Hours since midnight UTC, 0 to 24."""
    return transaction.second % 86_400 / 3_600


def _day_of_week(transaction: Transaction) -> float:
    """0 for Monday (1970-01-01 was a Thursday)."""
    return float((transaction.second // 86_400 + 3) % 7)


def _value(_: Transaction, value: int) -> float:
    return float(value)


def _thousandths(_: Transaction, value: int) -> float:
    return value / 1_000


def _money(transaction: Transaction, minor_units: int) -> float:
    return minor_units / _scale(transaction)


def _since(_: Transaction, steps: int) -> float:
    """Steps since something; -1 stands for never."""
    return float(steps) if steps >= 0 else math.nan


def _mean(transaction: Transaction, count: int, total: int) -> float:
    """Mean amount in major units."""
    return total / count / _scale(transaction) if count else math.nan


def _over_mean(transaction: Transaction, count: int, total: int) -> float:
    return transaction.amount * count / total if total else math.nan


def _deviations(transaction: Transaction, count: int, total: int, high: int, low: int) -> float:
    """Standard score of the amount: (amount - mean) / standard deviation of the population."""
    spread = count * (high * SQUARE_BASE + low) - total * total  # variance times count squared, an exact integer
    return (transaction.amount * count - total) / math.sqrt(spread) if spread > 0 else math.nan


def _share(_: Transaction, part: int, whole: int) -> float:
    return part / whole if whole else math.nan


FORMULAS: Mapping[str, Callable[..., float]] = {
    "amount": _amount,
    "hour_of_day": _hour_of_day,
    "day_of_week": _day_of_week,
    "value": _value,
    "thousandths": _thousandths,
    "money": _money,
    "since": _since,
    "mean": _mean,
    "over_mean": _over_mean,
    "deviations": _deviations,
    "share": _share,
}

_PLAN: Sequence[tuple[Callable[..., float], tuple[tuple[Entity, int], ...]]] = tuple(
    (FORMULAS[feature.formula], tuple((a.entity, AGGREGATES[a.entity].index(a)) for a in feature.of))
    for feature in FEATURES
)
_CARD_MEAN = tuple(AGGREGATES[Entity.CARD].index(a) for a in CARD_MEAN)
