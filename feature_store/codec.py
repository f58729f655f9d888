"""An entity's history as the one value that Redis keeps of it. Redis compares its first bytes, and reads no others.

| bytes | what |
|---|---|
| 4 | the layout: names what tiles hold and how, see `FeatureSet.layout` |
| 8 | revision, raised by every write; the first 12 bytes are what compare-and-set compares |
| 4 | CRC-32 of the key and of all other bytes but the stamp |
| ... | MessagePack of [newest, decisions, labels, tables]; every integer takes as few bytes as its value needs |
| 16 | for what `commit` writes, the stamp: sequence of the last decision, twice, written by the script that gives it |

`newest` is the second of the newest transaction, or null. `decisions` and `labels` map a partition to the last sequence
or offset counted; what `commit` writes has its decisions in the stamp. `tables` has one for each kind of tile that
holds anything: tile numbers, ascending, then a column for each measure. Numbers outside MessagePack are big-endian,
integers of 2**64 and more are decimal text. Equal histories make equal bytes.
"""

import struct
import zlib

import msgspec

from feature_store.definitions import Writer
from feature_store.history import History, Offsets, Table
from feature_store.plan import Plan

HEAD = 12
"""How many bytes at the beginning tell one revision from every other."""
_REVISION, _CHECKSUM, _STAMP = struct.Struct(">Q"), struct.Struct(">I"), struct.Struct(">QQ")


class _Packed(msgspec.Struct, array_like=True):
    newest: int | None
    decisions: Offsets
    labels: Offsets
    tables: list[Table]


class _Wide(msgspec.Struct, array_like=True):
    """The same where some sum does not fit into 64 bits."""

    newest: int | None
    decisions: Offsets
    labels: Offsets
    tables: list[list[list[int | str]]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode
_decode_wide = msgspec.msgpack.Decoder(_Wide).decode


class CorruptStateError(RuntimeError):
    """The bytes under a key are not a history that this layout wrote. `fraud rebuild` makes state anew from the log."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"the state under {key} {why}; `fraud rebuild` makes it again from the log")
        self.key = key


def head(layout: bytes, revision: int) -> bytes:
    """Give the first bytes of a history of that revision; of one that was never written, none."""
    return layout + _REVISION.pack(revision) if revision else b""


def stamp(sequence: int) -> bytes:
    """Give the last bytes of a history that `commit` writes."""
    return _STAMP.pack(sequence, sequence)


def encode(history: History, key: str, layout: bytes, revision: int) -> bytes:
    """Write a history, for `key`, as of `revision`; a card's without its stamp."""
    committed = history.plan.entity.written_by is Writer.COMMIT
    decisions = {} if committed else dict(sorted(history.decisions.items()))
    parts = (history.newest, decisions, dict(sorted(history.labels.items())))
    try:
        body = _encode(_Packed(*parts, history.tables))
    except OverflowError:
        body = _encode(_Wide(*parts, [[_as_text(column) for column in table] for table in history.tables]))
    first = head(layout, revision)
    return first + _CHECKSUM.pack(_checksum(key, first, body)) + body


def encode_stamped(history: History, key: str, layout: bytes, revision: int) -> bytes:
    """Write a history whole: with its stamp, if `commit` writes the entity."""
    raw = encode(history, key, layout, revision)
    if history.plan.entity.written_by is Writer.UPDATER:
        return raw
    return raw + stamp(max(history.decisions.values(), default=0))


def decode(raw: bytes | None, key: str, plan: Plan, layout: bytes, partition: int) -> History:
    """Read a history; an entity without any has an empty one.

    Args:
        raw: what Redis has under `key`.
        key: as given to `encode`.
        plan: of the entity.
        layout: of the running features.
        partition: the entity's own, where the decisions are from that `commit` stamps.

    Raises:
        CorruptStateError: it was written by another layout, for another key, or is damaged.
    """
    if raw is None:
        return History(plan)
    if raw[: len(layout)] != layout:
        raise CorruptStateError(key, "is of another layout, or no history")
    committed = plan.entity.written_by is Writer.COMMIT
    end = len(raw) - (_STAMP.size if committed else 0)
    body = raw[HEAD + _CHECKSUM.size : end]
    if not body or _CHECKSUM.unpack_from(raw, HEAD)[0] != _checksum(key, raw[:HEAD], body):
        raise CorruptStateError(key, "does not match its checksum")
    history = _unpacked(body, plan)
    (history.revision,) = _REVISION.unpack_from(raw, len(layout))
    if committed:
        sequence, again = _STAMP.unpack_from(raw, end)
        if sequence != again:
            raise CorruptStateError(key, "has a damaged sequence")
        history.decisions = {partition: sequence} if sequence else {}
    return history


def _unpacked(body: bytes, plan: Plan) -> History:
    packed: _Packed | _Wide
    try:
        packed = _decode(body)
        tables = packed.tables
    except msgspec.ValidationError:  # the checksum was right, so these are sums too large for 64 bits
        packed = _decode_wide(body)
        tables = [[list(map(int, column)) for column in table] for table in packed.tables]
    history = History(plan, tables)
    history.newest, history.decisions, history.labels = packed.newest, packed.decisions, packed.labels
    return history


def _as_text(column: list[int]) -> list[int | str]:
    return [value if value < 1 << 64 else str(value) for value in column]


def _checksum(key: str, first: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(first + key.encode()))
