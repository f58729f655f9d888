"""More processes are faster and nothing else: the same decisions, also while processes come and go."""

import asyncio
import dataclasses
import itertools
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from model.simulator import Parameters, simulate
from services.kafka import open_producer
from services.replay.doors import KafkaDoor
from services.replay.replay import Options, Replay
from services.replay.watch import watching

# some 600 transactions, frauds whose labels come in time, and bursts
SMALL = Parameters(cards=34, merchants=25, days=12, seed=2)
QUARTER = 6 * 3_600
DECIDED = 'fraud_requests_total{door="kafka",outcome="decided"}'
AS_FAST_AS_IT_GOES = Options(rate=None, label_delay=timedelta(days=7), pace="state", patience=200.0)
PATIENCE = 200

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600), pytest.mark.usefixtures("kafka")]
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


class HeldDoor(KafkaDoor):
    """Lets through so many transactions, slowly; the others wait until it is open."""

    def __init__(self, producer):
        super().__init__(producer)
        self._most = 0
        self._turn = asyncio.Condition()

    async def let(self, more):
        async with self._turn:
            self._most += more
            self._turn.notify_all()

    async def open(self):
        await self.let(10**9)

    async def send(self, transaction):
        async with self._turn:
            await self._turn.wait_for(lambda: self._most > 0)
            self._most -= 1
            if self._most < 10**6:
                await asyncio.sleep(0.06)
        return await super().send(transaction)


class Run:
    """`fraud replay --door kafka` of the rows, under other names, without its terminal."""

    def __init__(self, crowd, rows):
        self._prefix = f"run{next(_runs)}-"
        self._rows = [renamed(row, self._prefix) for row in rows]
        self._crowd = crowd
        self._count = 0

    @asynccontextmanager
    async def begun(self, kind=KafkaDoor):
        """Run it from the beginning of the block until it has decided everything, once; gives the door."""
        async with open_producer(self._crowd.settings) as producer:
            door = kind(producer)
            self._replay = Replay(door, AS_FAST_AS_IT_GOES, lambda: None)
            async with watching(self._crowd.settings, self._replay.watch), asyncio.TaskGroup() as group:
                before = len(self._replay.watch.decisions)
                self.decided = lambda: len(self._replay.watch.decisions) - before
                running = group.create_task(self._replay.run(self._rows))
                yield door
                report = await running
        assert report.labels > 40
        assert (report.sent, report.decided, report.duplicates) == (len(self._rows), len(self._rows), 0)
        assert (report.decided_twice, report.behind, report.dead_lettered) == (0, 0, 0)
        assert self.decided() == len(self._rows)

    def decisions(self, log):
        """Features, score and judgement of each transaction, by the name it had first."""
        return {
            record.transaction.transaction_id.removeprefix(self._prefix): (
                record.features,
                record.answer.score,
                record.answer.action,
                record.answer.reasons,
            )
            for record in log
            if record.transaction.transaction_id.startswith(self._prefix)
        }


async def decided_by_all_workers(crowd, run):
    """What it decided, when each of so many workers had its share."""
    before = await crowd.counted(DECIDED)
    async with run.begun():
        pass
    after = await crowd.counted(DECIDED)
    shares = [after[name] - before[name] for name in after if name.startswith("worker")]
    decisions = run.decisions(await crowd.assert_state_is_the_log())
    assert all(shares)
    assert sum(shares) == len(decisions)
    return len(shares), decisions


async def test_one_two_and_three_of_each_decide_alike(session_crowd, rows):
    crowd, found = session_crowd, {}
    for of_each in (3, 2, 1):
        crowd.have(of_each)
        workers, decisions = await decided_by_all_workers(crowd, Run(crowd, rows))
        assert workers == of_each
        assert decisions.keys() == {row.transaction.transaction_id for row in rows}
        found[of_each] = decisions
    assert found[2] == found[3]
    assert found[1] == found[3]
    assert {action for _, _, action, _ in found[1].values()} == {"approve", "review", "decline"}


async def test_what_joins_and_leaves_during_a_replay_loses_and_doubles_nothing(session_crowd, rows, eventually):
    crowd = session_crowd
    crowd.have(1)
    run = Run(crowd, rows)
    part = len(rows) // 4

    async def goes_on(door):
        """Let more come through, and see it decided; what is left of it flows during what comes next."""
        await door.let(part)
        decided = run.decided()
        await eventually(lambda: run.decided() > decided + 10, PATIENCE)

    async def gone(children):
        await eventually(lambda: all(child.exits for child in children.values()), PATIENCE)
        return [child.exits for child in children.values()]

    async with run.begun(HeldDoor) as door, AsyncExitStack() as stack:
        await goes_on(door)
        polite, rude = [
            await stack.enter_async_context(crowd.joined("worker", "updater", restart=False)) for _ in range(2)
        ]
        await crowd.members(3)
        await goes_on(door)
        for child in polite.values():
            child.stop()
        assert await gone(polite) == [[0], [0]]
        await crowd.members(2)
        await goes_on(door)
        for child in rude.values():
            child.kill()
        assert await gone(rude) == [[-9], [-9]]
        await door.open()
    await crowd.assert_state_is_the_log()
