"""How the columns of a file and a delay are written on a command line, for all commands that read tables."""

import re
from datetime import timedelta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_columns(text: str) -> dict[str, str]:
    """Read `card_id=customer_id,merchant_id=terminal_id`.

    Raises:
        ValueError: a part is not `field=column`.
    """
    pairs = [part.partition("=") for part in text.split(",") if part]
    wrong = [field + sign + column for field, sign, column in pairs if not (field and column)]
    if wrong:
        raise ValueError(f"--columns: expected field=column, got {', '.join(wrong)}")
    return {field.strip(): column.strip() for field, _, column in pairs}


def parse_delay(text: str) -> timedelta:
    """Read `7d`, `36h`, `90m` or `30s`.

    Raises:
        ValueError: it is none of these.
    """
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None:
        raise ValueError(f"--label-delay: expected a number and s, m, h or d, as in 7d; got {text}")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
