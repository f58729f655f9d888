import os
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from feature_store.columns import MissingExtraError, TableError
from feature_store.tables import BATCH, Row, read_table, write_table
from feature_store.transaction import Transaction

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def a_row(number: int = 0, *, at: datetime = NOON, **changes) -> Row:
    fields = {"transaction_id": f"t{number}", "card_id": "c1", "merchant_id": "m1", "amount": 1250, "currency": "EUR"}
    return Row(Transaction(event_time=at, **(fields | changes)), is_fraud=number % 2 == 1)


def a_file(folder: Path, **columns) -> Path:
    """A parquet file of two rows, with columns added, replaced, or left out (None)."""
    held = {
        "transaction_id": ["t1", "t2"],
        "card_id": ["c1", "c2"],
        "merchant_id": ["m1", "m1"],
        "event_time": [NOON, NOON + timedelta(minutes=1)],
        "amount": [12.5, 7.0],
    } | columns
    path = folder / "table.parquet"
    parquet.write_table(pa.table({name: values for name, values in held.items() if values is not None}), path)
    return path


def rows_of(path: Path, **options) -> list[Row]:
    return list(read_table(path, **options))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_come_back_as_they_were_written(tmp_path, suffix):
    path = tmp_path / f"table.{suffix}"
    rows = [
        a_row(0),
        a_row(1, channel="ecommerce", country="DE", mcc="0742", device_id="d-1", currency="JPY"),
        Row(a_row(2, amount=10**10, currency="ISK").transaction, is_fraud=True, pattern="card_testing"),
        Row(a_row(3, at=NOON + timedelta(microseconds=1)).transaction, is_fraud=None),
    ]
    write_table(path, rows)
    assert rows_of(path) == rows
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_more_than_a_batch_is_read_twice_alike(tmp_path):
    path = tmp_path / "table.parquet"
    write_table(path, (a_row(number, at=NOON + timedelta(seconds=number)) for number in range(BATCH + 5)))
    table = read_table(path)
    assert len(table) == BATCH + 5
    assert [row.transaction.transaction_id for row in table] == [f"t{number}" for number in range(BATCH + 5)]
    assert len(list(table)) == BATCH + 5


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        (57.16, "EUR", 5716),
        (0.1 + 0.2, "EUR", 30),
        (1.005, "EUR", 101),  # binary floats have 1.00499…; what was written is 1.005
        (2.675, "EUR", 268),
        (1.15, "EUR", 115),
        (1250.0, "JPY", 1250),
        (0.5, "JPY", 1),
        (1234.5, "KRW", 1235),
        (1e8, "EUR", 10**10),
        (Decimal("57.16"), "EUR", 5716),
        (57, "EUR", 5700),
        ("57.16", "EUR", 5716),
    ],
)
def test_amounts_become_minor_units_exactly_rounded_half_up(tmp_path, amount, currency, minor):
    row, _ = rows_of(a_file(tmp_path, amount=[amount, amount], currency=[currency] * 2))
    assert row.transaction.amount == minor


def test_amounts_already_in_minor_units_stay_and_must_be_whole(tmp_path):
    path = a_file(tmp_path, amount=[5716.0, 12.5])
    rows = iter(read_table(path, minor_units=True))
    assert next(rows).transaction.amount == 5716
    with pytest.raises(TableError, match=r"row 2, amount: .*whole"):
        next(rows)


def test_the_given_currency_stands_where_a_row_names_none(tmp_path):
    rows = rows_of(a_file(tmp_path, currency=["USD", None]), currency="JPY")
    assert [(row.transaction.currency, row.transaction.amount) for row in rows] == [("USD", 1250), ("JPY", 7)]


def test_columns_are_found_under_the_names_of_the_file(tmp_path):
    path = a_file(tmp_path, card_id=None, customer_id=[596, 4961])
    assert [row.transaction.card_id for row in rows_of(path, columns={"card_id": "customer_id"})] == ["596", "4961"]


def test_ids_in_csv_keep_their_leading_zeros(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(
        "transaction_id,card_id,merchant_id,event_time,amount\n007,01,0002,2026-03-01T13:00:00+01:00,1.10\n"
    )
    (row,) = rows_of(path)
    assert (row.transaction.transaction_id, row.transaction.card_id, row.transaction.merchant_id) == (
        "007",
        "01",
        "0002",
    )
    assert (row.transaction.event_time, row.transaction.amount) == (NOON, 110)


@pytest.mark.parametrize(
    "times",
    [
        pa.array([datetime(2026, 3, 1, 12), datetime(2026, 3, 1, 12)], pa.timestamp("ms")),  # noqa: DTZ001
        pa.array([NOON, NOON], pa.timestamp("ns", "Europe/Berlin")),
        ["2026-03-01 12:00:00", "2026-03-01T12:00:00Z"],
        ["2026-03-01T14:00:00+02:00", "2026-03-01T12:00:00.000000"],
    ],
)
def test_times_without_a_zone_are_utc_and_others_are_converted(tmp_path, times):
    assert [row.transaction.event_time for row in rows_of(a_file(tmp_path, event_time=times))] == [NOON, NOON]


def test_rows_are_sorted_by_time_and_equals_keep_their_order(tmp_path):
    path = tmp_path / "table.parquet"
    minutes = [3, 1, 2, 1, 3, 1] * 50
    write_table(path, [a_row(number, at=NOON + timedelta(minutes=m)) for number, m in enumerate(minutes)])
    expected = sorted(range(300), key=lambda number: minutes[number])  # Python's sort keeps the order of equals
    assert [row.transaction.transaction_id for row in read_table(path)] == [f"t{number}" for number in expected]


@pytest.mark.parametrize("minutes", [[0, 1, 2, 3, 4], [4, 2, 0, 1, 3]])
def test_start_is_included_and_end_is_not(tmp_path, minutes):
    path = tmp_path / "table.parquet"
    write_table(path, [a_row(m, at=NOON + timedelta(minutes=m)) for m in minutes])
    start, end = NOON + timedelta(minutes=1), NOON + timedelta(minutes=3)
    table = read_table(path, start=start, end=end)
    assert [row.transaction.transaction_id for row in table] == ["t1", "t2"]
    assert len(table) == 2
    assert len(read_table(path, start=end.replace(tzinfo=None))) == 2
    assert list(read_table(path, start=end, end=start)) == []


def test_a_missing_column_is_named_with_the_columns_there_are(tmp_path):
    path = a_file(tmp_path, card_id=None, customer_id=["c1", "c2"])
    with pytest.raises(TableError, match=r"no column card_id; it has transaction_id, merchant_id, .*customer_id"):
        read_table(path)
    with pytest.raises(TableError, match=r"no column label;"):
        read_table(a_file(tmp_path), columns={"is_fraud": "label"})


def test_a_field_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(TableError, match="no field is called cardid"):
        read_table(a_file(tmp_path), columns={"cardid": "card_id"})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"amount": [1.0, -0.01]}, "row 2, amount: "),
        ({"amount": [1.0, float("nan")]}, "row 2, amount: "),
        ({"amount": [1.0, float("inf")]}, "row 2, amount: "),
        ({"amount": ["1.0", "a lot"]}, "row 2, amount: is not a number"),
        ({"amount": [1.0, None]}, "row 2, amount: is required"),
        ({"card_id": ["c1", "4111111111111111"]}, "row 2, card_id: looks like a card number"),
        ({"card_id": ["c1", "c 2"]}, "row 2, card_id: "),
        ({"merchant_id": ["m1", None]}, "row 2, merchant_id: is required"),
        ({"currency": ["EUR", "ZZZ"]}, "row 2, currency: "),
        ({"currency": ["EUR", "KWD"]}, "row 2, currency: has no reference rate"),
        ({"channel": ["pos", "pigeon"]}, "row 2, channel: "),
        ({"is_fraud": [0, 7]}, "row 2, is_fraud: "),
        ({"is_fraud": ["false", "maybe"]}, "row 2, is_fraud: "),
    ],
)
def test_a_row_that_breaks_a_rule_is_named_with_its_field(tmp_path, columns, message):
    table = iter(read_table(a_file(tmp_path, **columns)))
    next(table)
    with pytest.raises(TableError, match=message):
        next(table)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["2026-03-01", "yesterday"], "row 2, event_time: "),
        ([NOON, None], "row 2, event_time: is required"),
        ([1, 2], "event_time: dates and times were expected, not int64"),
    ],
)
def test_times_that_are_none_are_refused_when_the_file_is_opened(tmp_path, times, message):
    with pytest.raises(TableError, match=message):
        read_table(a_file(tmp_path, event_time=times))


@pytest.mark.parametrize(
    ("hours", "amounts", "place"), [([2, 1], [-1.0, 1.0], 1), ([0, 1], [1.0, -1.0], 2), ([1, 0], [-1.0, 1.0], 1)]
)
def test_an_error_names_the_place_in_the_file_before_sorting(tmp_path, hours, amounts, place):
    times = [NOON + timedelta(hours=hour) for hour in hours]
    table = read_table(a_file(tmp_path, event_time=times, amount=amounts), start=NOON + timedelta(minutes=1))
    with pytest.raises(TableError, match=f"row {place}, amount"):
        list(table)


@pytest.mark.parametrize("values", [[0, 1], [False, True], ["0", "1"], ["false", "TRUE"], [0.0, 1.0]])
def test_labels_are_read_however_they_are_written(tmp_path, values):
    assert [row.is_fraud for row in rows_of(a_file(tmp_path, is_fraud=values))] == [False, True]


def test_a_row_without_a_label_is_not_called_genuine(tmp_path):
    assert [row.is_fraud for row in rows_of(a_file(tmp_path))] == [None, None]


def test_an_unfinished_file_never_stands_under_its_name(tmp_path):
    def breaks_off():
        yield a_row()
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        write_table(tmp_path / "table.csv", breaks_off())
    assert not (tmp_path / "table.csv").exists()


def test_the_csv_is_readable_by_others(tmp_path):
    write_table(tmp_path / "table.csv", [a_row(amount=5716)])
    (record,) = csv.read_csv(tmp_path / "table.csv").to_pylist()
    assert (record["amount"], record["event_time"], record["is_fraud"]) == (57.16, NOON, False)


def test_where_pyarrow_is_missing_the_error_names_the_extra(tmp_path, monkeypatch):
    path = a_file(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"realtime-fraud-detection\[train\]"):
        read_table(path)


@pytest.mark.skipif(
    "HANDBOOK_TABLE" not in os.environ, reason="HANDBOOK_TABLE names no parquet file of the Handbook's transactions"
)
def test_the_handbooks_transactions_are_read():
    columns = {"card_id": "customer_id", "merchant_id": "terminal_id", "event_time": "tx_datetime"}
    table = read_table(Path(os.environ["HANDBOOK_TABLE"]), columns=columns)
    first = next(iter(table))
    assert (first.transaction.card_id, first.transaction.amount, first.is_fraud) == ("596", 5716, False)
    assert sum(bool(row.is_fraud) for row in islice(table, 10_000)) > 0


def test_rows_are_in_the_order_of_the_log_where_it_is_known(tmp_path):
    decided = [NOON + timedelta(seconds=2), NOON + timedelta(seconds=1)]
    path = a_file(tmp_path, decided_at=decided)
    table = read_table(path, as_decided=True)
    assert (table.order, [row.transaction.transaction_id for row in table]) == ("decided_at", ["t2", "t1"])
    assert [row.decided_at for row in table] == sorted(decided)
    assert read_table(path).order == "event_time"


def test_where_some_were_never_decided_event_time_orders(tmp_path):
    table = read_table(a_file(tmp_path, decided_at=pa.array([NOON, None])), as_decided=True)
    assert (table.order, len(table)) == ("event_time", 2)
