import numpy as np
import pytest

from feature_store.features import SHIPPED
from services.decision.policy import LATE, MERCHANT_LAG, RULES, Action, Policy, Rule

NAMES = SHIPPED.names
POLICY = Policy(review=0.2, decline=0.8)


def features(**known):
    values = np.full(len(NAMES), np.nan, np.float32)
    for name, value in known.items():
        values[NAMES.index(name)] = value
    return values


@pytest.mark.parametrize(
    ("score", "action", "reasons"),
    [
        (0.0, "approve", ()),
        (0.1999, "approve", ()),
        (0.2, "review", ("score_above_review",)),
        (0.7999, "review", ("score_above_review",)),
        (0.8, "decline", ("score_above_decline",)),
        (1.0, "decline", ("score_above_decline",)),
    ],
)
def test_a_score_at_a_threshold_has_reached_it(score, action, reasons):
    judgement = POLICY.judge(score, features())
    assert (judgement.action, judgement.reasons) == (action, reasons)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.reason)
def test_a_rule_holds_whatever_the_model_says(rule):
    met = POLICY.judge(0.0, features(**{rule.feature: rule.at_least}))
    missed = POLICY.judge(0.0, features(**{rule.feature: rule.at_least - 1}))
    assert list(Action).index(met.action) >= list(Action).index(rule.action)
    assert rule.reason in met.reasons
    assert rule.reason not in missed.reasons


def test_a_score_that_is_none_is_never_approved():
    judgement = POLICY.judge(float("nan"), features())
    assert (judgement.action, judgement.reasons) == (Action.REVIEW, ("no_score",))


def test_the_most_severe_action_wins_and_every_reason_is_given():
    judgement = POLICY.judge(0.9, features(card_count_10m=50, card_count_1h=50))
    assert judgement.action is Action.DECLINE
    assert judgement.reasons == ("score_above_decline", "card_velocity_10m", "card_velocity_1h")


def test_a_late_decision_is_never_approved():
    assert POLICY.judge(0.0, features(), (LATE,)).action is Action.REVIEW
    assert POLICY.judge(0.9, features(), (LATE,)).action is Action.DECLINE
    assert POLICY.judge(0.0, features(), (LATE,)).reasons == (LATE,)


def test_merchant_lag_is_said_and_not_acted_upon():
    judgement = POLICY.judge(0.0, features(), (MERCHANT_LAG,))
    assert (judgement.action, judgement.reasons) == (Action.APPROVE, ())


def test_a_rule_finds_its_feature_among_the_names_it_is_given():
    rule = Rule("hot_device", "device_count_1h", 3, Action.DECLINE)
    policy = Policy(review=0.2, decline=0.8, rules=(rule,), names=("amount", "device_count_1h"))
    assert policy.judge(0.0, np.float32([1_000, 2])).action is Action.APPROVE
    assert policy.judge(0.0, np.float32([0, 3])).reasons == ("hot_device",)


def test_the_version_changes_with_a_threshold_and_with_a_rule():
    versions = {
        POLICY.version,
        Policy(review=0.21, decline=0.8).version,
        Policy(review=0.2, decline=0.8, rules=RULES[:-1]).version,
    }
    assert len(versions) == 3
    assert Policy(review=0.2, decline=0.8).version == POLICY.version


@pytest.mark.parametrize(("review", "decline"), [(0.0, 0.5), (0.6, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_thresholds_that_cannot_be_meant_are_refused(review, decline):
    with pytest.raises(ValueError, match="thresholds"):
        Policy(review=review, decline=decline)


def test_a_rule_on_a_feature_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="card_cuont"):
        Policy(review=0.2, decline=0.8, rules=(Rule("typo", "card_cuont", 1, Action.REVIEW),))
