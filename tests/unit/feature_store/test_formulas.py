import math
import statistics
from datetime import UTC, datetime

import numpy as np
import pytest
from feature_store.histories import Histories

from feature_store.definitions import AGGREGATES, FEATURES, FINGERPRINT, NAMES, STORED, Entity, Op, Tile
from feature_store.formulas import FORMULAS, Aggregates, counted, feature_vector
from feature_store.transaction import MAX_AMOUNT, Transaction

START = datetime(2026, 3, 2, 15, 30, tzinfo=UTC)  # a Monday
EMPTY = Histories()


def transaction(amount, currency="EUR"):
    return Transaction(
        transaction_id="t", card_id="c", merchant_id="m", amount=amount, currency=currency, event_time=START
    )


def after(*amounts):
    """The features of a transaction of 100.00 EUR after others of the same card, the same day."""
    histories = Histories()
    for amount in amounts:
        before = transaction(amount)
        histories.add(Entity.CARD, before, counted(before, histories.read(before)))
    now = transaction(100_00)
    return dict(zip(NAMES, feature_vector(now, histories.read(now)).tolist(), strict=True))


def test_there_are_more_than_twenty_features_each_with_a_formula_and_a_name_of_its_own():
    assert len(FEATURES) >= 20
    assert len(set(NAMES)) == len(NAMES)
    assert {feature.formula for feature in FEATURES} == set(FORMULAS)


def test_every_window_fits_into_the_tiles_that_are_kept():
    for aggregates in AGGREGATES.values():
        for a in aggregates:
            if a.op is not Op.ELAPSED:
                reach = a.window + -(-a.delay // a.tile.seconds) + 1
                assert reach <= a.tile.kept, a


def test_tiles_hold_no_more_than_some_feature_asks_for():
    assert STORED[Entity.MERCHANT][Tile.MINUTE] == ("n",)
    assert STORED[Entity.CARD][Tile.DAY] == ("n", "a", "q", "r", "x", "y", "f")


def test_the_fingerprint_is_stable_between_processes_and_pinned_so_that_a_change_is_noticed():
    """If this fails you changed a feature: train again (`make train`) and put the new fingerprint here."""
    assert FINGERPRINT == "f31347382d0b0708"


def test_a_first_transaction_knows_its_own_amount_and_time_and_nothing_else():
    values = after()
    known = {name: value for name, value in values.items() if not math.isnan(value) and value != 0.0}
    assert known == {"amount": 100.0, "hour_of_day": 15.5}
    assert math.isnan(values["card_mean_30d"])
    assert math.isnan(values["card_seconds_since_last"])


def test_the_amount_is_compared_with_the_cards_own_mean_and_spread():
    values = after(10_00, 20_00, 30_00)
    assert values["card_mean_30d"] == 20.0
    assert values["amount_over_card_mean_30d"] == 5.0
    assert values["amount_deviations_30d"] == np.float32(80 / statistics.pstdev([10, 20, 30]))


def test_high_ratios_are_counted_as_they_were_when_they_happened():
    values = after(10_00, 40_00, 10_00)  # 40 is four times the mean of its time
    assert values["card_largest_ratio_7d"] == 4.0
    assert values["card_high_ratios_7d"] == 1.0


def test_the_spread_is_exact_for_the_largest_amounts():
    values = after(MAX_AMOUNT, MAX_AMOUNT - 2)
    mean = MAX_AMOUNT - 1
    assert values["amount_deviations_30d"] == np.float32((100_00 - mean) / 1)


def test_equal_amounts_have_no_spread_to_compare_with():
    assert math.isnan(after(10_00, 10_00)["amount_deviations_30d"])


@pytest.mark.parametrize(("currency", "expected"), [("EUR", 12.5), ("JPY", 1250.0), ("KWD", 1.25)])
def test_amounts_are_in_currency_units_whatever_the_minor_unit(currency, expected):
    now = transaction(1250, currency)
    values = feature_vector(now, EMPTY.read(now))
    assert values[NAMES.index("amount")] == expected


def test_a_row_is_float32_in_the_order_of_the_features():
    now = transaction(1)
    values = feature_vector(now, EMPTY.read(now))
    assert (values.dtype, values.shape) == (np.float32, (len(FEATURES),))


def test_reading_gives_one_integer_an_aggregate():
    read = EMPTY.read(transaction(1))
    assert read == Aggregates(
        tuple(-1 if a.op is Op.ELAPSED else 0 for a in AGGREGATES[Entity.CARD]),
        tuple(-1 if a.op in {Op.SINCE, Op.RUN_AGE} else 0 for a in AGGREGATES[Entity.MERCHANT]),
    )
