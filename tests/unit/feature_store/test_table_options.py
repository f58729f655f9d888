from datetime import timedelta

import pytest

from feature_store.table_options import parse_columns, parse_delay


def test_options_are_read():
    assert parse_columns("card_id=customer_id,merchant_id=terminal_id") == {
        "card_id": "customer_id",
        "merchant_id": "terminal_id",
    }
    assert parse_columns("") == {}
    assert (parse_delay("7d"), parse_delay("36h")) == (timedelta(days=7), timedelta(hours=36))


@pytest.mark.parametrize(
    ("parse", "text"), [(parse_columns, "card_id"), (parse_columns, "=x"), (parse_delay, "7"), (parse_delay, "-1d")]
)
def test_options_that_cannot_be_read_say_how_they_are_written(parse, text):
    with pytest.raises(ValueError, match="expected"):
        parse(text)
