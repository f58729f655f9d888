"""An entity's history as the one value that Redis keeps of it. Redis compares its first bytes, and reads no others.

| bytes | what |
|---|---|
| 4 | the layout: names what tiles hold and how, see `FeatureSet.layout` |
| 8 | revision, raised by every write; the first 12 bytes are what compare-and-set compares |
| 4 | CRC-32 of the key and of all other bytes but the stamp |
| 8 | second of the newest transaction, or `NEVER` |
| ... | table of two columns: partition, last sequence counted (not for what `commit` writes: the stamp has it) |
| ... | table of two columns: partition, offset of the last label counted |
| ... | for each kind of tile that holds anything: table of tile number and measures, see `packed.py` |
| 16 | for what `commit` writes, the stamp: sequence of the last decision, twice, written by the script that gives it |

Numbers outside tables are big-endian. Equal histories make equal bytes.
"""

import struct
import zlib

from feature_store.definitions import Writer
from feature_store.history import History, Offsets
from feature_store.packed import pack, unpack
from feature_store.plan import Plan

HEAD = 12
"""How many bytes at the beginning tell one revision from every other."""
NEVER = -(1 << 63)
_REVISION, _REST, _STAMP = struct.Struct(">Q"), struct.Struct(">Iq"), struct.Struct(">QQ")


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
    tables = [_pack_offsets({} if committed else history.decisions), _pack_offsets(history.labels)]
    tables += map(pack, history.tables)
    first = head(layout, revision)
    newest = NEVER if history.newest is None else history.newest
    rest = b"".join(tables)
    return b"".join((first, _REST.pack(_checksum(key, first, newest, rest), newest), rest))


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
    history = History(plan)
    if raw is None:
        return history
    if raw[: len(layout)] != layout:
        raise CorruptStateError(key, "is of another layout, or no history")
    end = len(raw) - (_STAMP.size if plan.entity.written_by is Writer.COMMIT else 0)
    try:
        (history.revision,) = _REVISION.unpack_from(raw, len(layout))
        checksum, newest = _REST.unpack_from(raw, HEAD)
        body = raw[HEAD + _REST.size : end]
        if checksum != _checksum(key, raw[:HEAD], newest, body):
            raise CorruptStateError(key, "does not match its checksum")
        history.newest = None if newest == NEVER else newest
        history.decisions, at = _offsets(body, 0)
        history.labels, at = _offsets(body, at)
        for index, tile in enumerate(plan.tiles):
            history.tables[index], at = unpack(body, at, columns=len(tile.measures) + 1)
    except (struct.error, IndexError, KeyError):
        raise CorruptStateError(key, "is cut short") from None
    if plan.entity.written_by is Writer.COMMIT:
        sequence, again = _STAMP.unpack_from(raw, end)
        if sequence != again:
            raise CorruptStateError(key, "has a damaged sequence")
        history.decisions = {partition: sequence} if sequence else {}
    return history


def _checksum(key: str, first: bytes, newest: int, rest: bytes) -> int:
    return zlib.crc32(rest, zlib.crc32(b"%b %d %b" % (first, newest, key.encode())))


def _pack_offsets(offsets: Offsets) -> bytes:
    partitions = sorted(offsets)
    return pack([partitions, [offsets[partition] for partition in partitions]])


def _offsets(raw: bytes, at: int) -> tuple[Offsets, int]:
    (partitions, numbers), at = unpack(raw, at, columns=2)
    return dict(zip(partitions, numbers, strict=True)), at
