"""What a feature's window must hold, by looking at every event there was. Slow, calendar-based, no code of the project.

Events are what an entity was told, in order of arrival; times are datetimes, so tiles are calendar days and hours.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

RATIO_CAP = 1_000_000_000
HIGH_RATIO = 2_500
_LENGTH = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
_CUT_OFF = {
    "minute": {"second": 0, "microsecond": 0},
    "hour": {"minute": 0, "second": 0, "microsecond": 0},
    "day": {"hour": 0, "minute": 0, "second": 0, "microsecond": 0},
}


@dataclass(frozen=True)
class Paid:
    """A transaction. `ratio` is what it was counted with, in thousandths of the card's mean."""

    at: datetime
    cents: int
    ratio: int = 0


@dataclass(frozen=True)
class Reported:
    """A label that says fraud. `at` is when the transaction happened."""

    at: datetime


def ratio(cents, events, now):
    """A payment's ratio to the mean of the last 30 days, as thousandths."""
    month = _tiles("day", now, 30, 0)
    amounts = [event.cents for event in events if isinstance(event, Paid) and _tile("day", event.at) in month]
    total = sum(amounts)
    return min(cents * len(amounts) * 1_000 // total, RATIO_CAP) if total else 0


def read(aggregate, events, now):
    """The integer that `aggregate` is, for a payment at `now` that comes after all `events`."""
    paid = [event for event in events if isinstance(event, Paid)]
    if aggregate.op == "elapsed":
        return _elapsed(aggregate, paid, now)
    window = _tiles(aggregate.tile, now, aggregate.window, aggregate.delay)
    inside = [event for event in paid if _tile(aggregate.tile, event.at) in window]
    if aggregate.op == "total":
        return _total(aggregate.measure, inside, [e for e in events if isinstance(e, Reported)], aggregate.tile, window)
    frauds, genuine = {}, {}
    for event in events:
        tile = _tile(aggregate.tile, event.at)
        frauds[tile] = frauds.get(tile, 0) + isinstance(event, Reported)
        genuine[tile] = genuine.get(tile, 0) + (1 if isinstance(event, Paid) else -1)
    with_fraud = [tile for tile in window if frauds.get(tile, 0) > 0]
    with_genuine = [tile for tile in window if genuine.get(tile, 0) > 0]
    if aggregate.op == "since":
        there = with_fraud if aggregate.measure == "frauds" else with_genuine
        return _tiles_between(aggregate.tile, max(there), max(window)) if there else -1
    run = [tile for tile in with_fraud if not with_genuine or tile > max(with_genuine)]
    if aggregate.op == "run":
        return sum(frauds[tile] for tile in run)
    assert aggregate.op == "run_age"
    return _tiles_between(aggregate.tile, min(run), max(window)) if run else -1


def _total(measure, inside, reported, tile, window):
    if measure == "count":
        return len(inside)
    if measure == "amount":
        return sum(event.cents for event in inside)
    if measure == "squares":
        return sum(event.cents**2 for event in inside)
    if measure == "largest_ratio":
        return max((event.ratio for event in inside), default=0)
    if measure == "high_ratios":
        return len([event for event in inside if event.ratio > HIGH_RATIO])
    assert measure == "frauds"
    return len([event for event in reported if _tile(tile, event.at) in window])


def _elapsed(aggregate, paid, now):
    if not paid:
        return -1
    gone = now - max(event.at for event in paid)
    if gone > aggregate.window * _LENGTH[aggregate.tile]:
        return -1
    return max(0, int(gone.total_seconds()))


def _tile(kind, at):
    return at.replace(**_CUT_OFF[kind])


def _tiles(kind, now, count, delay):
    """The tiles of a window: up to that of the event, or up to the last that was over `delay` seconds before it."""
    last = _tile(kind, now - timedelta(seconds=delay)) - (_LENGTH[kind] if delay else timedelta())
    return {last - number * _LENGTH[kind] for number in range(count)}


def _tiles_between(kind, earlier, later):
    return (later - earlier) // _LENGTH[kind]
