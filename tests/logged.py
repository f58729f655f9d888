"""Transactions, and decisions as topic `decisions` has them, for tests that do not look inside."""

from datetime import UTC, datetime

import msgspec

from feature_store.transaction import Label, Transaction
from services.decision.policy import Action
from services.decision.record import BEFORE_COMMIT, VERSION, Answer, Decision, placed

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def paid(name="t1", **changes):
    """A transaction of 10 euros at `NOW`, of card c1 at merchant m1."""
    fields = {"card_id": "c1", "merchant_id": "m1", "amount": 1_000, "currency": "EUR", "event_time": NOW}
    return Transaction(transaction_id=name, **(fields | changes))


def label_of(transaction, *, is_fraud=True):
    """The label of a transaction."""
    named = {name: getattr(transaction, name) for name in ("transaction_id", "card_id", "merchant_id", "event_time")}
    return Label(**named, is_fraud=is_fraud)


def decided(transaction):
    """The decision on it, as `commit` puts it into the outbox."""
    answer = Answer(
        transaction_id=transaction.transaction_id,
        action=Action.APPROVE,
        score=0.1,
        reasons=(),
        model="m",
        policy="p",
        features_version="f",
        degraded=(),
        stage_ms=dict.fromkeys(BEFORE_COMMIT, 0.1),
    )
    decision = Decision(
        version=VERSION, decided_at=NOW, transaction=transaction, features=(), held={}, counted={}, answer=answer
    )
    return msgspec.json.encode(decision)


def published(transaction, sequence, *, epoch=0, partition=0):
    """The same as a relay of `epoch` publishes it."""
    return placed(decided(transaction), epoch, partition, sequence)
