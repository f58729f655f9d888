import pytest

from loadtest.schedule import Schedule
from loadtest.verdict import Samples, judge, percentile


def verdict(seconds, failures=0, scheduled=None):
    total = len(seconds) + failures if scheduled is None else scheduled
    return judge(Samples(list(seconds), failures), scheduled=total, budget_ms=200, allowed=0.01)


def test_exactly_one_in_a_hundred_may_be_late_and_not_one_more():
    assert verdict([0.01] * 99 + [0.201]).passed
    assert not verdict([0.01] * 98 + [0.201] * 2).passed


def test_the_budget_is_compared_exactly_and_not_in_buckets():
    assert verdict([0.2] * 100).passed
    assert not verdict([0.2001] * 100).passed


def test_failed_and_unsent_requests_count_like_late_ones():
    assert not verdict([0.01] * 98, failures=2).passed
    assert not verdict([0.01] * 98, scheduled=100).passed
    assert verdict([0.01] * 98, scheduled=100).unsent == 2


def test_nothing_scheduled_is_not_a_pass():
    assert not verdict([]).passed


@pytest.mark.parametrize(("percent", "expected"), [(1, 1), (50, 50), (99, 99), (100, 100)])
def test_percentiles_are_samples(percent, expected):
    assert percentile(list(range(1, 101)), percent) == expected


def test_the_schedule_is_fixed_in_advance_and_gives_each_time_once():
    schedule = Schedule(rate=10, seconds=1, start=5.0)
    times = [schedule.take() for _ in range(12)]
    assert times == [pytest.approx(5 + n / 10) for n in range(10)] + [None, None]
