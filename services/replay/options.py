"""How the rate of a replay is written on the command line."""


def parse_rate(text: str) -> float | None:
    """Read transactions a second, or `max` (None).

    Raises:
        ValueError: it is neither, or not above 0.
    """
    if text == "max":
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise ValueError(f"--rate: expected transactions a second or max, got {text}")
    return rate
