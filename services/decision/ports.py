"""What a decision needs beside its store: something that scores, and something that knows how far merchants lag."""

from typing import Protocol

from feature_store.formulas import FeatureVector


class Model(Protocol):
    """What scores a row."""

    @property
    def version(self) -> str:
        """Names the model exactly."""

    def score(self, row: FeatureVector) -> float:
        """Give the probability of fraud."""


class Lag(Protocol):
    """What knows how far merchant state is behind."""

    async def lag(self, second: int, tolerated: float) -> float:
        """Give seconds of event time, for an event at `second`; make sure if it is more than `tolerated`."""

    def known_lag(self, second: int) -> float:
        """Give the same from what is known now."""

    def committing(self, second: int) -> None:
        """Note that an event at `second` is about to be in the log."""
