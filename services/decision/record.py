"""The wire forms of a decision: the answer to the caller, what is kept under its id, and the record in the log.

The record holds all that is needed to recompute the decision: transaction, features as served, model, policy.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime

import msgspec

from feature_store.definitions import Measure
from feature_store.held import Held
from feature_store.transaction import Transaction
from services.decision.policy import Action

VERSION = 2
"""Of the record. Version 1 had positions of a card and a merchant only, and named no version."""


BEFORE_COMMIT = ("wait", "read", "features", "score", "judge")
"""The stages that are over before the commit, in their order."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller gets, and gets again for the same transaction.

    `stage_ms` has the stages before the commit, in milliseconds: a stored answer cannot hold how long storing it
    took. The header `Server-Timing` of the response has all of them.
    """

    transaction_id: str
    action: Action
    score: float | None
    """Probability of fraud; null where the model gave none."""
    reasons: tuple[str, ...]
    model: str
    policy: str
    features_version: str
    degraded: tuple[str, ...]
    stage_ms: dict[str, float]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision knows of itself before it is committed."""

    version: int
    decided_at: datetime
    transaction: Transaction
    features: tuple[float | None, ...]
    """As served, in the order of `features_version`; null where not known (NaN)."""
    held: dict[str, Held]
    """By entity: which part of the log the features are from."""
    counted: dict[Measure, int]
    """What it added to the card's tiles, by measure."""
    answer: Answer


class Record(Decision, frozen=True, kw_only=True):
    """One decision in the log. (`partition`, `sequence`) is its place: without gap, in the order of commits."""

    epoch: int
    """Offset of the empty record that began its epoch. A record stamped with an earlier epoch is ignored once a later
    epoch has begun."""
    partition: int
    sequence: int


class RecordVersionError(RuntimeError):
    """A record was written by another version of this code. Nothing may be built from a log that cannot be read."""


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """What is kept under a transaction's id: which body was decided, and all of the answer but the id itself."""

    body: bytes
    """Digest of the transaction, `DIGEST` bytes."""
    action: Action
    score: float | None
    reasons: tuple[str, ...]
    model: str
    policy: str
    features_version: str
    degraded: tuple[str, ...]
    stage_us: tuple[int, ...]
    """Microseconds, in the order of `BEFORE_COMMIT`."""

    @classmethod
    def of(cls, transaction: Transaction, answer: Answer) -> "Stored":
        """Make what is to be kept."""
        return cls(
            digest(transaction),
            answer.action,
            answer.score,
            answer.reasons,
            answer.model,
            answer.policy,
            answer.features_version,
            answer.degraded,
            tuple([round(answer.stage_ms[stage] * 1_000) for stage in BEFORE_COMMIT]),
        )

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Stored":
        """Read what the store gave."""
        return _stored.decode(raw)

    def to_bytes(self) -> bytes:
        """Give what the store keeps."""
        return msgspec.msgpack.encode(self)

    def answer(self, transaction_id: str) -> Answer:
        """Give the answer, which encodes to the bytes that were sent first."""
        return Answer(
            transaction_id=transaction_id,
            action=self.action,
            score=self.score,
            reasons=self.reasons,
            model=self.model,
            policy=self.policy,
            features_version=self.features_version,
            degraded=self.degraded,
            stage_ms={stage: us / 1_000 for stage, us in zip(BEFORE_COMMIT, self.stage_us, strict=True)},
        )


DIGEST = 16
_records = msgspec.json.Decoder(Record)
_stored = msgspec.msgpack.Decoder(Stored)


class _Versioned(msgspec.Struct):
    sequence: int
    version: int = 1


def digest(transaction: Transaction) -> bytes:
    """Tell one transaction's body from another's, over all of its fields."""
    return hashlib.blake2b(msgspec.json.encode(transaction), digest_size=DIGEST).digest()


def decode_record(raw: bytes) -> Record:
    """Read a record of topic `decisions`.

    Raises:
        msgspec.MsgspecError: it is not one.
        RecordVersionError: it is one of another version.
    """
    try:
        record = _records.decode(raw)
    except msgspec.MsgspecError:
        _check_version(msgspec.json.decode(raw, type=_Versioned).version)
        raise
    _check_version(record.version)
    return record


def _check_version(found: int) -> None:
    if found != VERSION:
        raise RecordVersionError(
            f"topic decisions holds records of version {found}, this code reads version {VERSION}: run the code that"
            " wrote them, or begin with new topics and empty state (`fraud up`: remove var/)"
        )


def placed(decision: bytes, epoch: int, partition: int, sequence: int) -> bytes:
    """Complete an encoded `Decision` with its place in the log, which only commit and relay can give it."""
    return b'{"epoch":%d,"partition":%d,"sequence":%d,%b' % (epoch, partition, sequence, decision[1:])


def features_of(row: Iterable[float]) -> tuple[float | None, ...]:
    """Give a row as JSON can hold it: every float32 exactly, NaN as null."""
    return tuple([value if value == value else None for value in row])  # noqa: PLR0124  # NaN alone is not itself
