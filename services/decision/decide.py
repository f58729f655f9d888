"""The use case: read, score, judge, commit. Both doors call it; it is the only writer of decisions.

Nothing is written before the decision is known, and everything is written at once, if the card is still as it was read.
If it moved, the transaction is scored again on the card as it is now.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from weakref import WeakValueDictionary

from feature_store.decision_store import Committed, Decided, DecisionStore, Moved, Seen, Write
from feature_store.definitions import FINGERPRINT, MERCHANT_DELAY
from feature_store.formulas import FeatureVector, counted, feature_vector
from feature_store.transaction import Transaction
from services.decision.policy import CONTENTION, MERCHANT_LAG, Policy
from services.decision.ports import Model
from services.decision.record import UNPLACED, Answer, Record, Stored, digest, features_of, unplaced
from services.decision.stopwatch import Stopwatch
from services.metrics import Metrics

ATTEMPTS = 32
"""Most commits tried before one is forced and says so. Within a process a card's transactions take turns, so only other
processes can be in the way."""


class ConflictError(Exception):
    """The transaction's id was decided with another body."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer as JSON, the seconds each stage took, and whether it had been decided before."""

    answer: bytes
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
    ) -> None:
        self._store = store
        self._model = model
        self._policy = policy
        self._policy_version = policy.version
        self._metrics = metrics
        self._now = now
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __call__(self, transaction: Transaction) -> Outcome:
        """Decide, or give the stored decision.

        Raises:
            ConflictError: the id was decided with another body.
            redis.exceptions.RedisError: Redis did not answer; trying again is safe.
        """
        stopwatch = Stopwatch()
        async with self._turns.setdefault(transaction.card_id, asyncio.Lock()):
            outcome = await self._decide(transaction, stopwatch)
        for stage, seconds in outcome.stages.items():
            self._metrics.stage_seconds.labels(stage).observe(seconds)
        return outcome

    async def _decide(self, transaction: Transaction, stopwatch: Stopwatch) -> Outcome:
        read = await self._store.read(transaction)
        stopwatch.lap("read")
        if isinstance(read, Decided):
            return self._repeat(transaction, read, stopwatch)
        seen, lag = read, max(0.0, transaction.second - read.pending_since)
        self._metrics.merchant_lag.set(lag)
        for attempt in itertools.count(1):
            force = attempt > ATTEMPTS
            answer, features = self._judge(transaction, seen, _degraded(lag, contended=force), stopwatch)
            write = self._write(transaction, seen, answer, features)
            result = await self._store.commit(transaction, seen, write, force=force)
            stopwatch.lap("commit")
            match result:
                case Committed():
                    self._note(answer)
                    return Outcome(Stored.from_bytes(write.stored).answer, stopwatch.seconds, repeated=False)
                case Decided():
                    return self._repeat(transaction, result, stopwatch)
                case Moved():
                    self._metrics.commit_conflicts.inc()
                    seen = result.seen
        raise AssertionError("a forced commit cannot find that the card moved")

    def _judge(
        self, transaction: Transaction, seen: Seen, degraded: tuple[str, ...], stopwatch: Stopwatch
    ) -> tuple[Answer, FeatureVector]:
        features = feature_vector(transaction, seen.aggregates)
        score = self._model.score(features)
        stopwatch.lap("score")
        judgement = self._policy.judge(score, features, degraded)
        stopwatch.lap("judge")
        answer = Answer(
            transaction_id=transaction.transaction_id,
            action=judgement.action,
            score=score,
            reasons=judgement.reasons,
            model=self._model.version,
            policy=self._policy_version,
            features_version=FINGERPRINT,
            degraded=degraded,
            stage_ms={stage: round(seconds * 1_000, 3) for stage, seconds in stopwatch.seconds.items()},
        )
        return answer, features

    def _write(self, transaction: Transaction, seen: Seen, answer: Answer, features: FeatureVector) -> Write:
        """Put together what is written at once: the card's counts, the stored answer, the record for the log."""
        values = counted(transaction, seen.aggregates)
        record = Record(
            epoch=UNPLACED,
            partition=UNPLACED,
            sequence=UNPLACED,
            decided_at=self._now(),
            transaction=transaction,
            features=features_of(features),
            held=seen.held,
            counted={measure.name.lower(): value for measure, value in values.items()},
            answer=answer,
        )
        return Write(values, Stored.of(transaction, answer).to_bytes(), unplaced(record))

    def _note(self, answer: Answer) -> None:
        self._metrics.decisions.labels(answer.action).inc()
        for cause in answer.degraded:
            self._metrics.degraded.labels(cause).inc()

    def _repeat(self, transaction: Transaction, decided: Decided, stopwatch: Stopwatch) -> Outcome:
        stored = Stored.from_bytes(decided.stored)
        if stored.body != digest(transaction):
            raise ConflictError(f"transaction {transaction.transaction_id} was decided with another body")
        self._metrics.repeats.labels("decision").inc()
        return Outcome(stored.answer, stopwatch.seconds, repeated=True)


def _degraded(lag: float, *, contended: bool) -> tuple[str, ...]:
    """Name what this decision had to do without."""
    causes = {MERCHANT_LAG: lag > MERCHANT_DELAY, CONTENTION: contended}
    return tuple(cause for cause, holds in causes.items() if holds)
