"""How good scores are, and where to cut them: plain formulas over arrays, so any model or rule can be judged alike."""

import numpy as np
import numpy.typing as npt

Truth = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def average_precision(is_fraud: Truth, score: Scores) -> float:
    """Area under the precision-recall curve as a sum of steps: sum over thresholds of (R_n - R_(n-1)) P_n.

    Source: Zhu (2004), "Recall, Precision and Average Precision"; scikit-learn's `average_precision_score` is the same.
    Equal scores form one step. Both arrays have shape (n,); NaN if there is no fraud.
    """
    if not is_fraud.any():
        return float("nan")
    _, precision, recall = _curve(is_fraud, score)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def recall_at(is_fraud: Truth, score: Scores, threshold: float) -> float:
    """Share of the frauds that score `threshold` or more; NaN if there is no fraud."""
    return float(np.mean(score[is_fraud] >= threshold)) if is_fraud.any() else float("nan")


def precision_at(is_fraud: Truth, score: Scores, threshold: float) -> float:
    """Share of frauds among what scores `threshold` or more; NaN if nothing does."""
    reached = score >= threshold
    return float(np.mean(is_fraud[reached])) if reached.any() else float("nan")


def card_precision_at(k: int, *, day: Integers, card: Integers, is_fraud: Truth, score: Scores) -> float:
    """Card precision top-k: the share of cards with a fraud among the k riskiest of a day, mean over the days.

    A card's risk is the greatest score of its transactions that day. A fraudulent card that was among the k is blocked:
    it is left out on later days. Source: Fraud Detection Handbook, chapter 4, "Precision top-k metrics". Ties go to the
    smaller card number.
    """
    blocked = np.empty(0, np.int64)
    shares = []
    for today in np.unique(day):
        at = (day == today) & ~np.isin(card, blocked)
        cards, places = np.unique(card[at], return_inverse=True)
        risk, fraud = np.full(len(cards), -np.inf), np.zeros(len(cards), np.bool_)
        np.maximum.at(risk, places, score[at])
        np.logical_or.at(fraud, places, is_fraud[at])
        top = np.argsort(-risk, kind="stable")[:k]
        blocked = np.append(blocked, cards[top][fraud[top]])
        shares.append(np.count_nonzero(fraud[top]) / k)
    return float(np.mean(shares))


def lowest_threshold_with_precision(precision: float, is_fraud: Truth, score: Scores) -> float:
    """Give the lowest score such that, of what scores it or more, at least `precision` is fraud.

    1.0, which next to nothing reaches, if there is no such score.
    """
    thresholds, precisions, _ = _curve(is_fraud, score)
    enough = np.flatnonzero(precisions >= precision)
    return float(thresholds[enough[-1]]) if len(enough) else 1.0


def threshold_for_share(share: float, score: Scores) -> float:
    """Give the score that about `share` of transactions reach, at least one of them."""
    reached = max(1, round(share * len(score)))
    return float(np.sort(score)[-reached])


def _curve(is_fraud: Truth, score: Scores) -> tuple[Scores, Scores, Scores]:
    """Give every distinct score from the greatest down, and precision and recall of what scores it or more."""
    order = np.argsort(-score, kind="stable")
    last_of_its_score = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    frauds = np.cumsum(is_fraud[order])[last_of_its_score]
    return score[order][last_of_its_score], frauds / (last_of_its_score + 1), frauds / max(1, frauds[-1])
