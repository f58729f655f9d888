"""Finds what looks like a card number, so that none is ever accepted, stored or logged (PCI DSS 4.0.1, 3.5.1)."""

import re

_SUSPECT = re.compile(r"\d{4}[ ._:-]?\d{4}")
"""What every form has: most texts do not, and need no closer look."""
_RUN = re.compile(r"(?<!\d)\d{13,19}(?!\d)")
# As printed on cards: 4-4-4-1..7, or 4-6-4..5. More groups after it mean an identifier such as a UUID.
_GROUPED = re.compile(r"(?<!\d)\d{4}([ ._:-])(?:\d{4}\1\d{4}\1\d{1,7}|\d{6}\1\d{4,5})(?!-?[^\W_])")


def contains_card_number(text: str) -> bool:
    """Tell whether `text` holds 13 to 19 digits, plain or grouped as on a card, that pass the Luhn check.

    >>> contains_card_number("card 4111 1111 1111 1111"), contains_card_number("4111111111111112")
    (True, False)
    """
    if not _SUSPECT.search(text):
        return False
    return any(_passes_luhn(re.sub(r"\D", "", match[0])) for form in (_RUN, _GROUPED) for match in form.finditer(text))


def _passes_luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: every second digit from the right is doubled, digits summed, modulo 10."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + position % 2)
        total += value - 9 if value > 9 else value  # noqa: PLR2004 - the digits of 10..18 sum to value - 9
    return total % 10 == 0
