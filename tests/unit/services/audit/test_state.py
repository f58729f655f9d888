"""Every key of Redis as the log makes it, spelled out; and how a difference is told."""

from datetime import UTC, datetime

from feature_store.tiles import History

from feature_store.definitions import Entity, Measure, Tile
from services.audit.state import differences, expected, tiles
from services.decision.policy import CONTENTION
from services.decision.record import Stored

NOON = int(datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp())
MINUTE, HOUR, DAY = (b"%s%d" % (tile.encode(), NOON // tile.seconds) for tile in Tile)


def test_an_empty_log_makes_no_state(new_story):
    story = new_story()
    assert expected(story.log(), story.keys) == {}


def test_two_decisions_and_a_chargeback_make_these_keys_and_no_others(new_story):
    story = new_story()
    first = story.decide(amount=1_000)
    story.decide(amount=3_000, after=30)
    story.label(first)
    log = story.log()
    [one, two] = log.decisions[0]
    assert expected(log, story.keys) == {
        "{0}card:c0": {
            b"version": b"2",
            b"newest": b"%d" % (NOON + 30),
            b"label:0": b"0",
            MINUTE: b"n2",
            HOUR: b"n2 a4000",
            DAY: b"n2 a4000 r10000000 x3000 y1 f1",
        },
        "{0}decided:c0/t1": Stored.of(one.transaction, one.answer).to_bytes(),
        "{0}decided:c0/t2": Stored.of(two.transaction, two.answer).to_bytes(),
        "{0}sequence": b"2",
        "{0}label:card:c0/c0/t1": b"%d 1 m0" % NOON,
        "{2}merchant:m0": {
            b"sequence:0": b"2",
            b"newest": b"%d" % (NOON + 30),
            b"label:0": b"0",
            MINUTE: b"n2",
            HOUR: b"n2",
            DAY: b"n2 a4000 f1",
        },
        "{2}label:merchant:m0/c0/t1": b"%d 1 m0" % NOON,
    }


def assert_cards_and_merchants_are_those_of_its_store(story):
    state = expected(story.log(), story.keys)
    for entity in Entity:
        for name, history in story.store.histories.of[entity].items():
            found = state[story.keys.history_of(entity, name)]
            written = {field: value for field, value in found.items() if field == b"newest" or field[1:].isdigit()}
            assert written == {field.encode(): value.encode() for field, value in tiles(history).items()}


def test_it_is_the_state_of_the_store_that_made_the_log(story):
    for partition in range(story.keys.partitions):
        story.follow(partition)
    assert_cards_and_merchants_are_those_of_its_store(story)


def test_also_where_a_decision_was_forced_that_had_not_seen_the_one_just_before_it(new_story):
    """77 is more than 2.5 times the mean of all before it, and less than that of all but one."""
    story = new_story()
    story.decide(amount=1_000)
    story.decide_while_the_card_keeps_moving(amount=77)
    story.follow(story.keys.partition("c0"))
    [forced] = [record for record in story.log() if record.answer.degraded == (CONTENTION,)]
    assert forced.counted["high_ratios"] == 0
    assert_cards_and_merchants_are_those_of_its_store(story)


def test_tiles_are_written_with_their_measures_in_one_order_and_without_those_there_are_none_of():
    history = History()
    history.add(NOON, {Measure.FRAUDS: 1}, {Tile.DAY: tuple(Measure)})
    history.add(NOON, {Measure.COUNT: 2, Measure.AMOUNT: 0}, {Tile.DAY: tuple(Measure)})
    assert tiles(history) == {DAY.decode(): "n2 f1", "newest": str(NOON)}
    assert tiles(History()) == {}


def test_differences_name_keys_and_fields_and_never_what_they_hold():
    wanted = {
        "same": b"1",
        "gone": b"1",
        "text": b"secret",
        "hash": {b"a": b"secret", b"b": b"2", b"c": b"3"},
        "k": b"",
    }
    found = {"same": b"1", "stray": b"1", "text": b"other", "hash": {b"a": b"other", b"b": b"2", b"d": b"4"}, "k": {}}
    assert differences(wanted, found) == [
        "gone is missing",
        "hash differs in a, c, d",
        "k differs",
        "stray should not be there",
        "text differs",
    ]
    assert differences(wanted, wanted) == []
