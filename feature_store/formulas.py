"""The formulas that features name: from a transaction and integers read from state to one number."""

import math
from collections.abc import Callable, Mapping

from feature_store.transaction import Transaction

CENTS = 100
RATIO_CAP = 10**9
"""Ratios are counted up to a million times the mean, in thousandths."""


def ratio_to_mean(amount: int, count: int, total: int) -> int:
    """Give an amount in thousandths of the mean `total / count`; 0 where there is none."""
    return min(amount * count * 1_000 // total, RATIO_CAP) if total else 0


def _amount(transaction: Transaction) -> float:
    """Amount in euros."""
    return transaction.cents / CENTS


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


def _money(_: Transaction, cents: int) -> float:
    return cents / CENTS


def _since(_: Transaction, steps: int) -> float:
    """Steps since something; -1 stands for never."""
    return float(steps) if steps >= 0 else math.nan


def _mean(_: Transaction, count: int, total: int) -> float:
    """Mean amount in euros."""
    return total / count / CENTS if count else math.nan


def _over_mean(transaction: Transaction, count: int, total: int) -> float:
    return transaction.cents * count / total if total else math.nan


def _deviations(transaction: Transaction, count: int, total: int, squares: int) -> float:
    """Standard score of the amount: (amount - mean) / standard deviation of the population."""
    spread = count * squares - total * total  # variance times count squared, an exact integer
    return (transaction.cents * count - total) / math.sqrt(spread) if spread > 0 else math.nan


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
