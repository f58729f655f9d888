"""How far state follows the topics, on a real Redis."""

import pytest

from feature_store.keys import Keys
from feature_store.progress import Progress, Reached
from feature_store.scripts import ClosedError

KEYS = Keys(4)


@pytest.fixture
async def progress(client, opened):
    return Progress(client, KEYS, await opened(client, KEYS))


async def test_state_that_has_been_given_nothing_is_at_the_beginning(progress):
    assert await progress.reached("decisions", 2) == Reached(0, 0)


async def test_each_partition_of_a_topic_goes_on_where_it_was_noted(progress):
    await progress.note("decisions", 2, Reached(10, 7))
    await progress.note("labels", 2, Reached(5))
    assert await progress.reached("decisions", 2) == Reached(10, 7)
    assert await progress.reached("labels", 2) == Reached(5, 0)
    assert await progress.reached("decisions", 3) == Reached(0, 0)


async def test_it_never_goes_back(progress):
    await progress.note("decisions", 2, Reached(9, 6))
    await progress.note("decisions", 2, Reached(10, 7))  # as text it would be before 9
    for place in (Reached(9, 6), Reached(0, 0)):
        await progress.note("decisions", 2, place)
        assert await progress.reached("decisions", 2) == Reached(10, 7)


async def test_where_one_partition_of_state_went_back_all_go_back(client, progress):
    await progress.note("decisions", 2, Reached(100, 70))
    await client.hset(KEYS.progress(3), "decisions:2", "99 69")  # the server of this one lost its tail
    assert await progress.reached("decisions", 2) == Reached(99, 69)
    await client.delete(KEYS.progress(1))
    assert await progress.reached("decisions", 2) == Reached(0, 0)


async def test_what_did_not_go_back_stays_when_others_catch_up(client, progress):
    await progress.note("decisions", 2, Reached(100, 70))
    await client.delete(KEYS.progress(1))
    await progress.note("decisions", 2, Reached(50, 35))
    assert await progress.reached("decisions", 2) == Reached(50, 35)
    assert await client.hget(KEYS.progress(0), "decisions:2") == b"100 70"


async def test_a_note_that_one_partition_refuses_does_not_count(client, progress):
    await client.delete(KEYS.gate(3))
    with pytest.raises(ClosedError):
        await progress.note("decisions", 2, Reached(10, 7))
    assert await progress.reached("decisions", 2) == Reached(0, 0)
