"""`fraud replay`: every row decided exactly once, with the features training sees; a second time without effect."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from feature_store.tables import read_table, write_table
from model.dataset import build
from model.simulator import Parameters, simulate

# 40 cards over 12 days: some 700 transactions, frauds whose labels come in time, and bursts
SMALL = Parameters(cards=40, merchants=25, days=12, seed=3)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("replay") / "transactions.csv"
    write_table(path, simulate(SMALL))
    return path


def replay(stack, file, *options, report=None):
    report = report or file.with_name("report.json")
    report.unlink(missing_ok=True)
    ended = subprocess.run(
        [sys.executable, "-m", "services.cli", "replay", str(file), "--report", str(report), *options],
        env=os.environ
        | {
            "FRAUD_KAFKA_BOOTSTRAP": stack.bootstrap,
            "FRAUD_PARTITIONS": str(stack.partitions),
            "FRAUD_REDIS_URL": stack.redis_url,
        },
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    return ended, json.loads(report.read_text()) if report.exists() else None


@pytest.mark.parametrize("door", ["kafka", "http"])
async def test_a_replay_decides_every_row_once_and_serves_the_features_of_training(
    door, stack, file, read_topic, state, tmp_path
):
    rows = list(read_table(file))
    prefix = f"{door}-"
    mine = tmp_path / "mine.csv"
    write_table(mine, [renamed(row, prefix) for row in rows])
    options = ("--door", door, "--url", stack.url, "--label-delay", "7d")

    ended, report = replay(stack, mine, *options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (report["sent"], report["decided"], report["duplicates"]) == (len(rows), len(rows), 0)
    assert (report["decided_twice"], report["behind"]) == (0, 0)
    assert report["labels"] > 0

    served = {
        record["transaction"]["transaction_id"]: record["features"]
        for record in await read_topic("decisions")
        if record["transaction"]["transaction_id"].startswith(prefix)
    }
    dataset = build(read_table(mine))
    offline = dict(zip((row.transaction.transaction_id for row in read_table(mine)), dataset.features, strict=True))
    assert served.keys() == offline.keys()
    for identity, values in served.items():
        online = np.array([np.nan if value is None else value for value in values], np.float32)
        np.testing.assert_array_equal(online, offline[identity], err_msg=identity)

    before = state()
    ended, report = replay(stack, mine, *options)
    assert (ended.returncode, report["sent"], report["duplicates"]) == (0, len(rows), len(rows))
    assert state() == before


@pytest.mark.parametrize("pace", ["log", "none"])
def test_also_where_nothing_waits_for_merchant_state_every_row_is_decided_once(pace, stack, file, tmp_path):
    mine = tmp_path / "mine.csv"
    write_table(mine, [renamed(row, f"pace-{pace}-") for row in read_table(file)])
    ended, report = replay(stack, mine, "--door", "kafka", "--pace", pace)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (report["sent"], report["decided_twice"]) == (report["decided"], 0)
    assert report["labels"] > 0


def test_a_pace_that_there_is_not_names_those_that_there_are(stack, file):
    ended, report = replay(stack, file, "--pace", "fast")
    assert (ended.returncode, report) == (2, None)
    assert all(pace in ended.stderr for pace in ("state", "log", "none"))


def renamed(row, prefix):
    """The same row as if of another bank: the two doors' runs share nothing."""
    t = row.transaction
    names = {name: prefix + getattr(t, name) for name in ("transaction_id", "card_id", "merchant_id")}
    return dataclasses.replace(row, transaction=msgspec.structs.replace(t, **names))


def test_a_row_that_breaks_a_rule_ends_the_replay_with_its_number_and_field(stack, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text(
        "transaction_id,card_id,merchant_id,event_time,amount\na1,bad-c,bad-m,2026-01-01,1\na2,bad-c,,2026-01-01,1\n"
    )
    ended, _ = replay(stack, path)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("error: row 2, merchant_id")


def test_an_api_that_does_not_answer_ends_the_replay_with_its_address(stack, file):
    ended, report = replay(stack, file, "--url", "http://127.0.0.1:1", "--patience", "1")
    assert ended.returncode == 1
    assert report is None or report["refused"] > 0


def test_a_missing_column_is_named(stack, file):
    ended, report = replay(stack, file, "--columns", "card_id=customer_id")
    assert (ended.returncode, report) == (1, None)
    assert "customer_id" in ended.stderr


def test_a_file_that_is_not_there_is_an_error(stack, tmp_path):
    ended, _ = replay(stack, tmp_path / "none.csv")
    assert ended.returncode == 2


@pytest.mark.timeout(900)
@pytest.mark.skipif("HANDBOOK_TABLE" not in os.environ, reason="HANDBOOK_TABLE names no file of the Handbook")
def test_a_day_of_the_handbook_is_decided_once_over_kafka_and_a_second_time_changes_nothing(stack, state, tmp_path):
    options = (
        *("--door", "kafka", "--from", "2018-08-07", "--to", "2018-08-08"),
        *("--columns", "card_id=customer_id,merchant_id=terminal_id,event_time=tx_datetime"),
    )
    handbook = Path(os.environ["HANDBOOK_TABLE"])
    ended, report = replay(stack, handbook, *options, report=tmp_path / "report.json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert report["sent"] > 9_000
    assert (report["decided"], report["decided_twice"], report["behind"]) == (report["sent"], 0, 0)
    before = state()
    ended, report = replay(stack, handbook, *options, report=tmp_path / "report.json")
    assert (ended.returncode, report["duplicates"]) == (0, report["sent"])
    assert state() == before
