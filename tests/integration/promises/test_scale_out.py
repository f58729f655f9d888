"""More processes are faster and nothing else: the same decisions, also while processes come and go."""

import dataclasses
import itertools
import json
import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import msgspec
import pytest
from redis import Redis

from feature_store.tables import write_table
from model.simulator import Parameters, simulate
from services.stack.child import Command
from services.stack.programs import as_environment
from services.stack.supervisor import supervised

# some 700 transactions, frauds whose labels come in time, and bursts
SMALL = Parameters(cards=40, merchants=25, days=12, seed=5)
QUARTER = 6 * 3_600
DECIDED = 'fraud_requests_total{door="kafka",outcome="decided"}'

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300), pytest.mark.usefixtures("kafka")]
_runs = itertools.count()


@pytest.fixture(scope="module")
def rows():
    return [hurried(row) for row in simulate(SMALL)]


def hurried(row):
    """The same row, with each quarter of a day in two minutes: a paced replay waits once for each, not for each row."""
    quarter, second = divmod(row.transaction.second, QUARTER)
    at = datetime.fromtimestamp(quarter * QUARTER + second * 119 // QUARTER, UTC)
    return dataclasses.replace(row, transaction=msgspec.structs.replace(row.transaction, event_time=at))


def renamed(row, prefix):
    """The same row as if of another bank: the runs share nothing."""
    t = row.transaction
    names = {name: prefix + getattr(t, name) for name in ("transaction_id", "card_id", "merchant_id")}
    return dataclasses.replace(row, transaction=msgspec.structs.replace(t, **names))


class Run:
    """One replay of the rows, renamed."""

    def __init__(self, crowd, rows, folder):
        self.prefix = f"run{next(_runs)}-"
        self._rows = len(rows)
        self._crowd = crowd
        self._folder = folder
        self._report = folder / f"{self.prefix}report.json"
        self._file = folder / f"{self.prefix}transactions.csv"
        write_table(self._file, [renamed(row, self.prefix) for row in rows])

    @asynccontextmanager
    async def begun(self, *options):
        """Run it from the beginning of the block; gives the child."""
        argv = ("replay", str(self._file), "--door", "kafka", "--report", str(self._report), *options)
        environment = os.environ | as_environment(self._crowd.settings)
        command = Command("replay", (sys.executable, "-m", "services.cli", *argv), self._folder / "log", environment)
        async with supervised([command], restart=False) as children:
            yield children["replay"]

    async def ended(self, child, eventually):
        """Wait until it has ended as it must: every row decided once, with merchant state up to its delay."""
        await eventually(lambda: child.exits, 200)
        assert child.exits == [0], child.command.log_tail()
        report = json.loads(self._report.read_text())
        assert report["labels"] > 50
        assert (report["sent"], report["decided"], report["duplicates"]) == (self._rows, self._rows, 0)
        assert (report["decided_twice"], report["behind"], report["dead_lettered"]) == (0, 0, 0)

    def decisions(self, log):
        """Features, score and action of each transaction by its first name."""
        return {
            record.transaction.transaction_id.removeprefix(self.prefix): (
                record.features,
                record.answer.score,
                record.answer.action,
                record.answer.reasons,
            )
            for record in log
            if record.transaction.transaction_id.startswith(self.prefix)
        }


async def decided_by_all_workers(run, crowd, eventually):
    """What it decided, when each of the workers had a share in it."""
    before = await crowd.counted(DECIDED)
    async with run.begun() as child:
        await run.ended(child, eventually)
    after = await crowd.counted(DECIDED)
    shares = [after[name] - before[name] for name in after if name.startswith("worker")]
    log = await crowd.assert_state_is_the_log()
    decisions = run.decisions(log)
    assert sum(shares) == len(decisions)
    assert all(shares)
    return len(shares), decisions


async def test_one_two_and_three_of_each_decide_alike(crowd, rows, tmp_path, eventually):
    runs = {}
    for of_each in (3, 2, 1):
        crowd.have(of_each)
        workers, decisions = await decided_by_all_workers(Run(crowd, rows, tmp_path), crowd, eventually)
        assert workers == of_each
        assert decisions.keys() == {row.transaction.transaction_id for row in rows}
        runs[of_each] = decisions
    assert runs[2] == runs[3]
    assert runs[1] == runs[3]
    assert {action for _, _, action, _ in runs[1].values()} == {"approve", "review", "decline"}


async def test_what_joins_and_leaves_during_a_replay_loses_and_doubles_nothing(crowd, rows, tmp_path, eventually):
    crowd.have(1)
    run = Run(crowd, rows, tmp_path)

    def decided():
        with Redis.from_url(crowd.settings.redis_url) as client:
            return sum(int(client.get(crowd.keys.sequence(number)) or 0) for number in range(crowd.keys.partitions))

    async def moves_on():
        before = decided()
        await eventually(lambda: decided() > before + 20, 60)

    async with run.begun("--rate", "40") as replay, AsyncExitStack() as stack:
        await moves_on()
        polite, rude = [
            await stack.enter_async_context(crowd.joined("worker", "updater", restart=False)) for _ in range(2)
        ]
        await crowd.members(3)
        await moves_on()
        for child in polite.values():
            child.stop()
        await eventually(lambda: all(child.exits for child in polite.values()), 60)
        assert [child.exits for child in polite.values()] == [[0], [0]]
        await crowd.members(2)
        await moves_on()
        for child in rude.values():
            child.kill()
        await eventually(lambda: all(child.exits for child in rude.values()), 60)
        assert not replay.exits, "it was over before all had come and gone"
        await run.ended(replay, eventually)
    await crowd.assert_state_is_the_log()
