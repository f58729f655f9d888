"""A late transaction, of which state may have forgotten what came before it, says so and is never approved."""

from datetime import timedelta

import pytest
from logged import NOW, paid

from feature_store.entity_writer import LoggedDecision
from services.decision.policy import LATE


def at(days, name="late"):
    return paid(name, event_time=NOW - timedelta(days=days))


async def test_a_late_one_is_marked_and_goes_to_review(deciding):
    case = deciding()
    await case.decide(paid("now"))
    answer = (await case.decide(at(days=50))).answer
    assert (answer.action, answer.reasons, answer.degraded) == ("review", (LATE,), (LATE,))
    assert case.counted("degraded_decisions_total", cause=LATE) == 1
    assert case.records()[-1].answer == answer


async def test_a_late_one_that_deserves_worse_gets_it(deciding):
    class Certain:
        version = "certain"

        def score(self, _):
            return 0.9

    case = deciding(model=Certain())
    await case.decide(paid("now"))
    answer = (await case.decide(at(days=50))).answer
    assert (answer.action, answer.reasons) == ("decline", ("score_above_decline", LATE))


@pytest.mark.parametrize("minutes", [0, 1, 29])
async def test_a_little_late_is_not_late(deciding, minutes):
    case = deciding()
    await case.decide(paid("now"))
    answer = (await case.decide(paid("late", event_time=NOW - timedelta(minutes=minutes)))).answer
    assert (answer.action, answer.degraded) == ("approve", ())


async def test_what_is_late_for_the_merchant_alone_is_late(deciding):
    case = deciding()
    await case.store.count([LoggedDecision(3, 7, paid("elsewhere", card_id="c2"))])
    assert (await case.decide(at(days=50))).answer.degraded == (LATE,)
    assert (await case.decide(paid("other", merchant_id="m2", event_time=NOW))).answer.degraded == ()


async def test_the_first_of_a_card_is_never_late(deciding):
    assert (await deciding().decide(at(days=5_000))).answer.degraded == ()


async def test_a_late_one_decided_again_gets_the_same_answer(deciding):
    case = deciding()
    await case.decide(paid("now"))
    first, again = await case.decide(at(days=50)), await case.decide(at(days=50))
    assert again.repeated
    assert again.answer == first.answer
