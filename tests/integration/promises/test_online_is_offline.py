"""P4, online is offline: features as served against those of the training path, bit for bit; what differs says so.

A replay lets hours of event time pass in a second, so an updater that rests for a moment lags by more than live traffic
could make it. HANDBOOK_TABLE names a file to take instead of simulated rows, EQUALITY_ROWS how many of its first rows.
"""

import asyncio
import json
import os
import signal
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from pathlib import Path

import aiohttp
import msgspec
import numpy as np
import pytest
from aiokafka import TopicPartition
from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient
from redis import Redis

from feature_store.features import SHIPPED
from feature_store.keys import Keys
from feature_store.tables import Row, read_table
from loadtest.machine import describe_machine
from model.dataset import build
from model.fraud_patterns import DAY, Rates
from model.scorer import load_scorer
from model.simulator import Parameters, simulate
from services.audit.state import actual, differences, expected
from services.audit.verify import verify
from services.audit.whole_log import Log, whole_log
from services.decision.policy import MERCHANT_LAG, Policy
from services.kafka import open_producer, open_reader
from services.replay.doors import HttpDoor, KafkaDoor
from services.replay.replay import Options, Replay
from services.replay.watch import Watch, watching
from services.settings import Settings
from services.stack.kafka_jars import available
from services.stack.ports import free_port
from services.stack.programs import fleet
from services.stack.running import running
from services.stack.supervisor import Child
from services.topics import DECISIONS, LABELS
from services.updater import GROUP as UPDATER
from services.worker import GROUP as WORKER

HANDBOOK = os.environ.get("HANDBOOK_TABLE")
HANDBOOK_COLUMNS = {"card_id": "customer_id", "merchant_id": "terminal_id", "event_time": "tx_datetime"}
ROWS = int(os.environ.get("EQUALITY_ROWS") or (3_000 if HANDBOOK else 1_500))
MANY = 3_000
"""Of more rows each door gets one half, and a case in which something is stopped only so many."""
LABEL_DELAY = timedelta(days=5)
"""Chargebacks come two days before features use them: an updater that lags by less than that lacks no label in time."""
DAYS = 10 if ROWS <= MANY else 20
"""Simulated: frauds of the first days come into use, also in one half."""
ROWS_A_MERCHANT = 100
ROWS_AN_HOUR = 120
"""At least, so that several fall into the merchants' delay: a simulated day of fewer rows is over sooner."""
PATIENCE = 120.0
"""Seconds. Two cores run all of this, and perhaps another test session."""

pytestmark = pytest.mark.timeout(max(600, ROWS // 20))


# --- rows, and what training makes of them


@pytest.fixture(scope="module")
def rows():
    if HANDBOOK:
        return list(islice(read_table(Path(HANDBOOK), columns=HANDBOOK_COLUMNS), ROWS))
    rates = Rates(merchants=50.0, cards=20.0)
    cards, merchants = round(ROWS / DAYS / Parameters().transactions_a_day), ROWS // ROWS_A_MERCHANT
    simulated = simulate(Parameters(cards=cards, merchants=merchants, days=DAYS, seed=3, rates=rates))
    share = min(1.0, ROWS / DAYS / ROWS_AN_HOUR / 24)
    return [replace(row, transaction=_hurried(row.transaction, share)) for row in simulated]


def _hurried(transaction, share):
    day, second = divmod(transaction.second, DAY)
    return msgspec.structs.replace(transaction, event_time=datetime.fromtimestamp(day * DAY + int(second * share), UTC))


def _renamed(row, prefix):
    """The same row as if of another bank: cases that share a log share nothing else."""
    t = row.transaction
    names = {name: prefix + getattr(t, name) for name in ("transaction_id", "card_id", "merchant_id")}
    return replace(row, transaction=msgspec.structs.replace(t, **names))


def bits(features):
    """What float32 numbers are in memory; a value that is not known has one form."""
    return np.where(np.isnan(features), np.float32(np.nan), features).view(np.uint32)


# --- the stack


@dataclass(frozen=True)
class Stack:
    settings: Settings
    url: str
    children: dict[str, Child]

    def of(self, kind):
        return [child for name, child in self.children.items() if name.startswith(kind)]

    async def log(self):
        async with open_reader(self.settings) as reader:
            return await whole_log(reader, self.settings.partitions)

    @cached_property
    def model(self):
        return load_scorer(self.settings.model_dir)

    def verdict(self, log):
        thresholds = self.model.manifest.thresholds
        return verify(log, self.model, Policy(review=thresholds.review, decline=thresholds.decline))


@contextmanager
def started(server_loop, directory, **counts):
    wanted = Settings(data_dir=directory, api_port=free_port(), redis_timeout_seconds=2.0)  # a machine may be busy
    with server_loop.wrap_async_context_manager(running(wanted, fleet(**counts))) as up:
        own = {
            "kafka_bootstrap": up.broker.bootstrap,
            "redis_url": up.redis_url,
            "partitions": up.broker.partitions,
            "kafka_fetch_wait_ms": up.broker.choice.fetch_wait_ms or wanted.kafka_fetch_wait_ms,
        }
        yield Stack(wanted.model_copy(update=own), up.addresses["api-1"].url, dict(up.children))


@pytest.fixture(scope="module")
def single(server_loop, tmp_path_factory):
    with started(server_loop, tmp_path_factory.mktemp("single")) as stack:
        yield stack


@pytest.fixture(scope="module")
def several(server_loop, tmp_path_factory):
    """Three workers and three updaters, which librdkafka's broker cannot have in a group."""
    if reason := available():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"Apache Kafka: {reason}")
    with started(server_loop, tmp_path_factory.mktemp("several"), worker=3, updater=3) as stack:
        yield stack


def all_share(stack):
    """Whether every worker and every updater has partitions."""
    admin = AdminClient({"bootstrap.servers": stack.settings.kafka_bootstrap})  # aiokafka's cannot read the answer
    groups = [described.result() for described in admin.describe_consumer_groups([WORKER, UPDATER]).values()]
    sharing = [sum(bool(member.assignment.topic_partitions) for member in group.members) for group in groups]
    stable = all(group.state is ConsumerGroupState.STABLE for group in groups)
    return stable and sharing == [len(stack.of("worker")), len(stack.of("updater"))]


# --- what disturbs the updaters while a replay runs


async def until(condition):
    while True:
        if condition():
            return
        await asyncio.sleep(0.005)


@dataclass(frozen=True)
class Scene:
    """What a disturbance may look at and touch."""

    stack: Stack
    watch: Watch
    rows: list[Row]

    async def decided(self, more):
        """Wait until so many more decisions are in the log."""
        wanted = len(self.watch.decisions) + more
        await until(lambda: len(self.watch.decisions) >= wanted)

    async def stands_still(self, seconds):
        """Wait until no decision has come for so long."""
        before = -1
        while len(self.watch.decisions) > before:
            before = len(self.watch.decisions)
            await asyncio.sleep(seconds)

    async def caught_up(self):
        """Wait until the updaters have done everything that is in the log now."""
        names = [
            TopicPartition(topic, number)
            for topic in (DECISIONS, LABELS)
            for number in range(self.stack.settings.partitions)
        ]
        async with open_reader(self.stack.settings) as reader:
            ends = await reader.end_offsets(names)
        await until(lambda: all(self.watch.processed.get(name, 0) >= end for name, end in ends.items()))


@contextmanager
def halted(updaters):
    pids = [child.pid for child in updaters]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def nothing(scene):
    """Let it be."""


async def slow(scene):
    """The updaters run for a fifth of the time."""
    while True:
        with halted(scene.stack.of("updater")):
            await asyncio.sleep(0.06)
        await asyncio.sleep(0.015)


async def away(scene):
    """The updaters stop in the middle, until the replay has waited for them for a while."""
    await scene.decided(len(scene.rows) // 2)
    with halted(scene.stack.of("updater")):
        await scene.stands_still(2.0)


async def killed(scene):
    """One of the updaters is killed in the middle."""
    await scene.decided(len(scene.rows) // 2)
    os.kill(scene.stack.of("updater")[0].pid, signal.SIGKILL)


async def behind(scene):
    """Again and again all updaters but one (or the only one) rest, but never so long that labels come too late.

    The pause is a quarter of a day's rows at most, and all of it is caught up with before the next.
    """
    first, last = scene.rows[0].transaction.second, scene.rows[-1].transaction.second
    pause = min(len(scene.rows) // 3, len(scene.rows) * DAY // 4 // (last - first))
    _, *others = updaters = scene.stack.of("updater")
    while True:
        with halted(others or updaters):
            await scene.decided(pause)
        await scene.caught_up()


# --- a case, and what came of it


@dataclass(frozen=True)
class Case:
    stack: str
    door: str
    pace: str
    disturb: Callable[[Scene], Awaitable[None]] = nothing

    def __str__(self):
        return f"{self.door}-{self.stack}-{self.disturb.__name__}-{self.pace}"

    def share(self, rows):
        """Which rows it replays."""
        half = len(rows) // 2
        if len(rows) <= MANY:
            return rows
        if self.pace == "log" or self.disturb is not nothing:
            return rows[:MANY]
        return rows[:half] if self.door == "http" else rows[half:]


@dataclass(frozen=True)
class Outcome:
    differing: set[str]
    marked: set[str]
    log: Log
    columns: set[str]
    """The features that differ anywhere."""


@pytest.fixture
async def outcome_of(request, rows, offline, results, eventually):
    """`await outcome_of(case)`: replay its rows, and compare what was served with what training sees."""

    async def play(case):
        stack, mine = request.getfixturevalue(case.stack), case.share(rows)
        if case.stack == "several":
            await eventually(lambda: all_share(stack), PATIENCE)
        report = await replayed(stack, case, mine)
        assert report.complete, report
        log = await stack.log()
        outcome = compared(log, f"{case}-", mine, offline(mine))
        results.append(
            {
                "case": str(case),
                "rows": len(mine),
                "door": case.door,
                "workers": len(stack.of("worker")),
                "updaters": len(stack.of("updater")),
                "pace": case.pace,
                "updater_is": case.disturb.__name__,
                "labels": report.labels,
                "differing": len(outcome.differing),
                "marked": len(outcome.marked),
                "differing_and_not_marked": len(outcome.differing - outcome.marked),
                "features_that_differ": sorted(outcome.columns),
                "seconds": round(report.seconds, 1),
                "rows_a_second": round(len(mine) / report.seconds),
            }
        )
        return outcome

    return play


async def replayed(stack, case, rows):
    async with AsyncExitStack() as opened:
        if case.door == "http":
            door = HttpDoor(await opened.enter_async_context(aiohttp.ClientSession(stack.url)))
        else:
            door = KafkaDoor(await opened.enter_async_context(open_producer(stack.settings)))
        replay = Replay(door, Options(None, LABEL_DELAY, case.pace, PATIENCE), lambda: None)
        await opened.enter_async_context(watching(stack.settings, replay.watch))
        async with asyncio.TaskGroup() as group:
            disturbing = group.create_task(case.disturb(Scene(stack, replay.watch, rows)))
            report = await replay.run(_renamed(row, f"{case}-") for row in rows)
            disturbing.cancel()
        return report


def compared(log, prefix, rows, offline):
    records = {
        record.transaction.transaction_id.removeprefix(prefix): record
        for record in log
        if record.transaction.transaction_id.startswith(prefix)
    }
    names = [row.transaction.transaction_id for row in rows]
    assert records.keys() == set(names)
    served = np.array([records[name].features for name in names], np.float64).astype(np.float32)  # null becomes NaN
    differs = bits(served) != bits(offline)
    return Outcome(
        differing={name for name, row in zip(names, differs, strict=True) if row.any()},
        marked={name for name, record in records.items() if MERCHANT_LAG in record.answer.degraded},
        log=log,
        columns={name for name, column in zip(SHIPPED.names, differs.T, strict=True) if column.any()},
    )


@pytest.fixture(scope="module")
def offline():
    """`offline(rows)`: the features that training computes of them."""
    known = {}

    def features(rows):
        key = (rows[0].transaction.transaction_id, len(rows))
        if key not in known:
            known[key] = build(rows, label_delay=LABEL_DELAY).features
        return known[key]

    return features


COUNTED = ("rows", "differing", "marked", "differing_and_not_marked")


@pytest.fixture(scope="module")
def results():
    """Written into the file that EQUALITY_REPORT names."""
    cases = []
    yield cases
    paces = defaultdict(Counter)
    for case in cases:
        paces[case["pace"]].update({name: case[name] for name in COUNTED})
    if report := os.environ.get("EQUALITY_REPORT"):
        path = Path(report)
        path.parent.mkdir(parents=True, exist_ok=True)
        written = {
            "date": datetime.now(UTC).date().isoformat(),
            "rows_of": Path(HANDBOOK).name if HANDBOOK else "model.simulator",
            "paces": paces,
            "cases": cases,
            "machine": describe_machine(),
        }
        path.write_text(json.dumps(written, indent=2) + "\n")


async def assert_state_is_what_the_log_says(stack, log, eventually):
    keys, wrong = Keys(stack.settings.partitions), []
    wanted = expected(log, keys)

    def agrees():
        wrong[:] = differences(wanted, actual(client))
        return not wrong

    with closing(Redis.from_url(stack.settings.redis_url)) as client, suppress(TimeoutError):
        await eventually(agrees, PATIENCE)  # the last labels may be on their way
    assert wrong == []


# --- the promise


@pytest.mark.skipif(HANDBOOK is not None, reason="the Handbook's first labels come into use after a week")
def test_the_rows_bring_every_feature_into_play(rows, offline):
    features = offline(rows)
    still = {name for name, column in zip(SHIPPED.names, bits(features).T, strict=True) if len(np.unique(column)) == 1}
    assert still == set()


@pytest.mark.parametrize(
    "case",
    [
        Case("single", "http", "log", behind),
        Case("single", "kafka", "log", behind),
        Case("several", "kafka", "log", behind),
    ],
    ids=str,
)
async def test_where_merchant_state_lags_what_differs_says_so_and_its_record_explains_it(
    case, request, outcome_of, eventually
):
    outcome = await outcome_of(case)
    assert outcome.differing, "the updater was not late enough for this to prove anything"
    assert outcome.differing - outcome.marked == set()
    stack = request.getfixturevalue(case.stack)
    verdict = stack.verdict(outcome.log)
    assert verdict.differences == []
    assert verdict.holds
    assert verdict.verified == len(outcome.log)
    await assert_state_is_what_the_log_says(stack, outcome.log, eventually)


@pytest.mark.parametrize(
    "case",
    [
        Case("single", "http", "state", slow),
        Case("single", "kafka", "state", away),
        Case("several", "kafka", "state", killed),
        # with many rows the longest, so the last: every case looks at all that its stack holds
        Case("single", "http", "state"),
        Case("single", "kafka", "state"),
    ],
    ids=str,
)
async def test_where_events_wait_for_merchant_state_nothing_differs_and_nothing_is_marked(
    case, request, outcome_of, eventually
):
    outcome = await outcome_of(case)
    assert (outcome.differing, outcome.marked) == (set(), set())
    stack = request.getfixturevalue(case.stack)
    if case.disturb is killed:
        assert -signal.SIGKILL in stack.of("updater")[0].exits
    await assert_state_is_what_the_log_says(stack, outcome.log, eventually)
