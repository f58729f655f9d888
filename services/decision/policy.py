"""From a score to an action: thresholds, and rules that hold whatever the model says. Pure, so it can be recomputed.

To add a rule, add a line to RULES: a reason code, the feature it looks at, from which value on, and the least action.
"""

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import NamedTuple

from feature_store.features import SHIPPED


class Action(StrEnum):
    """What happens to the payment, from mild to severe."""

    APPROVE = "approve"
    REVIEW = "review"
    DECLINE = "decline"


_SEVERITY = tuple(Action)


@dataclass(frozen=True, slots=True)
class Rule:
    """If `feature` is at least `at_least`, the action is at least `action`, for `reason`."""

    reason: str
    feature: str
    at_least: float
    action: Action


MERCHANT_LAG = "merchant_lag"
"""Merchant state lagged the log by more than its features' delay, so they may miss events. The answer says so; the
policy does not act on it."""
LATE = "late"
"""Some window of the transaction reaches further back than state does, so velocity may be hidden: never approved."""

CAUSES = (MERCHANT_LAG, LATE)

RULES = (
    Rule("card_velocity_10m", "card_count_10m", 10, Action.DECLINE),
    Rule("card_velocity_1h", "card_count_1h", 20, Action.REVIEW),
    Rule("merchant_fraud_run", "merchant_fraud_run", 5, Action.REVIEW),
)


class Judgement(NamedTuple):
    """The action, and every reason for not approving."""

    action: Action
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Policy:
    """Thresholds on the score (fraud probability, 0 to 1), and rules. `version` names both exactly.

    `names` are the features of the rows it judges, in their order.
    """

    review: float
    decline: float
    rules: tuple[Rule, ...] = RULES
    names: tuple[str, ...] = SHIPPED.names

    def __post_init__(self) -> None:
        """Refuse thresholds that cannot be meant.

        Raises:
            ValueError: not 0 < review <= decline <= 1, or a rule on a feature that does not exist.
        """
        if not 0 < self.review <= self.decline <= 1:
            message = f"thresholds must satisfy 0 < review <= decline <= 1: {self.review}, {self.decline}"
            raise ValueError(message)
        unknown = [rule.feature for rule in self.rules if rule.feature not in self.names]
        if unknown:
            raise ValueError(f"rules on features that do not exist: {unknown}")

    @functools.cached_property
    def _columns(self) -> tuple[tuple[Rule, int], ...]:
        return tuple((rule, self.names.index(rule.feature)) for rule in self.rules)

    @property
    def version(self) -> str:
        """First 12 digits of the SHA-256 of thresholds and rules."""
        parts = (self.review, self.decline, [asdict(rule) for rule in self.rules])
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]

    def judge(self, score: float, row: Sequence[float], degraded: tuple[str, ...] = ()) -> Judgement:
        """Give the most severe action that the score, a rule or a degradation asks for.

        An unknown value (NaN) meets no rule; a score that is none is never approved.

        Args:
            score: probability of fraud.
            row: the features, in the order of `names`.
            degraded: causes, see `CAUSES`.
        """
        asked: list[tuple[Action, str]] = []
        if math.isnan(score):
            asked.append((Action.REVIEW, "no_score"))
        elif score >= self.decline:
            asked.append((Action.DECLINE, "score_above_decline"))
        elif score >= self.review:
            asked.append((Action.REVIEW, "score_above_review"))
        asked += [(rule.action, rule.reason) for rule, column in self._columns if row[column] >= rule.at_least]
        asked += [(Action.REVIEW, LATE)] if LATE in degraded else []
        actions = [action for action, _ in asked]
        severest = max(actions, key=_SEVERITY.index, default=Action.APPROVE)
        return Judgement(severest, tuple(reason for _, reason in asked))
