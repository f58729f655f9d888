import pytest

from services.replay.options import parse_rate


def test_a_rate_is_a_number_or_max():
    assert (parse_rate("max"), parse_rate("2.5")) == (None, 2.5)


@pytest.mark.parametrize("text", ["0", "-1", "fast", "inf", "nan"])
def test_a_rate_that_cannot_be_kept_says_how_one_is_written(text):
    with pytest.raises(ValueError, match="expected"):
        parse_rate(text)
