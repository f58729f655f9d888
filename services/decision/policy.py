"""From a score to an action: thresholds, and rules that hold whatever the model says. Pure, so it can be recomputed.

To add a rule, add a line to RULES: a reason code, the feature it looks at, from which value on, and the least action.
"""

import hashlib
import math
from dataclasses import asdict, dataclass
from enum import StrEnum

from feature_store.definitions import NAMES
from feature_store.formulas import FeatureVector


class Action(StrEnum):
    """What happens to the payment, from mild to severe."""

    APPROVE = "approve"
    REVIEW = "review"
    DECLINE = "decline"


@dataclass(frozen=True, slots=True)
class Rule:
    """If `feature` is at least `at_least`, the action is at least `action`, for `reason`."""

    reason: str
    feature: str
    at_least: float
    action: Action


MERCHANT_LAG = "merchant_lag"
"""Merchant state was further behind than its features allow for: what they show may be incomplete. Said, not judged."""
CONTENTION = "contention"
"""The card kept moving, so this decision may not have seen the one just before it: never approved unseen."""

CAUSES = (MERCHANT_LAG, CONTENTION)

RULES = (
    Rule("card_velocity_10m", "card_count_10m", 10, Action.DECLINE),
    Rule("card_velocity_1h", "card_count_1h", 20, Action.REVIEW),
    Rule("merchant_fraud_run", "merchant_fraud_run", 5, Action.REVIEW),
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The action, and every reason for not approving."""

    action: Action
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Policy:
    """Thresholds on the score (fraud probability, 0 to 1), and rules. `version` names both exactly."""

    review: float
    decline: float
    rules: tuple[Rule, ...] = RULES

    def __post_init__(self) -> None:
        """Refuse thresholds that cannot be meant.

        Raises:
            ValueError: not 0 < review <= decline <= 1, or a rule on a feature that does not exist.
        """
        if not 0 < self.review <= self.decline <= 1:
            message = f"thresholds must satisfy 0 < review <= decline <= 1: {self.review}, {self.decline}"
            raise ValueError(message)
        unknown = [rule.feature for rule in self.rules if rule.feature not in NAMES]
        if unknown:
            raise ValueError(f"rules on features that do not exist: {unknown}")

    @property
    def version(self) -> str:
        """First 12 digits of the SHA-256 of everything above."""
        return hashlib.sha256(repr(asdict(self)).encode()).hexdigest()[:12]

    def judge(self, score: float, row: FeatureVector, degraded: tuple[str, ...] = ()) -> Judgement:
        """Give the most severe action that the score, a rule or a degradation asks for.

        An unknown value (NaN) meets no rule; a score that is none is never approved.
        """
        asked: list[tuple[Action, str]] = []
        if math.isnan(score):
            asked.append((Action.REVIEW, "no_score"))
        elif score >= self.decline:
            asked.append((Action.DECLINE, "score_above_decline"))
        elif score >= self.review:
            asked.append((Action.REVIEW, "score_above_review"))
        asked += [(rule.action, rule.reason) for rule in self.rules if row[NAMES.index(rule.feature)] >= rule.at_least]
        asked += [(Action.REVIEW, CONTENTION)] if CONTENTION in degraded else []
        actions = [action for action, _ in asked]
        severest = max(actions, key=list(Action).index, default=Action.APPROVE)
        return Judgement(severest, tuple(reason for _, reason in asked))
