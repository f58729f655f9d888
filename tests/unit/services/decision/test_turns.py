"""Those of one card come one after another, in their order, whatever happens to one of them; nothing is kept of it."""

import asyncio

import pytest

from services.decision.turns import Turns


class Callers:
    """Tasks that take turns; `log` says who began, and each ends when told."""

    def __init__(self):
        self.turns = Turns()
        self.log = []
        self.tasks = {}
        self.may_end = {}

    async def come(self, name, card="c1"):
        """One more caller, who has had its chance to begin."""
        self.may_end[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._take(name, card))
        await self.settle()

    async def _take(self, name, card):
        await self.turns.come(card)
        try:
            self.log.append(name)
            await self.may_end[name].wait()
            if name.startswith("bad"):
                raise ValueError(name)
        finally:
            self.turns.end(card)

    async def end(self, *names):
        for name in names:
            self.may_end[name].set()
            await self.settle()

    async def settle(self):
        for _ in range(5):
            await asyncio.sleep(0)

    @property
    def kept(self):
        return self.turns._waiting


@pytest.fixture
def callers():
    return Callers()


async def test_one_at_a_time_in_the_order_they_came(callers):
    for name in ("a", "b", "c"):
        await callers.come(name)
    assert callers.log == ["a"]
    await callers.end("c", "a")
    assert callers.log == ["a", "b"]
    await callers.end("b")
    assert callers.log == ["a", "b", "c"]
    assert callers.kept == {}


async def test_cards_do_not_wait_for_each_other(callers):
    await callers.come("a", "c1")
    await callers.come("b", "c2")
    assert callers.log == ["a", "b"]
    await callers.end("a", "b")
    assert callers.kept == {}


async def test_an_error_ends_the_turn_like_any_other(callers):
    await callers.come("bad")
    await callers.come("b")
    await callers.end("bad", "b")
    assert callers.log == ["bad", "b"]
    assert isinstance(callers.tasks["bad"].exception(), ValueError)
    assert callers.kept == {}


async def test_who_goes_away_while_waiting_is_passed_over(callers):
    for name in ("a", "b", "c"):
        await callers.come(name)
    callers.tasks["b"].cancel()
    await callers.settle()
    await callers.end("a", "c")
    assert callers.log == ["a", "c"]
    assert callers.kept == {}


async def test_who_goes_away_during_its_turn_ends_it(callers):
    await callers.come("a")
    await callers.come("b")
    callers.tasks["a"].cancel()
    await callers.settle()
    assert callers.log == ["a", "b"]
    await callers.end("b")
    assert callers.kept == {}


async def test_who_goes_away_as_its_turn_comes_hands_it_on(callers):
    for name in ("a", "b", "c"):
        await callers.come(name)
    callers.may_end["a"].set()
    await asyncio.sleep(0)  # a ends and wakes b, which has not run yet
    callers.tasks["b"].cancel()
    await callers.settle()
    assert callers.log == ["a", "c"]
    await callers.end("c")
    assert callers.kept == {}


async def test_the_last_to_go_away_leaves_nothing(callers):
    await callers.come("a")
    await callers.come("b")
    callers.may_end["a"].set()
    await asyncio.sleep(0)
    callers.tasks["b"].cancel()
    await callers.settle()
    assert (callers.log, callers.kept) == (["a"], {})
    await callers.come("c")
    assert callers.log == ["a", "c"]
    await callers.end("c")
