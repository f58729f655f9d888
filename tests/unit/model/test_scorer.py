import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from with_device import WITH_DEVICE

from feature_store.features import SHIPPED
from model.export import to_onnx
from model.scorer import ModelRefusedError, load_scorer


@pytest.fixture
def model(shipped, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(shipped, tmp_path / "model"))


def change(model: Path, **fields) -> None:
    manifest = msgspec.json.decode((model / "manifest.json").read_bytes())
    (model / "manifest.json").write_bytes(msgspec.json.encode(manifest | fields))


def swap(model: Path, graph: bytes) -> None:
    """Put another graph in, with a manifest that vouches for it."""
    (model / "model.onnx").write_bytes(graph)
    change(model, model_digest=hashlib.sha256(graph).hexdigest())


def mean_of(columns: int, *, output: str = "fraud_probability") -> bytes:
    """A graph that gives the mean of its input: NaN for the warm-up's row."""
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width])
        for name, width in (("features", columns), (output, 1))
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    node = helper.make_node("ReduceMean", ["features", "axes"], [output], keepdims=1)
    graph = helper.make_graph([node], "mean", ends[:1], ends[1:], [axes])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def test_single_rows_score_as_scikit_learn_does(shipped, parts, fitted):
    rows = np.concatenate([parts.test.features[:300], np.full((1, len(SHIPPED.names)), np.nan, np.float32)])
    for column in range(len(SHIPPED.names)):
        rows[column, column] = np.nan
    scorer = load_scorer(shipped)
    scores = [scorer.score(row) for row in rows]
    assert scores == pytest.approx(fitted[0].predict_proba(rows)[:, 1], abs=1e-6)
    assert all(isinstance(score, float) for score in scores)
    assert max(scores) > 10 * min(scores)


def test_the_manifest_is_at_hand(shipped):
    manifest = load_scorer(shipped).manifest
    assert (manifest.features, manifest.features_version) == (SHIPPED.names, SHIPPED.fingerprint)


def test_a_directory_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelRefusedError, match=r"manifest\.json cannot be read: No such file"):
        load_scorer(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_missing_file_is_refused_by_name(model, name):
    (model / name).unlink()
    with pytest.raises(ModelRefusedError, match=f"{name} cannot be read"):
        load_scorer(model)


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b"{}", b'{"model_digest": 7}', b"\xff"])
def test_a_manifest_that_is_none_is_refused(model, content):
    (model / "manifest.json").write_bytes(content)
    with pytest.raises(ModelRefusedError, match=r"manifest\.json cannot be understood"):
        load_scorer(model)


def test_a_manifest_with_a_field_of_another_version_is_refused(model):
    change(model, colour="blue")
    with pytest.raises(ModelRefusedError, match="colour"):
        load_scorer(model)


def test_a_model_file_that_changed_by_a_byte_is_refused(model):
    content = bytearray((model / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (model / "model.onnx").write_bytes(content)
    with pytest.raises(ModelRefusedError, match="not the file its manifest names"):
        load_scorer(model)


def test_a_model_for_other_features_is_refused_with_both_versions(model):
    change(model, features_version="0123456789abcdef")
    with pytest.raises(ModelRefusedError, match=f"0123456789abcdef, {SHIPPED.fingerprint} are running: train again"):
        load_scorer(model)


def test_a_model_is_refused_where_another_set_of_features_runs(shipped):
    wanted = f"{SHIPPED.fingerprint}, {WITH_DEVICE.fingerprint} are running: train again"
    with pytest.raises(ModelRefusedError, match=wanted):
        load_scorer(shipped, WITH_DEVICE)


def test_what_onnxruntime_cannot_load_is_refused(model):
    swap(model, b"not a graph")
    with pytest.raises(ModelRefusedError, match="onnxruntime cannot load"):
        load_scorer(model)


@pytest.mark.parametrize("graph", [mean_of(len(SHIPPED.names) - 1), mean_of(len(SHIPPED.names), output="score")])
def test_a_graph_of_another_shape_is_refused(model, graph):
    swap(model, graph)
    with pytest.raises(ModelRefusedError, match="takes and gives"):
        load_scorer(model)


def test_a_graph_that_gives_no_probability_is_refused(model):
    swap(model, mean_of(len(SHIPPED.names)))
    with pytest.raises(ModelRefusedError, match="gives nan where a probability"):
        load_scorer(model)


def test_the_graph_has_one_output_and_any_number_of_rows(fitted):
    graph = onnx.load_from_string(to_onnx(fitted[0])).graph
    (output,) = graph.output
    assert output.name == "fraud_probability"
    assert not graph.input[0].type.tensor_type.shape.dim[0].dim_value


def test_the_shipped_model_loads():
    scorer = load_scorer(Path(sys.modules["model"].__file__).parent / "shipped")
    assert scorer.manifest.metrics["average_precision"] > 0.6


def test_serving_needs_no_training_library():
    training = {"sklearn", "skl2onnx", "onnx", "pyarrow"}
    code = f"import sys, model.scorer; sys.exit(bool({training} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
