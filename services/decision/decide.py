"""The use case: wait for the card's turn, read, features, score, judge, commit. Both doors call it.

Nothing is written before the decision is known, and everything is written at once, if the card is still as it was read.
If it moved, the transaction is decided again on the card as it is now.
"""

import math
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import msgspec

from feature_store.decision_store import Committed, Decided, DecisionStore, Seen, Write
from feature_store.feature_set import FeatureSet
from feature_store.features import SHIPPED
from feature_store.transaction import Transaction
from services.decision.policy import LATE, MERCHANT_LAG, Policy
from services.decision.ports import Model
from services.decision.record import BEFORE_COMMIT, VERSION, Answer, Decision, Stored, digest
from services.decision.stopwatch import Stopwatch
from services.decision.turns import Turns
from services.metrics import Metrics

ATTEMPTS = 32
"""Most commits tried. Within a process a card's transactions take turns, so only other processes can be in the way."""


class ConflictError(Exception):
    """The transaction's id was decided with another body."""


class ContendedError(Exception):
    """Other processes wrote the card before each of `ATTEMPTS` commits. Nothing was written; trying again is safe."""


class Outcome(NamedTuple):
    """The answer, the seconds each stage took, and whether it had been decided before."""

    answer: Answer
    stages: dict[str, float]
    repeated: bool


class Decide:
    """`await decide(transaction)` decides it exactly once, however often and through whichever door it comes."""

    def __init__(
        self,
        *,
        store: DecisionStore,
        model: Model,
        policy: Policy,
        metrics: Metrics,
        now: Callable[[], datetime],
        features: FeatureSet = SHIPPED,
    ) -> None:
        self._store = store
        self._model = model
        self._policy = policy
        self._policy_version = policy.version
        self._metrics = metrics
        self._now = now
        self._features = features
        self._turns = Turns()

    async def __call__(self, transaction: Transaction) -> Outcome:
        """Decide, or give the stored decision.

        Raises:
            ConflictError: the id was decided with another body.
            ContendedError: other processes were always faster.
            ClosedError: state is being brought up to the log.
            CorruptStateError: the bytes of an entity are damaged, or of another layout.
            redis.exceptions.RedisError: Redis did not answer; trying again is safe.
        """
        stopwatch = Stopwatch()
        await self._turns.come(transaction.card_id)
        try:
            stopwatch.lap("wait")
            outcome = await self._decide(transaction, stopwatch)
        finally:
            self._turns.end(transaction.card_id)
        self._metrics.observe_stages(outcome.stages)
        return outcome

    async def _decide(self, transaction: Transaction, stopwatch: Stopwatch) -> Outcome:
        seen = await self._store.read(transaction)
        stopwatch.lap("read")
        if isinstance(seen, Decided):
            return self._repeat(transaction, seen, stopwatch)
        lag = max(0.0, transaction.second - seen.pending_since)
        self._metrics.merchant_lag.set(lag)
        for _ in range(ATTEMPTS):
            answer, write = self._judged(transaction, seen, lag, stopwatch)
            result = await self._store.commit(transaction, seen, write)
            stopwatch.lap("commit")
            if isinstance(result, Committed):
                self._metrics.count_decision(answer.action, answer.degraded)
                return Outcome(answer, stopwatch.seconds, repeated=False)
            if isinstance(result, Decided):
                return self._repeat(transaction, result, stopwatch)
            self._metrics.commit_conflicts.inc()
            seen = result.seen
        raise ContendedError(f"the card was written by others before each of {ATTEMPTS} commits")

    def _judged(self, transaction: Transaction, seen: Seen, lag: float, stopwatch: Stopwatch) -> tuple[Answer, Write]:
        """Compute features, score, action, and what they make of the card; nothing here waits."""
        degraded = self._degraded(transaction, seen, lag)
        reads = seen.reads(transaction.second)
        row = self._features.row(transaction, reads)
        stopwatch.lap("features")
        score = self._model.score(row)
        stopwatch.lap("score")
        features = row.tolist()
        judgement = self._policy.judge(score, features, degraded)
        stopwatch.lap("judge")
        answer = Answer(
            transaction_id=transaction.transaction_id,
            action=judgement.action,
            score=None if math.isnan(score) else score,
            reasons=judgement.reasons,
            model=self._model.version,
            policy=self._policy_version,
            features_version=self._features.fingerprint,
            degraded=degraded,
            stage_ms=stopwatch.milliseconds(BEFORE_COMMIT),  # also where a commit was lost before
        )
        committed = self._features.entities.index(self._features.committed)
        counted = self._features.counted(transaction, reads[committed])
        decision = Decision(
            version=VERSION,
            decided_at=self._now(),
            transaction=transaction,
            features=tuple(features),  # NaN becomes null
            held=seen.held,
            counted=counted,
            answer=answer,
        )
        card = seen.histories[committed]  # from here on as it will be: it is not read again
        card.count(transaction.second, counted)
        return answer, Write(card, Stored.of(transaction, answer).to_bytes(), msgspec.json.encode(decision))

    def _degraded(self, transaction: Transaction, seen: Seen, lag: float) -> tuple[str, ...]:
        """Name what this decision had to do without."""
        causes = (MERCHANT_LAG,) if lag > self._features.least_delay else ()
        return causes if seen.covers(transaction.second) else (*causes, LATE)

    def _repeat(self, transaction: Transaction, decided: Decided, stopwatch: Stopwatch) -> Outcome:
        stored = Stored.from_bytes(decided.stored)
        if stored.body != digest(transaction):
            raise ConflictError(f"transaction {transaction.transaction_id} was decided with another body")
        self._metrics.repeats.labels("decision").inc()
        return Outcome(stored.answer(transaction.transaction_id), stopwatch.seconds, repeated=True)
