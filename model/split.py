"""Cuts transactions by time, as the future is what a model meets, and holds what training is told.

Train, wait for the labels, choose thresholds on the next days, test on the last.
"""

from dataclasses import asdict, dataclass
from datetime import timedelta

import numpy as np

from feature_store.definitions import DAYS
from model.dataset import CHARGEBACK_DELAY, Dataset


class TrainingError(RuntimeError):
    """The transactions do not allow training; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All that training depends on beside the transactions."""

    label_delay: timedelta = CHARGEBACK_DELAY
    """How late labels are; also the gap between the last transaction to train on and the next one to judge by."""
    warm_up: timedelta = timedelta(days=30)
    """Left out at the beginning, as windows are still filling; at most half of what is there to train on."""
    choosing: timedelta = timedelta(days=7)
    testing: timedelta = timedelta(days=7)
    genuine_rows: int = 60_000
    """At most so many genuine transactions are trained on, drawn at random. Histogram trees see 255 values of a
    feature; with fewer genuine ones, more of these values are left for the tails where frauds are."""
    trees: int = 150
    leaves: int = 15
    learning_rate: float = 0.05
    seed: int = 7
    decline_precision: float = 0.9
    """What is declined should be fraud this often."""
    review_share: float = 0.01
    """About this share of transactions is to be declined or reviewed."""


@dataclass(frozen=True)
class Split:
    """The parts of the data, by time; `ranges` gives [start, end) of each, in seconds since 1970."""

    train: Dataset
    choose: Dataset
    test: Dataset
    ranges: tuple[tuple[int, int], ...]


def split(data: Dataset, settings: Settings) -> Split:
    """Cut from the end: testing, choosing thresholds, the gap, training; a warm-up is left out before.

    Raises:
        TrainingError: a part would hold no fraud or no genuine transaction.
    """
    seconds = {
        name: int(value.total_seconds()) for name, value in asdict(settings).items() if isinstance(value, timedelta)
    }
    if not len(data):
        raise TrainingError("there are no transactions")
    begin, end = int(data.second[0]) // DAYS * DAYS, int(data.second[-1]) // DAYS * DAYS + DAYS
    test_from = end - seconds["testing"]
    choose_from = test_from - seconds["choosing"]
    train_to = choose_from - seconds["label_delay"]
    train_from = begin + min(seconds["warm_up"], max(0, train_to - begin) // 2)
    ranges = ((train_from, train_to), (choose_from, test_from), (test_from, end))
    parts = [data.between(*part) for part in ranges]
    for what, part in zip(("train on", "choose thresholds by", "test on"), parts, strict=True):
        if not 0 < np.count_nonzero(part.is_fraud) < len(part):
            raise TrainingError(
                f"the {len(part)} transactions to {what} hold {np.count_nonzero(part.is_fraud)} labelled frauds;"
                " some of both kinds are needed: more days, or the column with the labels (--columns is_fraud=...)"
            )
    train, choose, test = parts
    return Split(train, choose, test, ranges)
