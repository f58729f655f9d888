"""The Kafka door, training and recovery: how many records a second."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from redis import Redis

from feature_store.tables import Row, write_table
from loadtest.bench.load import generate
from loadtest.bench.report import Figure
from loadtest.bench.stack import BenchError, Stack
from model.dataset import build
from model.simulator import Parameters, simulate

RATE = 100
"""Transactions a second of event time: the exercise's own."""
RECOVERED = re.compile(r"recovered: (\d+) records in ([\d.]+) s")
RECOVERY_SECONDS = 120.0
ROUNDS = 3


def rows(count: int, *, cards: str) -> Iterator[Row]:
    """Give simulated transactions as dense in event time as the exercise asks for, of cards of their own."""
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    for number, row in zip(range(count), simulate(Parameters(days=30)), strict=False):
        t = row.transaction
        moved = msgspec.structs.replace(
            t,
            transaction_id=f"{cards}-{number}",
            card_id=f"{cards}-{t.card_id}",
            event_time=start + timedelta(seconds=number / RATE),
        )
        yield Row(moved, is_fraud=row.is_fraud, pattern=row.pattern)


def replay(stack: Stack, directory: Path, pace: str, count: int, at_least: float) -> Figure:
    """Measure `fraud replay --door kafka` at a pace."""
    table, report = directory / f"{pace}.parquet", directory / f"{pace}.json"
    write_table(table, rows(count, cards=pace))
    command = ("-m", "services.cli", "replay", str(table), "--door", "kafka", "--pace", pace, "--report", str(report))
    done = subprocess.run(
        (sys.executable, *command), check=False, env=dict(stack.environment), capture_output=True, text=True
    )
    if done.returncode:
        raise BenchError(f"fraud replay --pace {pace} ended with {done.returncode}: {done.stdout}{done.stderr}")
    found = json.loads(report.read_text())
    rate = found["sent"] / found["seconds"]
    name = f"Kafka door, fraud replay --pace {pace}, {count} rows at {RATE}/s of event time"
    return Figure(name, rate, "/s", at_least=at_least, decides=False)


def training(at_least: float) -> Figure:
    """Measure the replay that makes training data."""
    simulated, rates = list(simulate(Parameters(days=60))), []
    for _ in range(ROUNDS):
        started = time.process_time()
        count = len(build(simulated))
        rates.append(count / (time.process_time() - started))
    return Figure("training replay, one core, rows in memory", max(rates), "rows/s", at_least=at_least)


def recovery(stack: Stack, at_least: float) -> list[Figure]:
    """Flush Redis, and measure what a relay needs to bring state back from the log."""
    log = stack.logs / "relay.log"
    known = len(RECOVERED.findall(log.read_text()))
    with Redis.from_url(stack.environment["FRAUD_REDIS_URL"]) as client:
        client.flushall()
    started = time.monotonic()
    while len(found := RECOVERED.findall(log.read_text())) == known:
        if time.monotonic() - started > RECOVERY_SECONDS:
            raise BenchError(f"state was not recovered within {RECOVERY_SECONDS:g} s of a flush, see {log}")
        time.sleep(0.05)
    back = time.monotonic() - started
    records, seconds = int(found[-1][0]), float(found[-1][1])
    again = generate(f"{stack.api}/v1/decisions", "--connections", "1", "--seconds", "1")
    return [
        Figure("recovery after a flush", records / seconds, "records/s", at_least=at_least, decides=False),
        Figure("recovery after a flush: from flush to open gates", back, "s", decides=False),
        Figure("recovery after a flush: answers that are not 200 afterwards", again.failed, "", at_most=0),
    ]
