"""Decisions recomputed from the log: what was made by `Decide` holds, whatever lagged; whatever is changed is named."""

import math
from dataclasses import replace

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store.definitions import DAYS
from feature_store.held import Held
from services.audit.verify import Verdict, verify
from services.decision.policy import LATE

STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("decide"),
            st.sampled_from(["c0", "c1", "c2", "c3"]),
            st.sampled_from(["m0", "m1"]),
            st.integers(0, 90_000),
            st.sampled_from([0, 30, 700, 4_000, -3 * DAYS, -8 * DAYS, 60 * DAYS]),
        ),
        st.tuples(st.just("follow"), st.integers(0, 2), st.integers(1, 4)),
        st.tuples(st.just("label"), st.integers(0, 30), st.booleans()),
    ),
    max_size=30,
)


def play(story, steps):
    decided = []
    for kind, *what in steps:
        if kind == "decide":
            card, merchant, amount, after = what
            decided.append(story.decide(card=card, merchant=merchant, amount=amount, after=after))
        elif kind == "follow":
            story.follow(*what)
        elif what[0] < len(decided):
            story.label(decided[what[0]], is_fraud=what[1])


def verified(story, log, **wishes):
    return verify(log, story.model, story.policy, **wishes)


def changed(log, record, **changes):
    """The log with this record changed; `answer` takes what is to change in it, `held` by entity."""
    if "answer" in changes:
        changes["answer"] = msgspec.structs.replace(record.answer, **changes["answer"])
    if "held" in changes:
        changes["held"] = record.held | changes["held"]
    log.decisions[record.partition][record.sequence - 1] = msgspec.structs.replace(record, **changes)
    return log


def last_of_card(log, card):
    """The card's last decision: no other has seen what it counted."""
    return [record for record in log if record.transaction.card_id == card][-1]


@given(steps=STEPS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])  # it makes stories
def test_every_log_holds_however_far_behind_the_updater_was(steps, new_story):
    story = new_story()
    play(story, steps)
    log = story.log()
    verdict = verified(story, log)
    assert verdict.differences == []
    assert verdict.holds
    assert verdict.verified == len(log)


def test_the_story_these_tests_change_is_one_of_all_kinds(story):
    log = story.log()
    assert verified(story, log).holds
    assert {record.answer.action for record in log} == {"approve", "review", "decline"}
    assert any(record.held["merchant"].labels for record in log)
    assert any(sum(record.held["merchant"].decisions.values()) < record.sequence for record in log)


def test_late_decisions_hold(new_story):
    story = new_story()
    for after in (0, -50 * DAYS, 30, -2 * DAYS, -3_000):
        story.decide(after=after)
    log = story.log()
    assert [record.answer.degraded for record in log] == [(), (LATE,), (), (LATE,), (LATE,)]
    assert {record.answer.action for record in log} == {"approve", "review"}
    assert verified(story, log).holds


CHANGES = {
    "a feature": ("features", lambda record: {"features": (*record.features[:3], 77.0, *record.features[4:])}),
    "a feature that was not known": (
        "features",
        lambda record: {"features": tuple(0.0 if value is None else value for value in record.features)},
    ),
    "a feature more": ("features", lambda record: {"features": (*record.features, 0.0)}),
    "a count": ("counted", lambda record: {"counted": record.counted | {"amount": record.counted["amount"] + 1}}),
    "no counts": ("counted", lambda _: {"counted": {}}),
    "the score's last digit": ("score", lambda record: {"answer": {"score": math.nextafter(record.answer.score, 1)}}),
    "the action": ("action", lambda _: {"answer": {"action": "approve"}}),
    "the reasons": ("action", lambda _: {"answer": {"reasons": ()}}),
}
"""What is changed in a record, by what is found to differ."""


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_in_a_record_is_found_and_named(change, story):
    what, changes = CHANGES[change]
    log = story.log()
    record = last_of_card(log, "c1")
    assert record.answer.action != "approve"
    assert None in record.features
    verdict = verified(story, changed(log, record, **changes(record)))
    [difference] = verdict.differences
    assert (difference.partition, difference.sequence, difference.what) == (record.partition, record.sequence, what)
    true = {
        "features": record.features,
        "counted": record.counted,
        "score": record.answer.score,
        "action": (record.answer.action, record.answer.reasons),
    }
    assert difference.recorded != true[what] == difference.recomputed
    assert not verdict.holds


def test_a_decision_may_not_say_of_itself_whether_it_was_late(new_story):
    story = new_story()
    story.decide()
    story.decide(after=-50 * DAYS)
    for sequence, said in ((1, (LATE,)), (2, ())):
        log = story.log()
        changed(log, log.decisions[0][sequence - 1], answer={"degraded": said})
        found = verified(story, log).differences
        assert ("late", bool(said), not said) in [(each.what, each.recorded, each.recomputed) for each in found]


OTHER_SIGHT = {
    "an earlier card": lambda held: {"card": Held(decisions={}, labels=held["card"].labels)},
    "no labels": lambda held: {"merchant": Held(decisions=held["merchant"].decisions)},
    "an earlier merchant": lambda held: {"merchant": Held(decisions={0: 1}, labels=held["merchant"].labels)},
    "nothing of the merchant": lambda _: {"merchant": Held()},
}


@pytest.mark.parametrize("sight", OTHER_SIGHT)
def test_a_decision_that_saw_something_else_has_other_features(story, sight):
    log = story.log()
    record = last_of_card(log, "c1")
    found = verified(story, changed(log, record, held=OTHER_SIGHT[sight](record.held))).differences
    assert {(each.partition, each.sequence) for each in found} == {(record.partition, record.sequence)}
    assert "features" in {each.what for each in found}


def test_a_gap_in_the_sequences_is_found_in_any_case(story):
    log = story.log()
    del log.decisions[2][4:6], log.decisions[1][0]
    verdict = verified(story, log, last=1)
    assert verdict.missing == [(1, 1), (2, 5), (2, 6)]
    assert not verdict.holds
    assert not Verdict(missing=[(0, 1)]).holds


def test_of_another_model_only_the_features_are_recomputed(story):
    class Later:
        version = "a later model"

        def score(self, row):
            raise AssertionError("nobody asks it")

    log = story.log()
    record = last_of_card(log, "c1")
    changed(log, record, answer={"score": 0.123, "action": "approve"})
    for model, policy in ((Later(), story.policy), (story.model, replace(story.policy, review=0.21))):
        verdict = verify(log, model, policy)
        assert (verdict.verified, verdict.features_only, verdict.other_features) == (0, len(log), 0)
        assert verdict.holds

    changed(log, record, features=())
    verdict = verify(log, Later(), story.policy)
    assert [difference.what for difference in verdict.differences] == ["features"]
    assert not verdict.holds


def test_each_decision_is_held_against_the_model_that_made_it(story):
    log = story.log()
    for record in list(log)[::2]:
        changed(log, record, answer={"model": "an earlier model", "score": 0.99})
    verdict = verified(story, log)
    assert (verdict.verified, verdict.features_only) == (20, 20)
    assert verdict.holds


def test_decisions_of_other_features_are_left_out_but_counted(story):
    log = story.log()
    for record in list(log)[::3]:
        changed(log, record, features=(1.0, 2.0), answer={"features_version": "older"})
    verdict = verified(story, log)
    assert verdict.other_features == len(list(log)[::3])
    assert verdict.verified == len(log) - verdict.other_features
    assert verdict.features_only == 0
    assert verdict.holds


def test_the_last_so_many_are_the_last_by_time(story):
    log = story.log()
    by_time = sorted(log, key=lambda record: record.decided_at)
    assert len({record.partition for record in by_time[-5:]}) > 1
    told = []
    for record in by_time:
        changed(log, record, features=())
    verdict = verified(story, log, last=5, advance=lambda: told.append(1))
    wanted = {(record.partition, record.sequence) for record in by_time[-5:]}
    assert {(each.partition, each.sequence) for each in verdict.differences} == wanted
    assert verdict.verified == len(told) == len(verdict.differences) == 5
    assert verified(story, log, last=1_000).verified == len(log)


def test_an_empty_log_holds(new_story):
    story = new_story()
    assert verified(story, story.log()) == Verdict()
    assert Verdict().holds
