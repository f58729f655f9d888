"""The wire forms of a decision: the answer to the caller, and the record in topic `decisions`.

The record holds all that is needed to recompute the decision: transaction, features as served, model, policy.
"""

import hashlib
import math
from datetime import datetime

import msgspec

from feature_store.formulas import FeatureVector
from feature_store.held import Held
from feature_store.transaction import Transaction
from services.decision.policy import Action


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller gets, and gets again for the same transaction.

    `stage_ms` has the stages before the commit, in milliseconds: a stored answer cannot hold how long storing it
    took. The header `Server-Timing` of the response has all of them.
    """

    transaction_id: str
    action: Action
    score: float
    reasons: tuple[str, ...]
    model: str
    policy: str
    features_version: str
    degraded: tuple[str, ...]
    stage_ms: dict[str, float]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One decision in the log. (`partition`, `sequence`) is its place: without gap, in the order of commits."""

    epoch: int
    """Offset of the empty record that began the epoch; a record behind the beginning of a later one does not count."""
    partition: int
    sequence: int
    decided_at: datetime
    transaction: Transaction
    features: tuple[float | None, ...]
    """As served, in the order of `features_version`; null where not known (NaN)."""
    held: Held
    """Which part of the log the features are from."""
    counted: dict[str, int]
    """What it added to the card's tiles, by measure."""
    answer: Answer


class Stored(msgspec.Struct, frozen=True):
    """What is kept under a transaction's id: which body was decided, and the answer as it was sent."""

    body: bytes
    """Digest of the transaction, `DIGEST` hexadecimal digits."""
    answer: bytes

    @classmethod
    def of(cls, transaction: Transaction, answer: Answer) -> "Stored":
        """Make what is to be kept."""
        return cls(digest(transaction), msgspec.json.encode(answer))

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Stored":
        """Read what the store gave."""
        return cls(raw[:DIGEST], raw[DIGEST:])

    def to_bytes(self) -> bytes:
        """Give what the store keeps."""
        return self.body + self.answer


DIGEST = 32
UNPLACED = 0
"""Epoch, partition and sequence of a record until it is published; they are left out of what `unplaced` encodes."""
_records = msgspec.json.Decoder(Record)


def digest(transaction: Transaction) -> bytes:
    """Tell one transaction's body from another's, over all of its fields."""
    return hashlib.sha256(msgspec.json.encode(transaction)).hexdigest()[:DIGEST].encode()


def decode_record(raw: bytes) -> Record:
    """Read a record of topic `decisions`.

    Raises:
        msgspec.MsgspecError: it is not one.
    """
    return _records.decode(raw)


def unplaced(record: Record) -> bytes:
    """Encode a record without its place in the log, which only commit and relay can give it."""
    fields = msgspec.structs.asdict(record)
    del fields["epoch"], fields["partition"], fields["sequence"]
    return msgspec.json.encode(fields)


def placed(unplaced: bytes, epoch: int, partition: int, sequence: int) -> bytes:
    """Complete an encoded record with its place in the log."""
    return b'{"epoch":%d,"partition":%d,"sequence":%d,%b' % (epoch, partition, sequence, unplaced[1:])


def features_of(vector: FeatureVector) -> tuple[float | None, ...]:
    """Give a vector as JSON can hold it: every float32 exactly, NaN as null."""
    return tuple(None if math.isnan(value) else value for value in vector.tolist())
