"""Transactions in files: CSV and parquet tables, read as rows that obey the same rules as requests do.

The columns stay in Arrow's memory; Python objects are made a batch at a time, so a million rows fit on a small machine.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from feature_store.columns import (
    TableError,
    arrow,
    converted,
    read_csv,
    read_parquet,
    to_minor_units,
    to_truth,
    to_utc,
)
from feature_store.currency import EXPONENT
from feature_store.transaction import InvalidError, Transaction, parse

REQUIRED = ("transaction_id", "card_id", "merchant_id", "event_time", "amount")
OPTIONAL = (
    *(name for name in Transaction.__struct_fields__ if name not in REQUIRED),
    *("is_fraud", "pattern", "decided_at"),
)
BATCH = 10_000
"""Rows that are Python objects at one time."""

_AS_NAMED: Mapping[str, str] = MappingProxyType({})
_FAR_FUTURE = datetime(9000, 1, 1, tzinfo=UTC)  # a table is history, or a simulation: no clock judges its times


@dataclass(frozen=True, slots=True)
class Row:
    """A transaction and what is known of it: fraud or not, the fraud pattern if simulated, when decided if it was."""

    transaction: Transaction
    is_fraud: bool | None = None
    pattern: str = ""
    decided_at: datetime | None = None


@dataclass(frozen=True)
class Table:
    """Rows in `order`. `len` is known at once; iterating makes the rows, and can be repeated.

    Raises:
        TableError: while iterating, a row breaks a rule of `feature_store.transaction`.
    """

    columns: Any = field(repr=False)
    """A `pyarrow.Table` whose columns have our names, ids as text and `event_time` in microseconds, UTC."""
    numbers: npt.NDArray[np.int64] = field(repr=False)
    """Shape (len,): each row's place in the file, from 1."""
    minor_units: bool
    currency: str
    order: str = "event_time"
    """The column by which rows are sorted."""

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.numbers)

    def __iter__(self) -> Iterator[Row]:
        """Make the rows, a batch at a time."""
        names = self.columns.column_names
        number = iter(self.numbers)
        for batch in self.columns.to_batches(max_chunksize=BATCH):
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield self._row(dict(zip(names, values, strict=True)), next(number))

    def _row(self, values: dict[str, Any], number: int) -> Row:
        known = {name: value for name, value in values.items() if value is not None}
        try:
            is_fraud = to_truth(known.pop("is_fraud", None))
            pattern, decided_at = known.pop("pattern", ""), known.pop("decided_at", None)
            currency = known.setdefault("currency", self.currency)
            if "amount" in known:
                decimals = None if self.minor_units else EXPONENT.get(currency, 0)
                known["amount"] = to_minor_units(known["amount"], decimals)
            transaction = parse(Transaction, msgspec.json.encode(known), now=_FAR_FUTURE)
            return Row(transaction, is_fraud, pattern, decided_at)
        except InvalidError as error:
            raise TableError(f"row {number}, {error}") from None


def read_table(
    path: Path,
    *,
    columns: Mapping[str, str] = _AS_NAMED,
    minor_units: bool = False,
    currency: str = "EUR",
    start: datetime | None = None,
    end: datetime | None = None,
    as_decided: bool = False,
) -> Table:
    """Read transactions from a CSV file (by its suffix) or a parquet file, sorted by event time if they are not.

    Args:
        path: The file.
        columns: Our field's name -> the file's column, where they differ.
        minor_units: Whether `amount` is in minor units; else it is in currency units and is converted exactly.
        currency: The currency of rows that name none.
        start: Leave out what happened before.
        end: Leave out what happened then or later.
        as_decided: Sort by `decided_at` instead, where the file has that column: the order of the log.

    Raises:
        TableError: a column is missing, or holds what cannot be times. Rows are judged when they are made.
        MissingExtraError: pyarrow is not installed.
        OSError: the file cannot be opened.
    """
    if unknown := sorted(set(columns) - {*REQUIRED, *OPTIONAL}):
        raise TableError(f"no field is called {', '.join(unknown)}; there are {', '.join(REQUIRED + OPTIONAL)}")
    raw = read_csv(path) if path.suffix == ".csv" else read_parquet(path)
    names = _found(raw.column_names, columns, path.name)
    if "decided_at" in names and raw[names["decided_at"]].null_count:
        del names["decided_at"]  # some were never decided: no order of the log
    pa = arrow()
    table = pa.table({name: converted(name, raw[column]) for name, column in names.items()})
    by = "decided_at" if as_decided and "decided_at" in names else "event_time"
    order = _order(table[by].to_numpy(), table["event_time"].to_numpy(), start, end)
    in_order = bool(np.all(np.diff(order) == 1))
    rows = table.slice(order[0], len(order)) if in_order and len(order) else table.take(pa.array(order))
    return Table(rows, order + 1, minor_units, currency, by)


def _found(there: list[str], columns: Mapping[str, str], file: str) -> dict[str, str]:
    """Give the file's column of each of our fields; only an optional one that nobody named may be absent."""
    names = {name: columns.get(name, name) for name in (*REQUIRED, *OPTIONAL)}
    absent = {name: column for name, column in names.items() if column not in there}
    if missing := [column for name, column in absent.items() if name in REQUIRED or name in columns]:
        raise TableError(
            f"{file} has no column {', '.join(missing)}; it has {', '.join(there)}."
            " Name the file's columns, as in merchant_id=terminal_id"
        )
    return {name: column for name, column in names.items() if name not in absent}


def _order(
    by: npt.NDArray[np.datetime64], times: npt.NDArray[np.datetime64], start: datetime | None, end: datetime | None
) -> npt.NDArray[np.int64]:
    """Give the places of the rows with times in [start, end), sorted by `by`; equal ones keep the file's order."""
    order = np.argsort(by, kind="stable")
    inside = np.ones(len(times), np.bool_)
    if start is not None:
        inside &= times >= _naive(start)
    if end is not None:
        inside &= times < _naive(end)
    return order[inside[order]]


def _naive(at: datetime) -> np.datetime64:
    return np.datetime64(to_utc(at).replace(tzinfo=None))


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV (by the suffix) or parquet, `amount` in currency units, so that `read_table` gives them back.

    Raises:
        MissingExtraError: pyarrow is not installed.
        OSError: the file cannot be written.
    """
    pa = arrow()
    text = dict.fromkeys((*REQUIRED, *OPTIONAL), pa.string())
    instant = pa.timestamp("us", "UTC")
    own = {"event_time": instant, "amount": pa.float64(), "is_fraud": pa.bool_(), "decided_at": instant}
    schema = pa.schema(text | own)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    kind = arrow("csv").CSVWriter if path.suffix == ".csv" else arrow("parquet").ParquetWriter
    with kind(str(unfinished), schema) as writer:
        remaining = iter(rows)
        while batch := list(itertools.islice(remaining, BATCH)):
            writer.write_table(pa.Table.from_pylist([_record(row) for row in batch], schema=schema))
    unfinished.replace(path)


def _record(row: Row) -> dict[str, Any]:
    """Give a row's columns. The quotient is the double nearest to the decimal, whose repr is that decimal."""
    record = msgspec.structs.asdict(row.transaction)
    record["amount"] = row.transaction.amount / 10 ** EXPONENT[row.transaction.currency]
    return record | {"is_fraud": row.is_fraud, "pattern": row.pattern, "decided_at": row.decided_at}
