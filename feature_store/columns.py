"""From the columns of a file to our own: times in UTC, text as text, amounts in minor units.

pyarrow is imported when a file is read or written: only training, simulation and replay need it.
"""

import importlib
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from feature_store.transaction import InvalidError

_TRUTH = {"1": True, "true": True, "0": False, "false": False}


class TableError(ValueError):
    """A file that cannot be read as transactions; the message says which column, or which row and field."""


class MissingExtraError(ImportError):
    """pyarrow is not installed."""


def arrow(module: str = "") -> Any:
    """Import pyarrow or one of its modules.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(f"pyarrow.{module}" if module else "pyarrow")
    except ImportError as error:
        raise MissingExtraError("tables need pyarrow: pip install 'realtime-fraud-detection[train]'") from error


def read_csv(path: Path) -> Any:
    """Read every column as text: an amount keeps its decimals, an id its leading zeros."""
    csv, text = arrow("csv"), arrow().string()
    with csv.open_csv(path) as file:
        names = file.schema.names
    options = csv.ConvertOptions(column_types=dict.fromkeys(names, text), strings_can_be_null=True, null_values=[""])
    return csv.read_csv(path, convert_options=options)


def read_parquet(path: Path) -> Any:
    """Read every column with its own type."""
    return arrow("parquet").read_table(path)


def converted(name: str, column: Any) -> Any:
    """Convert one of our columns: times to instants, what is not a number to text."""
    if name in {"event_time", "decided_at"}:
        return _instants(name, column)
    return column if name in {"amount", "is_fraud"} else column.cast(arrow().string())


def _instants(name: str, column: Any) -> Any:
    """Convert to microseconds, UTC; a time without a zone is taken as UTC."""
    pa = arrow()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pa.array([_instant(name, text, number) for number, text in enumerate(column.to_pylist(), 1)])
    if not pa.types.is_timestamp(column.type) and not pa.types.is_date(column.type):
        raise TableError(f"{name}: dates and times were expected, not {column.type}")
    if column.null_count:
        raise TableError(f"row {column.is_null().to_pylist().index(True) + 1}, {name}: is required")
    return column.cast(pa.timestamp("us", "UTC"), safe=False)


def _instant(name: str, text: str | None, number: int) -> datetime:
    try:
        return to_utc(datetime.fromisoformat(text or ""))
    except ValueError:
        raise TableError(f"row {number}, {name}: must be a date and time as in ISO 8601") from None


def to_utc(at: datetime) -> datetime:
    """Take a time without a zone as UTC."""
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def to_minor_units(amount: float | str | Decimal, decimals: int | None) -> int:
    """Round half up the decimal that was written (a float's repr); `decimals` is None if it is in minor units."""
    try:
        written = Decimal(repr(amount) if isinstance(amount, float) else amount)
        minor = written.scaleb(decimals or 0).quantize(Decimal(1), ROUND_HALF_UP)
    except (InvalidOperation, TypeError):
        raise InvalidError("amount", "is not a number, or far too large") from None
    if not minor.is_finite() or (decimals is None and minor != written):
        raise InvalidError("amount", "must be a number, and a whole one if it is in minor units")
    return int(minor)


def to_truth(value: float | str | None) -> bool | None:
    """Read 0, 1, true, false; None where nothing is known."""
    if value is None:
        return None
    try:
        return _TRUTH[value.strip().lower()] if isinstance(value, str) else {0: False, 1: True}[int(value)]
    except (KeyError, ValueError):
        raise InvalidError("is_fraud", "must be 0, 1, true or false") from None
