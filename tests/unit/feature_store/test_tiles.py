import pytest
from feature_store.tiles import History, last_tile

from feature_store.definitions import DAYS, LABEL_DELAY, MINUTES, Aggregate, Entity, Measure, Op, Tile

NOON = 20_000 * DAYS + 12 * 3_600
STORED = {
    Tile.MINUTE: (Measure.COUNT,),
    Tile.DAY: (Measure.COUNT, Measure.AMOUNT, Measure.LARGEST_RATIO, Measure.FRAUDS),
}


def history(*events):
    made = History()
    for second, values in events:
        made.add(second, values, STORED)
    return made


def aggregate(op=Op.TOTAL, measure=Measure.COUNT, tile=Tile.MINUTE, window=10, delay=0):
    return Aggregate(Entity.CARD, op, measure, tile, window, delay)


def read(made, second, wanted):
    return made.read(second, (wanted,))[0]


ONE = {Measure.COUNT: 1, Measure.AMOUNT: 100}


def test_a_window_without_delay_includes_the_tile_of_the_event_and_moves_tile_by_tile():
    made = history((NOON, ONE), (NOON + 59, ONE), (NOON + 60, ONE))
    assert read(made, NOON + 60, aggregate(window=1)) == 1
    assert read(made, NOON + 60, aggregate(window=2)) == 3
    assert read(made, NOON + 10 * MINUTES, aggregate(window=10)) == 1


def test_a_late_event_does_not_see_what_happened_after_its_tile():
    made = history((NOON, ONE), (NOON + 600, ONE))
    assert read(made, NOON + 1, aggregate(window=10)) == 1


@pytest.mark.parametrize(("seconds_later", "seen"), [(0, 0), (120, 0), (179, 0), (180, 1)])
def test_a_window_with_delay_ends_with_the_last_tile_that_was_over_by_then(seconds_later, seen):
    made = history((NOON, ONE))
    assert read(made, NOON + seconds_later, aggregate(window=60, delay=120)) == seen


def test_state_that_lags_by_less_than_the_delay_cannot_be_told_from_current_state():
    delayed = aggregate(window=60, delay=120)
    for second in range(NOON, NOON + 400, 7):
        assert (last_tile(second, delayed) + 1) * MINUTES <= second - 120


def test_the_order_of_events_does_not_matter_whatever_falls_out_of_what_is_kept():
    events = [(NOON + offset * DAYS, ONE) for offset in (0, 50, 3, -60, 49, 8)]
    forward, backward = history(*events), history(*reversed(events))
    assert forward == backward
    assert sorted(forward.tiles[Tile.DAY]) == [20_049, 20_050]


def test_the_largest_ratio_is_a_maximum_and_counts_are_sums():
    made = history((NOON, ONE | {Measure.LARGEST_RATIO: 3_000}), (NOON, ONE | {Measure.LARGEST_RATIO: 2_000}))
    assert read(made, NOON, aggregate(measure=Measure.LARGEST_RATIO, tile=Tile.DAY)) == 3_000
    assert read(made, NOON, aggregate(measure=Measure.AMOUNT, tile=Tile.DAY)) == 200


def days(*tiles):
    """Day tiles from the oldest: (transactions, frauds)."""
    made = History()
    for number, (count, frauds) in enumerate(tiles):
        made.add(NOON + number * DAYS, {Measure.COUNT: count, Measure.FRAUDS: frauds}, STORED)
    return made


@pytest.mark.parametrize(
    ("tiles", "run", "age", "since_fraud", "since_genuine"),
    [
        ([(2, 0), (1, 1), (2, 2)], 3, 1, 0, 2),
        ([(1, 1), (1, 0), (1, 1)], 1, 0, 0, 1),
        ([(2, 1), (0, 0)], 0, -1, 1, 1),
        ([(0, 0)], 0, -1, -1, -1),
        ([(1, 1), (0, 0), (0, 0)], 1, 2, 2, -1),
    ],
)
def test_the_current_run_of_frauds_ends_at_the_last_known_genuine_day(tiles, run, age, since_fraud, since_genuine):
    made = days(*tiles)
    second = NOON + (len(tiles) - 1) * DAYS

    def ask(op, measure=Measure.FRAUDS):
        return read(made, second, aggregate(op, measure, Tile.DAY, window=30))

    assert (ask(Op.RUN), ask(Op.RUN_AGE)) == (run, age)
    assert (ask(Op.SINCE), ask(Op.SINCE, Measure.GENUINE)) == (since_fraud, since_genuine)


def test_a_label_is_used_when_its_transaction_is_seven_days_old_and_not_before():
    made = history((NOON, {Measure.FRAUDS: 1}))
    wanted = aggregate(measure=Measure.FRAUDS, tile=Tile.DAY, window=30, delay=LABEL_DELAY)
    midnight_after = (NOON // DAYS + 1) * DAYS
    assert read(made, midnight_after + LABEL_DELAY - 1, wanted) == 0
    assert read(made, midnight_after + LABEL_DELAY, wanted) == 1


def test_elapsed_forgets_what_is_longer_ago_than_its_window_and_is_zero_for_a_late_event():
    made = history((NOON, ONE))
    elapsed = aggregate(Op.ELAPSED, tile=Tile.DAY, window=37)
    assert read(made, NOON + 30, elapsed) == 30
    assert read(made, NOON - 30, elapsed) == 0
    assert read(made, NOON + 37 * DAYS + 1, elapsed) == -1
    assert read(History(), NOON, elapsed) == -1
