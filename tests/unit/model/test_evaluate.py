import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from model.evaluate import (
    average_precision,
    card_precision_at,
    lowest_threshold_with_precision,
    precision_at,
    recall_at,
    threshold_for_share,
)

FRAUD = np.array([True, False, True, False, False])
SCORE = np.array([0.9, 0.8, 0.7, 0.2, 0.1])


def test_average_precision_is_the_sum_of_steps():
    assert average_precision(FRAUD, SCORE) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40))
def test_average_precision_equals_scikit_learns_also_with_ties(pairs):
    fraud = np.array([is_fraud for is_fraud, _ in pairs])
    score = np.array([score / 5 for _, score in pairs])
    if fraud.any():
        assert average_precision(fraud, score) == pytest.approx(average_precision_score(fraud, score))
    else:
        assert np.isnan(average_precision(fraud, score))


def test_recall_and_precision_count_scores_at_the_threshold():
    assert (recall_at(FRAUD, SCORE, 0.7), precision_at(FRAUD, SCORE, 0.7)) == (1.0, pytest.approx(2 / 3))
    assert recall_at(FRAUD, SCORE, 0.71) == 0.5
    assert np.isnan(precision_at(FRAUD, SCORE, 0.95))


def test_card_precision_takes_each_card_once_at_its_riskiest():
    precision = card_precision_at(
        2,
        day=np.zeros(4, np.int64),
        card=np.array([1, 1, 2, 3]),
        is_fraud=np.array([False, True, False, True]),
        score=np.array([0.9, 0.1, 0.8, 0.2]),
    )
    assert precision == 0.5  # cards 1 (fraud in its other transaction) and 2


def test_a_card_found_is_blocked_on_later_days():
    precision = card_precision_at(
        1,
        day=np.array([0, 1, 1]),
        card=np.array([1, 1, 2]),
        is_fraud=np.array([True, True, False]),
        score=np.array([0.9, 0.9, 0.1]),
    )
    assert precision == 0.5


def test_fewer_cards_than_k_are_still_divided_by_k():
    one = np.array([1])
    assert card_precision_at(100, day=one, card=one, is_fraud=np.array([True]), score=np.array([0.5])) == 0.01


def test_the_decline_threshold_is_the_lowest_with_enough_precision():
    assert lowest_threshold_with_precision(0.6, FRAUD, SCORE) == 0.7
    assert lowest_threshold_with_precision(0.9, FRAUD, SCORE) == 0.9
    assert lowest_threshold_with_precision(0.9, ~FRAUD, SCORE) == 1.0


def test_equal_scores_are_declined_together_or_not_at_all():
    fraud, score = np.array([True, False, False]), np.array([0.5, 0.5, 0.1])
    assert lowest_threshold_with_precision(0.9, fraud, score) == 1.0
    assert lowest_threshold_with_precision(0.5, fraud, score) == 0.5


def test_the_review_threshold_is_reached_by_the_share_asked_for():
    score = np.random.default_rng(1).random(1_000)
    assert np.count_nonzero(score >= threshold_for_share(0.01, score)) == 10
    assert threshold_for_share(0.01, score[:5]) == score[:5].max()


def test_evaluation_needs_no_training_library():
    code = "import sys, model.evaluate; sys.exit(bool({'sklearn', 'onnxruntime', 'redis'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
