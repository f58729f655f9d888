"""Rows of integers as bytes: a table is a count of rows, then its columns, each as narrow as its largest value allows.

| bytes | what |
|---|---|
| 2 | number of rows, little-endian like everything here |
| 1 | width of the column: `B` 1 byte, `H` 2, `I` 4, `Q` 8, `W` 16 |
| rows * width | its values; `W`: all low halves, then all high halves |
| ... | the next column |

How many columns there are, the reader knows. Equal tables make equal bytes.

>>> pack([[7, 9], [1, 300]]).hex(" ")
'02 00 42 07 09 48 01 00 2c 01'
>>> unpack(pack([[7, 9], [1, 300]]), 0, columns=2)
([[7, 9], [1, 300]], 10)
"""

from struct import pack as struct_pack
from struct import unpack_from

Table = list[list[int]]
"""Columns of equal length."""

_WIDTHS = ((1 << 8, "B", b"B"), (1 << 16, "H", b"H"), (1 << 32, "I", b"I"), (1 << 64, "Q", b"Q"))
_BYTES = {ord("B"): ("B", 1), ord("H"): ("H", 2), ord("I"): ("I", 4), ord("Q"): ("Q", 8)}
_WIDE = ord("W")
_HALF = 64


def pack(table: Table) -> bytes:
    """Write a table of integers from 0 to 2**128 - 1.

    Raises:
        struct.error: a value is out of that range, or there are more than 65,535 rows.
    """
    rows = len(table[0])
    parts = [rows.to_bytes(2, "little")]
    if rows:
        for column in table:
            largest = max(column)
            for limit, code, mark in _WIDTHS:
                if largest < limit:
                    parts += (mark, struct_pack(f"<{rows}{code}", *column))
                    break
            else:
                low = [value & ((1 << _HALF) - 1) for value in column]
                parts += (b"W", struct_pack(f"<{2 * rows}Q", *low, *[value >> _HALF for value in column]))
    return b"".join(parts)


def unpack(raw: bytes, start: int, *, columns: int) -> tuple[Table, int]:
    """Read a table from `raw`; gives it and where it ends.

    Raises:
        struct.error, KeyError, IndexError: there is no such table at `start`.
    """
    rows = raw[start] | raw[start + 1] << 8
    at = start + 2
    if not rows:
        return [[] for _ in range(columns)], at
    table = []
    for _ in range(columns):
        mark = raw[at]
        if mark == _WIDE:
            halves = unpack_from(f"<{2 * rows}Q", raw, at + 1)
            table.append([low | high << _HALF for low, high in zip(halves[:rows], halves[rows:], strict=True)])
            at += 1 + 16 * rows
        else:
            code, width = _BYTES[mark]
            table.append(list(unpack_from(f"<{rows}{code}", raw, at + 1)))
            at += 1 + width * rows
    return table, at
