"""What could be a card number is found however it is written, and an identifier is not taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.card_number import contains_card_number

DIGITS = st.text("0123456789", min_size=12, max_size=18)
AROUND = st.sampled_from(["", "x", "card ", "PAN:", "é"])
SEPARATORS = st.sampled_from([" ", ".", "_", ":", "-"])


def with_check_digit(digits, *, off=0):
    """Complete a number by Luhn's digit, or by one that is `off`."""
    doubled = [int(digit) * 2 for digit in digits[::-2]]
    total = sum(value // 10 + value % 10 for value in doubled) + sum(map(int, digits[-2::-2]))
    return digits + str((-total + off) % 10)


@given(digits=DIGITS, before=AROUND, after=AROUND)
def test_a_number_of_13_to_19_digits_is_found(digits, before, after):
    assert contains_card_number(before + with_check_digit(digits) + after)


@given(digits=DIGITS, off=st.integers(1, 9))
def test_a_number_whose_check_digit_is_wrong_is_none(digits, off):
    assert not contains_card_number(with_check_digit(digits, off=off))


@given(digits=DIGITS, before=AROUND, separator=SEPARATORS)
def test_a_number_in_groups_as_on_a_card_is_found(digits, before, separator):
    number = with_check_digit(digits)
    groups = [number[:4], number[4:8], number[8:12], number[12:]]
    assert contains_card_number(before + separator.join(groups))
    if len(number) in {14, 15}:
        assert contains_card_number(before + separator.join([number[:4], number[4:10], number[10:]]))


@pytest.mark.parametrize(
    "text",
    ["", "m1", "4111-1111", "411111111111", "4" * 20, "41111111-1111-1111", "550e8400-4111-4111-8111-111111111111"],
)
def test_an_identifier_is_not_taken_for_a_card_number(text):
    assert not contains_card_number(text)
