import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from feature_store.features import SHIPPED
from feature_store.tables import write_table
from model import train as training
from model.dataset import Dataset
from model.export import to_onnx
from model.scorer import load_scorer
from model.simulator import Parameters, simulate
from model.split import Settings, TrainingError, split
from model.train import fit, train

DAY = 86_400


def a_dataset(days: int, *, frauds: bool = True) -> Dataset:
    """A transaction every hour, every tenth of them fraud."""
    n = days * 24
    second = 1_767_225_600 + np.arange(n, dtype=np.int64) * 3_600
    fraud = np.arange(n) % 10 == 0 if frauds else np.zeros(n, np.bool_)
    return Dataset(np.zeros((n, len(SHIPPED.names)), np.float32), fraud, second, np.zeros(n, np.int64))


def days_of(ranges, data) -> list[tuple[float, float]]:
    begin = int(data.second[0])
    return [((start - begin) / DAY, (end - begin) / DAY) for start, end in ranges]


def test_time_is_cut_into_five_parts():
    data = a_dataset(90)
    parts = split(data, Settings())
    assert days_of(parts.ranges, data) == [(30, 69), (76, 83), (83, 90)]
    assert [len(part) for part in (parts.train, parts.choose, parts.test)] == [39 * 24, 7 * 24, 7 * 24]


def test_the_gap_is_the_label_delay():
    data = a_dataset(40)
    parts = split(data, replace(Settings(), label_delay=timedelta(days=6)))
    assert days_of(parts.ranges, data) == [(10, 20), (26, 33), (33, 40)]


@pytest.mark.parametrize("data", [a_dataset(90, frauds=False), a_dataset(15), a_dataset(0)])
def test_too_few_days_or_no_frauds_are_refused(data):
    with pytest.raises(TrainingError):
        split(data, Settings())


def test_all_frauds_and_a_sample_of_the_genuine_are_trained_on(parts, settings, fitted):
    _, share = fitted
    genuine = np.count_nonzero(~parts.train.is_fraud)
    assert genuine > settings.genuine_rows
    assert share == settings.genuine_rows / genuine


def test_scores_are_corrected_for_the_sampling(parts, settings):
    """The mean score over the training range is the share of frauds in it, however many genuine ones were drawn."""
    for genuine_rows in (1_000, 10**9):
        classifier, _ = fit(parts.train, replace(settings, genuine_rows=genuine_rows, trees=40))
        mean = classifier.predict_proba(parts.train.features)[:, 1].mean()
        assert mean == pytest.approx(parts.train.is_fraud.mean(), rel=0.3)


@pytest.fixture(scope="module")
def manifest(shipped):
    return load_scorer(shipped).manifest


def test_equal_input_and_settings_give_equal_bytes(shipped, small, settings, tmp_path):
    train(small, tmp_path, source="simulator", details={}, settings=settings)
    for name in ("model.onnx", "manifest.json"):
        assert (shipped / name).read_bytes() == (tmp_path / name).read_bytes()
    assert sorted(file.name for file in shipped.iterdir()) == ["manifest.json", "model.onnx"]


def test_another_seed_gives_another_model(parts, settings, fitted):
    other, _ = fit(parts.train, replace(settings, seed=8))
    assert to_onnx(other) != to_onnx(fitted[0])


def test_the_manifest_says_where_the_model_comes_from(shipped, manifest, parts):
    text = (shipped / "manifest.json").read_text()
    assert str(shipped) not in text
    assert json.loads(text)["features"] == list(SHIPPED.names)
    assert manifest.training.rows == len(parts.train)
    assert manifest.training.frauds == np.count_nonzero(parts.train.is_fraud)
    assert manifest.training.trained_on[1] < manifest.training.thresholds_chosen_on[0]
    assert set(manifest.versions) == {"python", "numpy", "onnx", "scikit-learn", "skl2onnx"}


def test_the_model_and_its_thresholds_keep_their_word(manifest, parts, fitted, settings):
    assert manifest.metrics["average_precision"] > 5 * manifest.metrics["fraud_share"]
    score = fitted[0].predict_proba(parts.choose.features)[:, 1]
    thresholds = manifest.thresholds
    assert np.mean(parts.choose.is_fraud[score >= thresholds.decline]) >= settings.decline_precision
    assert np.mean(score >= thresholds.review) == pytest.approx(settings.review_share, abs=0.001)
    assert 0 < thresholds.review <= thresholds.decline <= 1
    assert set(thresholds.meaning) == {"review", "decline"}


def test_what_was_written_is_served(shipped, parts, fitted):
    scorer = load_scorer(shipped)
    rows = parts.test.features[:50]
    assert [scorer.score(row) for row in rows] == pytest.approx(fitted[0].predict_proba(rows)[:, 1], abs=1e-6)


@pytest.fixture
def command():
    app = Typer()
    app.command()(training.main)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_trains_from_a_file_with_its_own_column_names(tmp_path, command, monkeypatch, settings):
    monkeypatch.setattr(training, "_DEFAULTS", settings)
    path, out = tmp_path / "t.csv", tmp_path / "model"
    write_table(path, simulate(Parameters(cards=60, merchants=20, days=30)))
    path.write_text(path.read_text().replace('"card_id"', '"customer"', 1))
    options = ("--columns", "card_id=customer", "--label-delay", "6d", "--trees", 3, "--genuine-rows", 300)
    result = command(path, "--out", out, *options)
    assert result.exit_code == 0, result.output
    assert "average_precision" in result.output
    training_of = load_scorer(out).manifest.training
    assert (training_of.source, training_of.settings["trees"], training_of.settings["label_delay"]) == (
        "t.csv",
        3,
        "P6D",
    )
    assert len(training_of.source_details["sha256"]) == 64


def test_a_file_that_cannot_be_trained_on_is_a_usage_error(tmp_path, command):
    path = tmp_path / "t.csv"
    write_table(path, list(simulate(Parameters(cards=5, merchants=5, days=2))))
    for arguments, reason in (((path,), "labelled frauds"), ((path, "--columns", "card_id=pan"), "no column pan")):
        result = command(*arguments, "--out", tmp_path / "model")
        assert result.exit_code == 2
        assert reason in result.output
    assert not (tmp_path / "model").exists()
