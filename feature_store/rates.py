"""Amounts of different currencies in one unit, euro cents, so that they can be added up and compared.

The rates are a yardstick, not a price: fixed, dated, part of the features' fingerprint. A window that mixes currencies
then means the same today, in a replay and in training (decision record 11). To add a currency, add its rate: features
change with it, so the model is trained again and state is rebuilt.
"""

from feature_store.currency import EXPONENT

VERSION = "ECB 2026-10-30"
"""Euro foreign exchange reference rates of the European Central Bank, in units of the currency for one euro."""
_QUOTED = """
EUR 1        USD 1.1172   JPY 175.68   CZK 24.353   DKK 7.4735   GBP 0.8338   HUF 366.33   PLN 4.4038   RON 5.3447
SEK 10.978   CHF 0.9194   ISK 136      NOK 10.312   TRY 55.8015  AUD 1.5904   BRL 6.0692   CAD 1.5606   CNY 7.4326
HKD 8.7652   IDR 20275.17 ILS 3.495    INR 106.084  KRW 1491.76  MXN 21.1237  MYR 4.5325   NZD 1.9823   PHP 71.143
SGD 1.4282   THB 37.683   ZAR 18.6455
"""
RATES = dict(zip(_QUOTED.split()[::2], _QUOTED.split()[1::2], strict=True))
_CENTS, _PRECISION = 100, 10**4
"""Rates have at most four decimals."""


def cents(amount: int, currency: str) -> int:
    """Convert minor units of `currency` to euro cents, rounded half up.

    >>> cents(1250, "EUR"), cents(1250, "JPY"), cents(1250, "USD")
    (1250, 712, 1119)

    Raises:
        KeyError: the currency has no rate.
    """
    minor_units, cents_of_them = _FACTORS[currency]
    return (2 * amount * cents_of_them + minor_units) // (2 * minor_units)


def _factor(currency: str, rate: str) -> tuple[int, int]:
    """Give how many minor units make how many cents, as integers."""
    whole, _, decimals = rate.partition(".")
    scaled = int(whole) * _PRECISION + int(decimals.ljust(4, "0") or 0)
    return scaled * 10 ** EXPONENT[currency], _CENTS * _PRECISION


_FACTORS = {currency: _factor(currency, rate) for currency, rate in RATES.items()}
