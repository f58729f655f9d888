from datetime import timedelta

import pytest

from feature_store.table_options import parse_columns, parse_delay
from services.replay.options import parse_rate


def test_options_are_read():
    assert parse_columns("card_id=customer_id,merchant_id=terminal_id") == {
        "card_id": "customer_id",
        "merchant_id": "terminal_id",
    }
    assert parse_columns("") == {}
    assert (parse_delay("7d"), parse_delay("36h")) == (timedelta(days=7), timedelta(hours=36))
    assert (parse_rate("max"), parse_rate("2.5")) == (None, 2.5)


@pytest.mark.parametrize(
    ("parse", "text"),
    [(parse_columns, "card_id"), (parse_columns, "=x"), (parse_delay, "7"), (parse_delay, "-1d"), (parse_rate, "0"),
     (parse_rate, "fast"), (parse_rate, "inf"), (parse_rate, "nan")],
)  # fmt: skip
def test_options_that_cannot_be_read_say_how_they_are_written(parse, text):
    with pytest.raises(ValueError, match="expected"):
        parse(text)
