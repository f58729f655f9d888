import asyncio
import math

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from services.decision.freshness import Freshness


class Pending:
    """Answers when it is told to, with what it held when it was asked."""

    def __init__(self, oldest=math.inf):
        self.second = oldest
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.broken = False

    async def oldest(self):
        self.asked += 1
        if self.broken:
            raise RedisConnectionError
        answer = self.second
        await self.gate.wait()
        return answer


@pytest.fixture
def pending():
    return Pending()


@pytest.fixture
def freshness(pending):
    return Freshness(pending)


async def test_nothing_pending_is_no_lag(freshness):
    await freshness.look()
    assert freshness.known_lag(1_000) == 0.0


async def test_the_lag_is_the_age_of_the_oldest_pending_event(freshness, pending):
    pending.second = 900
    await freshness.look()
    assert freshness.known_lag(1_000) == 100.0
    assert freshness.known_lag(800) == 0.0


async def test_what_this_process_commits_counts_until_a_look_that_began_after_it(freshness, pending):
    pending.gate.clear()
    look = asyncio.create_task(freshness.look())
    await asyncio.sleep(0)
    freshness.committing(10)  # while the look is on its way: its answer cannot know
    pending.gate.set()
    await look
    assert freshness.known_lag(1_000) == 990.0
    await freshness.look()
    assert freshness.known_lag(1_000) == 0.0


async def test_looks_do_not_overlap_so_an_older_answer_never_replaces_a_newer_one(freshness, pending):
    pending.gate.clear()
    looks = [asyncio.create_task(freshness.look()) for _ in range(3)]
    await asyncio.sleep(0)
    assert pending.asked == 1
    pending.gate.set()
    await asyncio.gather(*looks)


async def test_it_looks_again_only_before_it_says_that_there_is_too_much_lag(freshness, pending):
    freshness.committing(900)
    assert await freshness.lag(1_000, tolerated=120) == 100.0
    assert pending.asked == 0
    assert await freshness.lag(1_100, tolerated=120) == 0.0
    assert pending.asked == 1


async def test_watching_goes_on_when_redis_does_not_answer(freshness, pending, eventually):
    async with freshness.watching(every=0.001):
        pending.broken = True
        asked = pending.asked
        await eventually(lambda: pending.asked > asked + 2)
        pending.broken, pending.second = False, 5
        await eventually(lambda: freshness.known_lag(10) == 5.0)
