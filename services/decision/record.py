"""The wire forms of a decision: the answer to the caller, and the record in topic `decisions`.

The record holds all that is needed to recompute the decision: transaction, features as served, model, policy.
"""

import hashlib
import math
from datetime import datetime

import msgspec

from feature_store.formulas import Row
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

    partition: int
    sequence: int
    decided_at: datetime
    transaction: Transaction
    features: tuple[float | None, ...]
    """As served, in the order of `features_version`; null where not known (NaN)."""
    predecessors: int
    """How many decisions of the card it had seen."""
    counted: dict[str, int]
    """What it added to the card's tiles, by measure."""
    answer: Answer


_encoder = msgspec.json.Encoder()
_records = msgspec.json.Decoder(Record)
_DIGEST = 32


def encode(value: object) -> bytes:
    """Encode as compact JSON."""
    return _encoder.encode(value)


def decode_record(raw: bytes) -> Record:
    """Read a record of topic `decisions`.

    Raises:
        msgspec.MsgspecError: it is not one.
    """
    return _records.decode(raw)


def unplaced(**fields: object) -> bytes:
    """Encode the fields of a `Record` whose place in the log is not known yet."""
    return encode(fields)


def placed(unplaced: bytes, partition: int, sequence: int) -> bytes:
    """Complete a record with its place in the log."""
    return b'{"partition":%d,"sequence":%d,%b' % (partition, sequence, unplaced[1:])


def features_of(row: Row) -> tuple[float | None, ...]:
    """Give a row as JSON can hold it: every float32 exactly, NaN as null."""
    return tuple(None if math.isnan(value) else value for value in row.tolist())


def digest(transaction: Transaction) -> bytes:
    """Tell one transaction's body from another's: 32 hexadecimal digits over all of its fields."""
    return hashlib.sha256(encode(transaction)).hexdigest()[:_DIGEST].encode()


def stored_form(transaction: Transaction, answer: bytes) -> bytes:
    """Give what is kept under the transaction's id: the digest of its body, then the answer as sent."""
    return digest(transaction) + answer


def split_stored(stored: bytes) -> tuple[bytes, bytes]:
    """Take a stored decision apart into digest and answer."""
    return stored[:_DIGEST], stored[_DIGEST:]
