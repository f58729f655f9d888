"""Every integer that SHIPPED reads is what a naive look at all earlier events gives, whatever came when."""

from datetime import UTC, datetime, timedelta

import naive_oracle
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feature_store.definitions import Measure
from feature_store.feature_set import counted_anywhere
from feature_store.features import CARD, MERCHANT, SHIPPED
from feature_store.history import History
from feature_store.transaction import MAX_AMOUNT, Transaction

BASES = (
    datetime(2024, 2, 28, 23, 59, 50, tzinfo=UTC),  # a leap day follows
    datetime(2024, 3, 1, tzinfo=UTC),
    datetime(2023, 2, 28, 23, 0, tzinfo=UTC),  # none follows
    datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(2026, 11, 1, 12, 30, 30, tzinfo=UTC),
)
MINUTE, HOUR, DAY = 60, 3_600, 86_400
OFFSETS = st.one_of(
    st.integers(-90 * MINUTE, 90 * MINUTE),
    st.integers(-60 * DAY, 60 * DAY),
    st.builds(
        lambda unit, many, off: unit * many + off,
        st.sampled_from([MINUTE, HOUR, DAY]),
        st.sampled_from([0, 1, 2, 7, 9, 10, 23, 24, 29, 30, 36, 37, 41, 59, 60, 90, -7, -41]),
        st.sampled_from([-1, 0, 1, 119, 120, 121]),
    ),
)
AMOUNTS = st.one_of(st.sampled_from([0, 1, 999, MAX_AMOUNT]), st.integers(0, 100_000))
PAID = st.tuples(st.just("paid"), OFFSETS, AMOUNTS, st.sampled_from(["EUR", "JPY", "GBP"]))
REPORTED = st.tuples(st.just("reported"), OFFSETS)
STORIES = st.tuples(st.sampled_from(BASES), st.lists(st.one_of(PAID, PAID, REPORTED), max_size=25))


def paid(at, amount, currency):
    return Transaction(
        transaction_id="t", card_id="c", merchant_id="m", event_time=at, amount=amount, currency=currency
    )


class Told:
    """A history and all that it was told, in order of arrival."""

    def __init__(self, entity):
        self.entity = entity
        self.plan = SHIPPED.plans[entity]
        self.history = History(self.plan)
        self.events = []

    def read(self, at, *, check=True):
        """What the history gives, checked against the oracle where the history reaches back far enough."""
        second = int(at.timestamp())
        values = self.history.read(second)
        covered = self.history.covers(second)
        if covered and check:
            for aggregate, value in zip(self.plan.aggregates, values, strict=True):
                assert value == naive_oracle.read(aggregate, self.events, at), (aggregate, at)
        return values, covered

    def pay(self, at, amount, currency="EUR", *, check=True):
        """Count a transaction, after having read what is known before it."""
        transaction = paid(at, amount, currency)
        values, covered = self.read(at, check=check)
        counted = counted_anywhere(transaction)
        if self.entity is CARD:
            counted = SHIPPED.counted(transaction, values)
            if covered and check:
                naive = naive_oracle.ratio(transaction.cents, self.events, at)
                assert counted[Measure.LARGEST_RATIO] == naive
                assert counted[Measure.HIGH_RATIOS] == (naive > naive_oracle.HIGH_RATIO)
        self.history.count(transaction.second, counted)
        recorded = counted.get(Measure.LARGEST_RATIO, 0)
        self.events.append(naive_oracle.Paid(at, transaction.cents, recorded))

    def report(self, at):
        """Apply a label that says fraud, of a transaction at that time."""
        self.history.add(int(at.timestamp()), {Measure.FRAUDS: 1})
        self.events.append(naive_oracle.Reported(at))


@pytest.mark.parametrize("entity", [CARD, MERCHANT], ids=["card", "merchant"])
@given(story=STORIES, probes=st.lists(OFFSETS, max_size=5))
@example(story=(BASES[0], [("reported", 0), ("paid", 0, 5, "EUR"), ("paid", 9 * DAY, 5, "EUR")]), probes=[])
@settings(max_examples=120)
def test_every_aggregate_is_what_a_naive_look_gives(entity, story, probes):
    base, steps = story
    told = Told(entity)
    for kind, offset, *of in steps:
        at = base + timedelta(seconds=offset)
        told.pay(at, *of) if kind == "paid" else told.report(at)
    for offset in probes:
        told.read(base + timedelta(seconds=offset))


@pytest.mark.parametrize("entity", [CARD, MERCHANT], ids=["card", "merchant"])
def test_a_hot_entity_is_read_exactly(entity):
    told = Told(entity)
    for number in range(1_500):
        told.pay(BASES[4] + timedelta(seconds=3 * number), 100 + number, check=number % 100 == 0)
    told.report(BASES[4])
    told.read(BASES[4] + timedelta(hours=2))
    told.read(BASES[4] + timedelta(days=8))


@pytest.mark.parametrize("currency", ["EUR", "GBP", "KRW"])
def test_the_largest_amounts_are_added_up_exactly(currency):
    told = Told(CARD)
    for number in range(40):
        told.pay(BASES[0] + timedelta(hours=number), MAX_AMOUNT - number % 3, currency)
    told.pay(BASES[0] + timedelta(days=3), 1, currency)
