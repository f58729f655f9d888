"""From scikit-learn to ONNX, and the proof that both give the same score, row by row, before a model may be used.

Converters have been wrong without an error (a forest trained with NaN, for one), so nothing is written unverified.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import HistGradientBoostingClassifier

from model.manifest import MANIFEST_FILE, MODEL_FILE, Manifest
from model.scorer import INPUT, OUTPUT, open_session, single_row

TOLERANCE = 1e-6
"""Greatest difference of probabilities: ONNX adds the trees' values as float32."""
EXTREMES = (-1.0, 0.0, 1e10)
OPSET = {"": 21, "ai.onnx.ml": 3}

Rows = npt.NDArray[np.float32]


class ParityError(RuntimeError):
    """The ONNX graph and scikit-learn disagree; the message holds the worst row."""


def to_onnx(classifier: HistGradientBoostingClassifier) -> bytes:
    """Convert to a graph from float32 `features` of shape [None, n] to `fraud_probability` of shape [None, 1].

    The classifier's thresholds are rounded down to float32, which changes no score of a float32 row.
    """
    _round_thresholds(classifier)
    inputs = [(INPUT, FloatTensorType([None, classifier.n_features_in_]))]
    with warnings.catch_warnings():
        # skl2onnx writes booleans where integers belong; this is why pyproject.toml asks for protobuf below 7.
        warnings.filterwarnings("ignore", ".*Expected an int, got a boolean", DeprecationWarning)
        model = convert_sklearn(
            classifier, name="fraud", initial_types=inputs, options={"zipmap": False}, target_opset=OPSET
        )
    graph = model.graph
    graph.initializer.append(helper.make_tensor("fraud_column", TensorProto.INT64, [1], [1]))
    graph.node.append(helper.make_node("Gather", ["probabilities", "fraud_column"], [OUTPUT], axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, 1]))
    exported: bytes = model.SerializeToString(deterministic=True)
    return exported


def verify(classifier: HistGradientBoostingClassifier, model: bytes, sample: Rows) -> None:
    """Score `sample` (m, n) and rows made to find errors with both, one row at a time as in serving.

    Raises:
        ParityError: some score differs by more than `TOLERANCE`.
    """
    rows = np.concatenate([sample, *probes(sample, split_thresholds(classifier))])
    score = single_row(open_session(model))
    expected = classifier.predict_proba(rows)[:, 1]
    difference = np.abs(expected - np.array([score(row) for row in rows]))
    worst = int(np.argmax(difference))  # NaN, if there is one
    if not difference[worst] <= TOLERANCE:
        raise ParityError(
            f"{np.count_nonzero(~(difference <= TOLERANCE))} of {len(rows)} rows differ; the worst by"
            f" {difference[worst]} from scikit-learn's {expected[worst]}: {rows[worst].tolist()}"
        )


def probes(sample: Rows, thresholds: dict[int, npt.NDArray[np.float64]]) -> Iterator[Rows]:
    """Make rows where conversions go wrong: NaN everywhere and in each column, extremes, and beside every split."""
    columns = sample.shape[1]
    yield np.full((1, columns), np.nan, np.float32)
    for column in range(columns):
        at = thresholds.get(column, np.empty(0)).astype(np.float32)
        beside = (at, np.nextafter(at, np.float32(-np.inf)), np.nextafter(at, np.float32(np.inf)))
        values = np.concatenate([np.array([np.nan, *EXTREMES], np.float32), *beside])
        rows = sample[np.arange(len(values)) % len(sample)].copy()
        rows[:, column] = values
        yield rows


def _round_thresholds(classifier: HistGradientBoostingClassifier) -> None:
    """Round down, as a converter that rounds to the nearest sends the row just above a threshold to the other side."""
    for tree in _trees(classifier):
        exact = tree["num_threshold"]
        nearest = exact.astype(np.float32)
        tree["num_threshold"] = np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def _trees(classifier: HistGradientBoostingClassifier) -> list[npt.NDArray[np.void]]:
    return [tree.nodes for trees in classifier._predictors for tree in trees]  # noqa: SLF001 - no public way


def split_thresholds(classifier: HistGradientBoostingClassifier) -> dict[int, npt.NDArray[np.float64]]:
    """Collect the distinct thresholds of each column, from all trees."""
    nodes = np.concatenate(_trees(classifier))
    splits = nodes[nodes["is_leaf"] == 0]
    return {
        int(column): np.unique(splits["num_threshold"][splits["feature_idx"] == column])
        for column in np.unique(splits["feature_idx"])
    }


def digest(model: bytes) -> str:
    """Name a model by its content."""
    return hashlib.sha256(model).hexdigest()


def write(directory: Path, model: bytes, manifest: Manifest) -> None:
    """Write both files, each replaced whole, the manifest last.

    Whoever loads in between sees a digest that does not fit and refuses; no one sees half a file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    for name, content in ((MODEL_FILE, model), (MANIFEST_FILE, text)):
        unfinished = directory / f".{name}.{os.getpid()}"
        unfinished.write_bytes(content)
        unfinished.replace(directory / name)
