"""One history by hand: how windows are cut, what is kept, what a late event and a label may do."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.definitions import DAYS, HOURS, MINUTES, Aggregate, Measure, Op, Tile
from feature_store.features import CARD, LABEL_DELAY, MERCHANT, MERCHANT_DELAY, SHIPPED
from feature_store.history import History, last_tile
from feature_store.plan import Plan

NOON = int(datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp())
ONE = {Measure.COUNT: 1, Measure.AMOUNT: 100, Measure.SQUARES: 10_000}
FRAUD = {Measure.FRAUDS: 1}
KEPT = {Tile.MINUTE: 90, Tile.HOUR: 36, Tile.DAY: 41}


def aggregate(op=Op.TOTAL, measure=Measure.COUNT, tile=Tile.MINUTE, window=10, delay=0):
    return Aggregate(CARD, op, measure, tile, window, delay)


def history_of(wanted, *events):
    """A history that reads one aggregate: events are seconds, or seconds and what was counted."""
    made = History(Plan(CARD, [wanted]))
    for event in events:
        second, values = event if isinstance(event, tuple) else (event, ONE)
        made.count(second, values)
    return made


def read(wanted, second, *events):
    (value,) = history_of(wanted, *events).read(second)
    return value


# --- windows


def test_a_window_includes_the_tile_of_the_event():
    assert read(aggregate(window=1), NOON + 60, NOON, NOON + 59, NOON + 60) == 1
    assert read(aggregate(window=2), NOON + 60, NOON, NOON + 59, NOON + 60) == 3


@pytest.mark.parametrize(("tile", "seconds"), [(Tile.MINUTE, MINUTES), (Tile.HOUR, HOURS), (Tile.DAY, DAYS)])
def test_a_window_moves_tile_by_tile(tile, seconds):
    start = NOON - NOON % seconds
    wanted = aggregate(tile=tile, window=10)
    assert read(wanted, start + 10 * seconds - 1, start) == 1
    assert read(wanted, start + 10 * seconds, start) == 0


def test_a_late_event_does_not_see_later_tiles():
    assert read(aggregate(), NOON + 1, NOON, NOON + 10 * MINUTES) == 1


def test_a_maximum_is_not_a_sum():
    events = [(NOON, ONE | {Measure.LARGEST_RATIO: ratio}) for ratio in (2_000, 3_000, 1_000)]
    assert read(aggregate(measure=Measure.LARGEST_RATIO, tile=Tile.DAY), NOON, *events) == 3_000
    assert read(aggregate(measure=Measure.AMOUNT, tile=Tile.DAY), NOON, *events) == 300


@pytest.mark.parametrize(("later", "seen"), [(0, 0), (120, 0), (179, 0), (180, 1)])
def test_a_delayed_window_ends_with_the_last_tile_over_by_then(later, seen):
    assert read(aggregate(window=60, delay=120), NOON + later, NOON) == seen


@pytest.mark.parametrize("seconds", [MINUTES, HOURS, DAYS])
def test_no_tile_of_a_delayed_window_is_younger_than_the_delay(seconds):
    for second in range(NOON, NOON + 2 * seconds, 1 + seconds // 50):
        assert (last_tile(second, seconds, 120) + 1) * seconds <= second - 120
        assert (last_tile(second, seconds, 120) + 2) * seconds > second - 120


@given(ages=st.lists(st.integers(0, 40 * DAYS), max_size=20), lag=st.integers(0, MERCHANT_DELAY))
def test_lag_below_the_delay_cannot_be_seen(ages, lag):
    """A merchant of which the youngest events are still missing reads like one that has them all."""
    behind, current = History(SHIPPED.plans[MERCHANT]), History(SHIPPED.plans[MERCHANT])
    for age in sorted(ages, reverse=True):
        current.count(NOON - age, ONE)
        if age >= lag:
            behind.count(NOON - age, ONE)
    assert behind.read(NOON) == current.read(NOON)


def test_a_label_is_used_when_its_transaction_is_seven_days_old():
    wanted = aggregate(measure=Measure.FRAUDS, tile=Tile.DAY, window=30, delay=LABEL_DELAY)
    midnight_after = (NOON // DAYS + 1) * DAYS
    assert read(wanted, midnight_after + LABEL_DELAY - 1, (NOON, FRAUD)) == 0
    assert read(wanted, midnight_after + LABEL_DELAY, (NOON, FRAUD)) == 1


# --- runs and distances, over days from the oldest: (transactions, frauds)


@pytest.mark.parametrize(
    ("days", "run", "age", "since_fraud", "since_genuine"),
    [
        ([(2, 0), (1, 1), (2, 2)], 3, 1, 0, 2),
        ([(1, 1), (1, 0), (1, 1)], 1, 0, 0, 1),
        ([(2, 1), (0, 0)], 0, -1, 1, 1),
        ([(0, 0)], 0, -1, -1, -1),
        ([(1, 1), (0, 0), (0, 0)], 1, 2, 2, -1),
        ([(1, 0), (0, 2), (3, 3)], 5, 1, 0, 2),  # the label came before its transactions
    ],
)
def test_a_run_of_frauds_ends_at_the_last_genuine_day(days, run, age, since_fraud, since_genuine):
    asked = [
        aggregate(op, measure, Tile.DAY, window=30)
        for op, measure in (
            (Op.RUN, Measure.FRAUDS),
            (Op.RUN_AGE, Measure.FRAUDS),
            (Op.SINCE, Measure.FRAUDS),
            (Op.SINCE, Measure.GENUINE),
        )
    ]
    made = History(Plan(MERCHANT, asked))
    for number, (count, frauds) in enumerate(days):
        made.add(NOON + number * DAYS, {Measure.COUNT: count, Measure.FRAUDS: frauds})
    assert made.read(NOON + (len(days) - 1) * DAYS) == [run, age, since_fraud, since_genuine]


def test_a_run_begins_within_its_window():
    wanted = aggregate(Op.RUN, Measure.FRAUDS, Tile.DAY, window=2)
    events = [(NOON + day * DAYS, ONE | FRAUD) for day in range(4)]
    assert read(wanted, NOON + 3 * DAYS, *events) == 2


def test_elapsed_counts_seconds_since_the_newest_transaction():
    elapsed = aggregate(Op.ELAPSED, tile=Tile.DAY, window=37)
    assert read(elapsed, NOON + 30, NOON, NOON - 500) == 30
    assert read(elapsed, NOON - 30, NOON) == 0
    assert read(elapsed, NOON + 37 * DAYS, NOON) == 37 * DAYS
    assert read(elapsed, NOON + 37 * DAYS + 1, NOON) == -1
    assert read(elapsed, NOON) == -1


# --- what is kept


@pytest.mark.parametrize("tile", Tile)
@pytest.mark.parametrize("late", [False, True])
def test_tiles_are_kept_so_many_before_the_newest(tile, late):
    oldest = NOON - KEPT[tile] * tile.seconds
    seconds = [oldest, oldest - tile.seconds, NOON]
    made = history_of(aggregate(tile=tile), *(seconds[::-1] if late else seconds))
    assert made.tables[0] == [[oldest // tile.seconds, NOON // tile.seconds], [1, 1]]


def test_every_shipped_window_fits_into_what_is_kept():
    for plan in SHIPPED.plans.values():
        empty = History(plan)
        empty.newest = NOON
        assert all(empty.covers(second) for second in range(NOON, NOON + DAYS, 977))
        for tile in plan.tiles:
            for ending in tile.endings:
                widest = max(window.tiles for window in ending.windows)
                oldest = last_tile(NOON, tile.seconds, ending.delay) - widest + 1
                assert oldest >= NOON // tile.seconds - KEPT[tile.tile]


EVENTS = st.lists(st.tuples(st.integers(-90 * DAYS, 90 * DAYS), st.booleans()), max_size=15)


@given(events=EVENTS, random=st.randoms(use_true_random=False))
def test_tiles_do_not_depend_on_the_order_of_arrival(events, random):
    def told(several):
        made = History(SHIPPED.plans[MERCHANT])
        for offset, is_label in several:
            made.add(NOON + offset, FRAUD) if is_label else made.count(NOON + offset, ONE)
        return made.newest, made.tables

    shuffled = events.copy()
    random.shuffle(shuffled)
    assert told(shuffled) == told(events)


@pytest.mark.parametrize(("tiles", "delay", "oldest"), [(10, 0, 81), (60, 0, 31), (60, 120, 28), (1, 0, 90)])
def test_a_late_event_is_covered_if_no_window_reaches_too_far(tiles, delay, oldest):
    """90 minutes are kept before the newest; a window of 10 minutes may end 81 minutes before it at most."""
    made = history_of(aggregate(window=tiles, delay=delay), NOON)
    assert made.covers(NOON - oldest * MINUTES)
    assert not made.covers(NOON - (oldest + 1) * MINUTES)


def test_an_event_that_is_not_late_is_always_covered():
    assert History(SHIPPED.plans[CARD]).covers(NOON)
    made = History(SHIPPED.plans[CARD])
    made.count(NOON, ONE)
    assert all(made.covers(NOON + later) for later in (0, 1, 90 * DAYS))


def test_what_is_not_covered_may_hide_velocity():
    wanted = aggregate(window=60)
    made = history_of(wanted, *range(NOON - 6_000, NOON - 5_400), NOON)
    assert (made.read(NOON - 5_401), made.covers(NOON - 5_401)) == ([0], False)


# --- labels


@pytest.mark.parametrize("entity", [CARD, MERCHANT], ids=["card", "merchant"])
def test_a_label_of_50_years_ahead_changes_nothing_of_now(entity):
    made = History(SHIPPED.plans[entity])
    for second in range(NOON - 40 * DAYS, NOON, 7_777):
        made.count(second, ONE)
    before, minutes, newest = made.read(NOON), [column.copy() for column in made.tables[0]], made.newest
    made.add(NOON + 50 * 365 * DAYS, FRAUD)
    assert (made.read(NOON), made.tables[0], made.newest) == (before, minutes, newest)
    made.count(NOON, ONE)
    assert made.newest == NOON
    assert len(made.tables[0][0]) == len(minutes[0]) + 1


def test_a_label_before_any_transaction_waits_for_it():
    made = History(SHIPPED.plans[MERCHANT])
    made.add(NOON, FRAUD)
    assert made.newest is None
    made.count(NOON, ONE)
    made.count(NOON + 42 * DAYS, ONE)  # the label's tile falls out of what is kept like any other
    assert made.tables[-1][0] == [(NOON + 42 * DAYS) // DAYS]


def test_a_label_of_what_is_no_longer_kept_leaves_no_trace():
    made = history_of(aggregate(measure=Measure.FRAUDS, tile=Tile.DAY), (NOON, ONE))
    made.add(NOON - 42 * DAYS, FRAUD)
    assert made.tables[0][0] == []
    made.add(NOON - 41 * DAYS, FRAUD)
    assert made.tables[0][0] == [NOON // DAYS - 41]


def test_what_adds_nothing_takes_no_row():
    made = History(SHIPPED.plans[MERCHANT])
    made.add(NOON, {Measure.FRAUDS: 0})
    assert all(column == [] for table in made.tables for column in table)
