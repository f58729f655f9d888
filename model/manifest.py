"""What is written beside a model: which features it expects, what it was trained on, how good it is, where to cut.

It holds no time of making and no path, so the same training gives the same bytes.
"""

from typing import Any

import msgspec

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a model comes from. Times are in UTC; each range ends before its second time."""

    source: str
    """`simulator`, or the name of the file."""
    source_details: dict[str, Any]
    """The simulator's parameters, or the file's SHA-256."""
    order: str
    """`decided_at`, the order of the log, or `event_time`: the order in which rows were replayed."""
    settings: dict[str, Any]
    """All that training was told, seed included."""
    trained_on: tuple[str, str]
    thresholds_chosen_on: tuple[str, str]
    tested_on: tuple[str, str]
    rows: int
    """Transactions in `trained_on`."""
    frauds: int
    negative_sampling: float
    """Share of genuine transactions that was used. Scores are corrected for it: they are probabilities of fraud."""


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scores from which a transaction goes to review, or is declined."""

    review: float
    decline: float
    meaning: dict[str, str]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `manifest.json`."""

    model_digest: str
    """SHA-256 of `model.onnx`, in hexadecimal."""
    features: tuple[str, ...]
    features_version: str
    """`FeatureSet.fingerprint` at training."""
    training: Training
    metrics: dict[str, float]
    thresholds: Thresholds
    versions: dict[str, str]
    """Of Python and of the libraries that shape the model."""
