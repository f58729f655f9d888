"""What a decision needs beside its store: something that scores."""

from typing import Protocol

from feature_store.feature_set import FeatureVector


class Model(Protocol):
    """What scores a row."""

    @property
    def version(self) -> str:
        """Names the model exactly."""

    def score(self, row: FeatureVector) -> float:
        """Give the probability of fraud."""
