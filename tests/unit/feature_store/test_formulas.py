"""What a row says of a transaction, after others of the same card; and each formula where it has no answer."""

import math
import statistics
from datetime import UTC, datetime

import numpy as np
import pytest

from feature_store.definitions import Op
from feature_store.features import CARD, ENTITIES, FEATURES, SHIPPED
from feature_store.formulas import FORMULAS, RATIO_CAP, ratio_to_mean
from feature_store.history import History
from feature_store.transaction import MAX_AMOUNT, Transaction

START = datetime(2026, 3, 2, 15, 30, tzinfo=UTC)  # a Monday


def paid(amount, currency="EUR", at=START):
    return Transaction(
        transaction_id="t", card_id="c", merchant_id="m", amount=amount, currency=currency, event_time=at
    )


def after(*earlier, now=None):
    """The features of 100.00 EUR, or of `now`, after others of the same card at the same second."""
    card = History(SHIPPED.plans[CARD])
    for transaction in earlier:
        card.count(transaction.second, SHIPPED.counted(transaction, card.read(transaction.second)))
    now = now or paid(100_00)
    unknown = [History(SHIPPED.plans[entity]).read(now.second) for entity in ENTITIES[1:]]
    row = SHIPPED.row(now, [card.read(now.second), *unknown])
    return dict(zip(SHIPPED.names, row.tolist(), strict=True))


def test_every_formula_is_used_and_every_name_is_one_features():
    assert len(FEATURES) >= 20
    assert len(set(SHIPPED.names)) == len(FEATURES)
    assert {feature.formula for feature in FEATURES} == set(FORMULAS)


def test_a_row_is_float32_in_the_order_of_the_features():
    reads = [History(plan).read(0) for plan in SHIPPED.plans.values()]
    row = SHIPPED.row(paid(1), reads)
    assert (row.dtype, row.shape) == (np.float32, (len(FEATURES),))
    assert row[SHIPPED.names.index("hour_of_day")] == 15.5


def test_of_an_entity_nothing_is_known_of_all_is_0_or_never():
    never = {Op.ELAPSED, Op.SINCE, Op.RUN_AGE}
    for plan in SHIPPED.plans.values():
        assert History(plan).read(paid(1).second) == [-1 if a.op in never else 0 for a in plan.aggregates]


def test_a_first_transaction_knows_its_amount_and_time_only():
    values = after()
    known = {name: value for name, value in values.items() if not math.isnan(value) and value != 0.0}
    assert known == {"amount": 100.0, "hour_of_day": 15.5}
    assert math.isnan(values["card_mean_30d"])
    assert math.isnan(values["card_seconds_since_last"])


def test_the_amount_is_compared_with_the_cards_mean_and_spread():
    values = after(paid(10_00), paid(20_00), paid(30_00))
    assert values["card_mean_30d"] == 20.0
    assert values["amount_over_card_mean_30d"] == 5.0
    assert values["amount_deviations_30d"] == np.float32(80 / statistics.pstdev([10, 20, 30]))


def test_high_ratios_are_counted_as_they_were_when_they_happened():
    values = after(paid(10_00), paid(40_00), paid(10_00))  # 40 is four times the mean of its time
    assert values["card_largest_ratio_7d"] == 4.0
    assert values["card_high_ratios_7d"] == 1.0


def test_the_spread_is_exact_for_the_largest_amounts():
    values = after(paid(MAX_AMOUNT), paid(MAX_AMOUNT - 2))
    assert values["amount_deviations_30d"] == np.float32(100_00 - (MAX_AMOUNT - 1))


def test_equal_amounts_have_no_spread_to_compare_with():
    assert math.isnan(after(paid(10_00), paid(10_00))["amount_deviations_30d"])


def test_amounts_of_nothing_have_no_mean_to_compare_with():
    values = after(paid(0), paid(0))
    assert (values["card_mean_30d"], values["card_largest_ratio_7d"]) == (0.0, 0.0)
    assert math.isnan(values["amount_over_card_mean_30d"])


@pytest.mark.parametrize(("currency", "expected"), [("EUR", 12.5), ("JPY", 7.12), ("USD", 11.19), ("ISK", 9.19)])
def test_an_amount_is_in_euros_whatever_the_currency(currency, expected):
    assert after(now=paid(1_250, currency))["amount"] == np.float32(expected)


def test_a_mean_of_mixed_currencies_is_in_euros():
    values = after(paid(10_00), paid(1_757, "JPY"), paid(11_17, "USD"))  # ten euros each
    assert (values["card_mean_30d"], values["amount_over_card_mean_30d"]) == (10.0, 10.0)


@pytest.mark.parametrize(("day", "expected"), [(2, 0.0), (3, 1.0), (7, 5.0), (8, 6.0)])
def test_the_week_begins_on_monday(day, expected):
    assert after(now=paid(1, at=START.replace(day=day)))["day_of_week"] == expected


@pytest.mark.parametrize(
    ("amount", "count", "total", "ratio"),
    [(250, 1, 100, 2_500), (1, 3, 7, 428), (5, 0, 0, 0), (5, 2, 0, 0), (10**10, 10**6, 1, RATIO_CAP)],
)
def test_a_ratio_is_whole_thousandths_with_an_upper_end(amount, count, total, ratio):
    assert ratio_to_mean(amount, count, total) == ratio


@pytest.mark.parametrize(
    ("formula", "reads", "expected"),
    [
        ("share", (1, 4), 0.25),
        ("value", (7,), 7.0),
        ("mean", (4, 1_000), 2.5),
        ("over_mean", (4, 1_000), 0.4),
        ("deviations", (2, 400, 100_000), -1.0),
        ("deviations", (2, 400, 80_000), math.nan),
        ("share", (0, 0), math.nan),
        ("since", (0,), 0.0),
        ("since", (-1,), math.nan),
        ("mean", (0, 0), math.nan),
        ("money", (1_999,), 19.99),
        ("thousandths", (2_500,), 2.5),
        ("over_mean", (3, 0), math.nan),
    ],
)
def test_a_formula_by_hand_also_where_it_has_no_answer(formula, reads, expected):
    assert FORMULAS[formula](paid(100), *reads) == pytest.approx(expected, nan_ok=True)
