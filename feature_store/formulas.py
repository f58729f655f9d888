"""The formulas that features name: from a transaction and integers read from state to one number."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

CENTS = 100
RATIO_CAP = 10**9
"""Ratios are counted up to a million times the mean, in thousandths."""


class Payment(NamedTuple):
    """A transaction as formulas see it."""

    cents: int
    """Amount in euro cents, see `rates.py`."""
    second: int
    """Event time, since 1970, UTC."""


def ratio_to_mean(amount: int, count: int, total: int) -> int:
    """Give an amount in thousandths of the mean `total / count`; 0 where there is none."""
    return min(amount * count * 1_000 // total, RATIO_CAP) if total else 0


def _amount(payment: Payment) -> float:
    """Amount in euros."""
    return payment.cents / CENTS


def _hour_of_day(payment: Payment) -> float:
    """Hours since midnight UTC, 0 to 24."""
    return payment.second % 86_400 / 3_600


def _day_of_week(payment: Payment) -> float:
    """0 for Monday (1970-01-01 was a Thursday)."""
    return float((payment.second // 86_400 + 3) % 7)


def _value(_: Payment, value: int) -> float:
    return float(value)


def _thousandths(_: Payment, value: int) -> float:
    return value / 1_000


def _money(_: Payment, cents: int) -> float:
    return cents / CENTS


def _since(_: Payment, steps: int) -> float:
    """Steps since something; -1 stands for never."""
    return float(steps) if steps >= 0 else math.nan


def _mean(_: Payment, count: int, total: int) -> float:
    """Mean amount in euros."""
    return total / count / CENTS if count else math.nan


def _over_mean(payment: Payment, count: int, total: int) -> float:
    return payment.cents * count / total if total else math.nan


def _deviations(payment: Payment, count: int, total: int, squares: int) -> float:
    """Standard score of the amount: (amount - mean) / standard deviation of the population."""
    spread = count * squares - total * total  # variance times count squared, an exact integer
    return (payment.cents * count - total) / math.sqrt(spread) if spread > 0 else math.nan


def _share(_: Payment, part: int, whole: int) -> float:
    return part / whole if whole else math.nan


Formula = Callable[..., float]
"""Takes a payment and the integers that were read for it."""
VALUE = "value"
"""The formula that gives its integer as it is: a row takes that without a call."""
FORMULAS: Mapping[str, Formula] = {
    "amount": _amount,
    "hour_of_day": _hour_of_day,
    "day_of_week": _day_of_week,
    VALUE: _value,
    "thousandths": _thousandths,
    "money": _money,
    "since": _since,
    "mean": _mean,
    "over_mean": _over_mean,
    "deviations": _deviations,
    "share": _share,
}
