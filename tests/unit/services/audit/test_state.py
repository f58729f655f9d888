"""Every key of Redis as the log makes it, spelled out; and how a difference is told."""

import re
from datetime import UTC, datetime

from feature_store.definitions import DAYS, HOURS, MINUTES
from feature_store.features import CARD, MERCHANT
from services.audit.state import actual, differences, expected
from services.decision.record import Stored

NOON = int(datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp())
MINUTE, HOUR, DAY = (NOON // seconds for seconds in (MINUTES, HOURS, DAYS))


def test_an_empty_log_makes_no_state(new_story):
    story = new_story()
    assert expected(story.log(), story.keys) == actual(story.client) == {}


def test_two_decisions_and_a_chargeback_make_these_keys(new_story):
    story = new_story()
    first = story.decide(amount=1_000)
    story.decide(amount=3_000, after=30)
    story.label(first)
    log = story.log()
    [one, two] = log.decisions[0]
    assert expected(log, story.keys) == {
        "{0}card:c0": {
            "newest": NOON + 30,
            "decisions": {0: 2},
            "labels": {0: 0},
            "minute tiles": [[MINUTE], [2]],
            "hour tiles": [[HOUR], [2], [4_000]],
            "day tiles": [[DAY], [2], [4_000], [10_000_000], [3_000], [1], [1]],
        },
        "{0}decided:c0/t1": Stored.of(one.transaction, one.answer).to_bytes(),
        "{0}decided:c0/t2": Stored.of(two.transaction, two.answer).to_bytes(),
        "{0}sequence": b"2",
        "{0}label:card:c0/c0/t1": b"%d 1 m0" % NOON,
        "{2}merchant:m0": {
            "newest": NOON + 30,
            "decisions": {0: 2},
            "labels": {0: 0},
            "minute tiles": [[MINUTE], [2]],
            "hour tiles": [[HOUR], [2]],
            "day tiles": [[DAY], [2], [4_000], [1]],
        },
        "{2}label:merchant:m0/c0/t1": b"%d 1 m0" % NOON,
    }


def test_it_is_the_state_of_the_store_that_made_the_log(story):
    story.follow_all()
    wanted = expected(story.log(), story.keys)
    assert len(wanted) > 40
    assert differences(wanted, actual(story.client)) == []


def test_while_the_updater_is_behind_only_merchants_differ(story):
    wrong = differences(expected(story.log(), story.keys), actual(story.client))
    assert wrong
    assert all(re.match(r"\{\d\}merchant:m\d differs in [\w, ]*decisions", text) for text in wrong)


def test_it_does_not_look_at_what_decisions_recorded(story):
    story.follow_all()
    log = story.log()
    for record in log:
        record.counted.clear()
        record.held.clear()
    assert differences(expected(log, story.keys), actual(story.client)) == []


def test_late_transactions_and_labels_leave_the_state_of_the_log(new_story):
    story = new_story()
    for number, days in enumerate((0, 50, -3, 49, 8, 51, 5)):
        t = story.decide(card=f"c{number % 2}", after=days * DAYS)
        story.label(t, is_fraud=number % 3 > 0)
        story.label(t)  # has no effect
        story.follow(number % story.keys.partitions)
    story.follow_all()
    assert differences(expected(story.log(), story.keys), actual(story.client)) == []


def test_a_lost_event_is_a_difference(story):
    story.follow_all()
    log, found = story.log(), actual(story.client)
    lost = log.decisions[1].pop()
    card = story.keys.history(CARD, lost.transaction.card_id)
    merchant = story.keys.history(MERCHANT, lost.transaction.merchant_id)
    named = {text.split()[0] for text in differences(expected(log, story.keys), found)}
    assert {card, merchant, "{1}sequence"} <= named


def test_damaged_bytes_are_told_by_key_and_not_by_content(story):
    story.follow_all()
    key = story.keys.history(CARD, "c1")
    values = story.store.state.values
    values[key] = values[key][:-1] + bytes([values[key][-1] ^ 1])
    assert differences(expected(story.log(), story.keys), actual(story.client)) == [f"{key} is damaged"]


def test_gates_are_no_state(story):
    assert any(key.endswith("}gate") for key in story.store.state.values)
    assert not any(key.endswith("}gate") for key in actual(story.client))


def test_differences_name_keys_and_fields_and_never_what_they_hold():
    wanted = {
        "same": b"1",
        "gone": b"1",
        "text": b"secret",
        "entity": {"a": "secret", "b": 2, "c": 3},
        "k": b"",
    }
    found = {"same": b"1", "stray": b"1", "text": b"other", "entity": {"a": "other", "b": 2, "d": 4}, "k": {}}
    assert differences(wanted, found) == [
        "entity differs in a, c, d",
        "gone is missing",
        "k differs",
        "stray should not be there",
        "text differs",
    ]
    assert differences(wanted, wanted) == []
