import asyncio

import pytest

from feature_store.features import MERCHANT_DELAY
from services.replay.pace import Pace


def test_an_event_waits_for_events_older_than_the_delay():
    pace = Pace()
    pace.sent("a", 1_000)
    assert not pace.holds(1_000 + MERCHANT_DELAY - 1)
    assert pace.holds(1_000 + MERCHANT_DELAY)
    pace.settled("a")
    assert not pace.holds(1_000_000)


async def test_waiting_ends_when_the_oldest_is_settled_and_not_before():
    pace = Pace()
    pace.sent("a", 0)
    pace.sent("b", 1)
    waiting = asyncio.create_task(pace.wait(MERCHANT_DELAY, patience=5))
    pace.settled("b")
    await asyncio.sleep(0)
    assert not waiting.done()
    pace.settled("a")
    await waiting


async def test_waiting_gives_up_when_nothing_moves():
    pace = Pace()
    pace.sent("a", 0)
    with pytest.raises(TimeoutError):
        await pace.wait(MERCHANT_DELAY, patience=0.01)
