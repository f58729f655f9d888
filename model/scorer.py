"""The serving side of a model: loads a directory, refuses what it cannot vouch for, scores one row at a time.

It needs onnxruntime and no training library. Make it after a fork, never before: its threads do not survive one.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from feature_store.feature_set import FeatureSet, FeatureVector
from feature_store.features import SHIPPED
from model.manifest import MANIFEST_FILE, MODEL_FILE, Manifest

if TYPE_CHECKING:
    import onnxruntime

INPUT, OUTPUT = "features", "fraud_probability"
_FATAL = 4


class ModelRefusedError(RuntimeError):
    """A model directory that must not serve; the message says why."""


class Scorer:
    """A model in memory, for one thread. One call takes some 10 microseconds, so call it inline."""

    def __init__(self, session: "onnxruntime.InferenceSession", manifest: Manifest) -> None:
        self.manifest = manifest
        self._score = single_row(session)

    @property
    def version(self) -> str:
        """The first 12 digits of the model's SHA-256."""
        return self.manifest.model_digest[:12]

    def score(self, row: FeatureVector) -> float:
        """Give the probability of fraud for one row of shape (features,), float32, NaN where not known."""
        return self._score(row)


def load_scorer(directory: Path, features: FeatureSet = SHIPPED) -> Scorer:
    """Load `model.onnx` and `manifest.json` of a model of these features, and score once.

    Raises:
        ModelRefusedError: a file is missing or corrupt, or the model is made for other features than the running ones.
    """
    manifest = _manifest(directory / MANIFEST_FILE)
    model = _read(directory / MODEL_FILE)
    digest = hashlib.sha256(model).hexdigest()
    if digest != manifest.model_digest:
        raise ModelRefusedError(f"{MODEL_FILE} is not the file its manifest names: its SHA-256 is {digest}")
    if manifest.features_version != features.fingerprint:
        raise ModelRefusedError(
            f"the model was trained on features {manifest.features_version}, {features.fingerprint} are running:"
            " train again"
        )
    try:
        session = open_session(model)
    except Exception as error:  # its errors share no other base
        raise ModelRefusedError(f"onnxruntime cannot load {MODEL_FILE}: {error}") from error
    _check_shape(session, len(features.names))
    scorer = Scorer(session, manifest)
    _warm_up(scorer, len(features.names))
    return scorer


def open_session(model: bytes) -> "onnxruntime.InferenceSession":
    """Open a model for single rows: one thread, the caller's, and no idle thread that spins."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # since 1.29 it reports home, unless told not to before this:
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _FATAL  # what goes wrong is raised
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def single_row(session: "onnxruntime.InferenceSession") -> Callable[[FeatureVector], float]:
    """Give the function that scores one row of shape (features,). It reuses its input and output: one thread only."""
    row_in = np.zeros((1, session.get_inputs()[0].shape[-1]), np.float32)
    score_out = np.zeros((1, 1), np.float32)
    binding = session.io_binding()
    for bind, name, array in ((binding.bind_input, INPUT, row_in), (binding.bind_output, OUTPUT, score_out)):
        bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    run = session.run_with_iobinding

    def score(row: FeatureVector) -> float:
        row_in[0] = row
        run(binding)
        return float(score_out[0, 0])

    return score


def _manifest(path: Path) -> Manifest:
    try:
        return msgspec.json.decode(_read(path), type=Manifest)
    except msgspec.DecodeError as error:
        raise ModelRefusedError(f"{path.name} cannot be understood: {error}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelRefusedError(f"{path} cannot be read: {error.strerror}") from error


def _check_shape(session: "onnxruntime.InferenceSession", columns: int) -> None:
    """Compare names, type and width of the graph's input and output with what `single_row` sends and takes."""
    found = [(place.name, place.type, place.shape[-1]) for place in (*session.get_inputs(), *session.get_outputs())]
    wanted = [(INPUT, "tensor(float)", columns), (OUTPUT, "tensor(float)", 1)]
    if found != wanted:
        raise ModelRefusedError(f"{MODEL_FILE} takes and gives {found}, not {wanted}")


def _warm_up(scorer: Scorer, columns: int) -> None:
    """Score a row of which nothing is known: the first call is slow, and a broken graph shows."""
    score = scorer.score(np.full(columns, np.nan, np.float32))
    if not 0.0 <= score <= 1.0:  # also refuses NaN
        raise ModelRefusedError(f"{MODEL_FILE} gives {score} where a probability was expected")
