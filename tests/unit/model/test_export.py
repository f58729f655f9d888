import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from model import export
from model.export import EXTREMES, ParityError, probes, split_thresholds, to_onnx, verify
from model.fraud_patterns import DAY
from model.train import fit


def test_onnx_equals_scikit_learn_on_real_rows_and_on_probes(parts, fitted):
    classifier, _ = fitted
    verify(classifier, to_onnx(classifier), parts.test.features)


def test_another_models_export_is_refused_with_the_worst_row(parts, fitted, settings):
    classifier, _ = fitted
    other, _ = fit(parts.train.between(0, int(parts.train.second[0]) + 3 * DAY), settings)
    with pytest.raises(ParityError, match=r"rows differ; the worst by 0\.\d+ from scikit-learn's .*\["):
        verify(classifier, to_onnx(other), parts.test.features)


def test_probes_try_both_sides_of_every_split(parts, fitted):
    thresholds = split_thresholds(fitted[0])
    rows = np.concatenate(list(probes(parts.test.features, thresholds)))
    assert np.isnan(rows).all(axis=1).any()
    for column in range(rows.shape[1]):
        assert np.isnan(rows[:, column]).any()
        assert set(np.float32(EXTREMES)) <= set(rows[:, column])
    assert thresholds
    for column, values in thresholds.items():
        for value in np.float32(values):
            below, above = np.nextafter(value, np.float32(-np.inf)), np.nextafter(value, np.float32(np.inf))
            assert {value, below, above} <= set(rows[:, column])


def neighbours() -> tuple[np.ndarray, HistGradientBoostingClassifier]:
    """A split between two neighbouring float32 values, whose middle rounds to the upper one."""
    lower = np.nextafter(np.float32(1), np.float32(2))
    upper = np.nextafter(lower, np.float32(2))
    rows = np.array([[lower], [upper]] * 50, np.float32)
    classifier = HistGradientBoostingClassifier(max_iter=5, early_stopping=False).fit(rows, [0, 1] * 50)
    return rows, classifier


def test_a_split_between_neighbouring_floats_tells_them_apart():
    rows, classifier = neighbours()
    before = classifier.predict_proba(rows)
    verify(classifier, to_onnx(classifier), rows)
    assert (classifier.predict_proba(rows) == before).all()


def test_thresholds_not_rounded_down_are_found(monkeypatch):
    rows, classifier = neighbours()
    monkeypatch.setattr(export, "_round_thresholds", lambda _: None)
    with pytest.raises(ParityError):
        verify(classifier, to_onnx(classifier), rows)
