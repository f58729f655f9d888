"""Several transactions of one card at once: each sees all before it, whoever commits them."""

import asyncio

import msgspec
import pytest
from logged import paid
from memory_store import MemoryStore

from feature_store.decision_store import Committed
from feature_store.keys import Keys
from services.decision.decide import ATTEMPTS, ContendedError

KEYS = Keys(12)
PARTITION = KEYS.partition("c1")


class HotCard(MemoryStore):
    """Another process decides for the card between each of our reads and commits, `times` times."""

    def __init__(self, times):
        super().__init__(KEYS)
        self.times = times

    async def commit(self, transaction, seen, write):
        if self.times:
            self.times -= 1
            other = paid(f"other{self.times}")
            assert isinstance(await super().commit(other, await self.read(other), write), Committed)
        return await super().commit(transaction, seen, write)


class Yielding(MemoryStore):
    """Lets other tasks run between read and commit, as a real store does."""

    async def read(self, transaction):
        seen = await super().read(transaction)
        await asyncio.sleep(0)
        return seen


async def test_each_of_a_burst_sees_all_before_it(deciding):
    case = deciding(Yielding(KEYS))
    await asyncio.gather(*(case.decide(paid(f"t{n}")) for n in range(50)))
    records = case.records()
    assert case.counted("commit_conflicts_total") == 0  # within a process they take turns
    assert [record.held["card"].decisions.get(PARTITION, 0) for record in records] == list(range(50))
    assert [record.answer.score for record in records] == [n / 100 for n in range(50)]


async def test_cards_do_not_wait_for_each_other(deciding):
    case = deciding()
    reached, release, read = asyncio.Event(), asyncio.Event(), case.store.read

    async def read_slowly(transaction):
        if transaction.card_id == "c1":
            reached.set()
            await release.wait()
        return await read(transaction)

    case.store.read = read_slowly
    slow = asyncio.create_task(case.decide(paid()))
    await reached.wait()
    assert not (await case.decide(paid(card_id="c2"))).repeated
    release.set()
    await slow


async def test_a_turn_ends_with_its_error(deciding):
    case = deciding()
    read = case.store.read

    async def fail(_):
        raise TimeoutError

    case.store.read = fail
    with pytest.raises(TimeoutError):
        await case.decide(paid())
    case.store.read = read
    assert not (await case.decide(paid())).repeated


async def test_on_a_card_that_moved_it_is_decided_again(deciding):
    case = deciding(HotCard(times=3))
    outcome = await case.decide(paid())
    assert (outcome.answer.score, outcome.answer.degraded) == (0.03, ())
    assert case.counted("commit_conflicts_total") == 3
    record = case.records()[-1]
    assert (record.sequence, record.held["card"].decisions) == (4, {PARTITION: 3})
    assert record.answer == outcome.answer


async def test_after_lost_commits_a_repetition_gets_the_same_bytes(deciding):
    """The commits that were lost took time too; the answer tells none of it, since what is stored could not."""
    case = deciding(HotCard(times=2))
    first, again = await case.decide(paid()), await case.decide(paid())
    assert again.repeated
    assert msgspec.json.encode(again.answer) == msgspec.json.encode(first.answer)
    assert msgspec.json.encode(case.records()[-1].answer) == msgspec.json.encode(first.answer)


async def test_the_last_attempt_may_succeed(deciding):
    case = deciding(HotCard(times=ATTEMPTS - 1))
    assert (await case.decide(paid())).answer.score == (ATTEMPTS - 1) / 100


async def test_a_card_that_always_moves_is_contended_and_not_written(deciding):
    case = deciding(HotCard(times=1_000))
    with pytest.raises(ContendedError):
        await case.decide(paid())
    assert case.counted("commit_conflicts_total") == ATTEMPTS
    assert case.counted("decisions_total", action="approve") == 0
    assert await case.store.decided("c1", "t1") is None
    assert len(case.store.log) == ATTEMPTS  # all of them the others'

    case.store.times = 0
    assert (await case.decide(paid())).answer.score == ATTEMPTS / 100


async def test_another_process_that_was_faster_decides(deciding):
    class Overtaken(MemoryStore):
        async def commit(self, transaction, seen, write):
            await super().commit(transaction, seen, write)
            return await super().commit(transaction, seen, write)

    case = deciding(Overtaken(KEYS))
    assert (await case.decide(paid())).repeated
    assert len(case.store.log) == 1
    assert case.counted("decisions_total", action="approve") == 0
