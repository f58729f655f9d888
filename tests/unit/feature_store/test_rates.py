"""Amounts of all currencies become euro cents, exactly as the rates and ISO 4217 say, and in integers only."""

import re
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.currency import EXPONENT
from feature_store.rates import RATES, VERSION, cents
from feature_store.transaction import MAX_AMOUNT

AMOUNTS = st.one_of(st.integers(0, 2_000), st.integers(0, MAX_AMOUNT), st.just(MAX_AMOUNT))


def exact(amount, currency):
    """The same in decimal arithmetic: units of the currency, euros, cents, rounded once."""
    units = Decimal(amount).scaleb(-EXPONENT[currency])
    return int((units * 100 / Decimal(RATES[currency])).quantize(Decimal(1), rounding=ROUND_HALF_UP))


@given(amount=AMOUNTS, currency=st.sampled_from(sorted(RATES)))
def test_cents_are_what_decimal_arithmetic_gives(amount, currency):
    assert cents(amount, currency) == exact(amount, currency)


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [
        (1_250, "EUR", 1_250),
        (1_250, "JPY", 712),  # 1,250 yen, whose minor unit is the yen
        (1_250, "USD", 1_119),  # 11.1886 euros
        (100, "ISK", 74),  # 73.53 cents
        (68, "ISK", 50),  # exactly a half of a euro
        (204, "ISK", 150),
        (17, "ISK", 13),  # 12.5 cents, rounded up
        (2_027_517, "IDR", 100),
        (0, "GBP", 0),
        (1, "IDR", 0),
    ],
)
def test_amounts_by_hand(amount, currency, expected):
    assert cents(amount, currency) == expected


@given(amount=AMOUNTS, more=st.integers(0, 1_000), currency=st.sampled_from(sorted(RATES)))
def test_more_money_is_never_fewer_cents(amount, more, currency):
    assert cents(amount, currency) <= cents(amount + more, currency)


@pytest.mark.parametrize("currency", ["BHD", "XXX", "eur", ""])
def test_a_currency_without_a_rate_has_no_cents(currency):
    with pytest.raises(KeyError):
        cents(1, currency)


def test_a_rate_is_of_a_known_currency_to_four_decimals():
    assert RATES.keys() <= EXPONENT.keys()
    assert len(RATES) == 30
    assert RATES["EUR"] == "1"
    assert all(re.fullmatch(r"\d+(\.\d{1,4})?", rate) and float(rate) > 0 for rate in RATES.values())


def test_squares_of_the_largest_amounts_fit_into_a_tile():
    """A tile holds sums of squares up to 2**128 - 1."""
    largest = max(cents(MAX_AMOUNT, currency) for currency in RATES)
    assert 10**17 * largest**2 < 2**128


def test_the_rates_are_dated():
    assert re.fullmatch(r"ECB \d{4}-\d{2}-\d{2}", VERSION)
