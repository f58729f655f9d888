"""Training data by replay: rows go through the very histories and formulas that serve, in the order of the log.

There is no second definition of a feature to drift away from the first: what the model is trained on is what the online
system would have computed at that moment, with the labels that had arrived by then.
"""

import heapq
import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from feature_store.definitions import Measure
from feature_store.feature_set import FeatureSet, FeatureVector
from feature_store.features import LABEL_DELAY, MERCHANT_DELAY, SHIPPED
from feature_store.history import History
from feature_store.tables import Row
from feature_store.transaction import Transaction

CHARGEBACK_DELAY = timedelta(seconds=LABEL_DELAY - MERCHANT_DELAY)
"""When the label of a fraud arrives, counted from its transaction: as late as the features allow."""


class Rows(Protocol):
    """Transactions in the order of the log, or of event time: a `feature_store.tables.Table`, a simulation, a list."""

    def __len__(self) -> int:
        """Count them."""

    def __iter__(self) -> Iterator[Row]:
        """Go through them."""


@dataclass(frozen=True)
class Dataset:
    """One line for each transaction, in order of event time."""

    features: npt.NDArray[np.float32]
    """Shape (n, features)."""
    is_fraud: npt.NDArray[np.bool_]
    """Shape (n,), as the next two. What turned out later; unknown counts as genuine."""
    second: npt.NDArray[np.int64]
    """Event time, seconds since 1970."""
    card: npt.NDArray[np.int64]
    """Numbers the cards from 0 in the order they appear."""

    def __len__(self) -> int:
        """Count the transactions."""
        return len(self.second)

    def between(self, start: int, end: int) -> "Dataset":
        """Give the part with event times in [start, end), without copying."""
        first, last = np.searchsorted(self.second, (start, end))
        part = slice(int(first), int(last))
        return Dataset(self.features[part], self.is_fraud[part], self.second[part], self.card[part])


def build(rows: Rows, *, label_delay: timedelta = CHARGEBACK_DELAY, features: FeatureSet = SHIPPED) -> Dataset:
    """Replay `rows` and keep the features of each transaction as of its own time.

    Args:
        rows: In the order in which they were decided, where that is known; else of event time.
        label_delay: How long after its transaction a chargeback arrives and is counted.
        features: What to compute.
    """
    n = len(rows)
    data = Dataset(
        np.empty((n, len(features.names)), np.float32),
        np.empty(n, np.bool_),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
    )
    replay = Replay(int(label_delay.total_seconds()), features)
    cards: dict[str, int] = {}
    console = Console(stderr=True)
    for at, row in enumerate(track(rows, "computing features", total=n, console=console, transient=True)):
        data.features[at] = replay.decide(row)
        data.is_fraud[at] = row.is_fraud is True
        data.second[at] = row.transaction.second
        data.card[at] = cards.setdefault(row.transaction.card_id, len(cards))
    by_time = np.argsort(data.second, kind="stable")
    return Dataset(data.features[by_time], data.is_fraud[by_time], data.second[by_time], data.card[by_time])


class Replay:
    """The online system, sped up: histories, and the chargebacks that are on their way."""

    def __init__(self, label_delay: int, features: FeatureSet = SHIPPED) -> None:
        self._label_delay = label_delay
        self._features = features
        self._histories: list[defaultdict[str | None, History]] = [
            defaultdict(partial(History, features.plans[entity])) for entity in features.entities
        ]
        self._nothing = [History(features.plans[entity]) for entity in features.entities]
        self._committed = features.entities.index(features.committed)
        self._on_their_way: list[tuple[int, int, Transaction]] = []
        self._numbers = itertools.count()

    def decide(self, row: Row) -> FeatureVector:
        """Compute the features of a transaction, then count it for every entity it names.

        What the updater writes online is counted at once here: the `delay` of its windows hides the difference.
        """
        transaction = row.transaction
        second = transaction.second
        self._receive_labels(second)
        histories = [
            by_value[value] if value else nothing
            for value, by_value, nothing in zip(
                self._features.keys_of(transaction), self._histories, self._nothing, strict=True
            )
        ]
        reads = [history.read(second) for history in histories]
        counted = self._features.counted(transaction, reads[self._committed])
        for history, nothing in zip(histories, self._nothing, strict=True):
            if history is not nothing:
                history.count(second, counted)
        if row.is_fraud:
            heapq.heappush(self._on_their_way, (second + self._label_delay, next(self._numbers), transaction))
        return self._features.row(transaction, reads)

    def _receive_labels(self, now: int) -> None:
        while self._on_their_way and self._on_their_way[0][0] <= now:
            *_, charged_back = heapq.heappop(self._on_their_way)
            for entity, by_value in zip(self._features.entities, self._histories, strict=True):
                if entity in self._features.labelled:
                    by_value[getattr(charged_back, entity.key)].add(charged_back.second, {Measure.FRAUDS: 1})
