import asyncio

import pytest

from feature_store.definitions import MERCHANT_DELAY
from services.replay.options import parse_columns, parse_delay, parse_rate
from services.replay.pace import Pace


def test_an_event_waits_only_for_events_older_than_the_merchant_delay():
    pace = Pace()
    pace.sent("a", 1_000)
    assert not pace.holds(1_000 + MERCHANT_DELAY - 1)
    assert pace.holds(1_000 + MERCHANT_DELAY)
    pace.settled("a")
    assert not pace.holds(1_000_000)


async def test_waiting_ends_when_the_oldest_is_settled_and_not_before():
    pace = Pace()
    pace.sent("a", 0)
    pace.sent("b", 1)
    waiting = asyncio.create_task(pace.wait(MERCHANT_DELAY, patience=5))
    pace.settled("b")
    await asyncio.sleep(0)
    assert not waiting.done()
    pace.settled("a")
    await waiting


async def test_waiting_gives_up_when_nothing_moves():
    pace = Pace()
    pace.sent("a", 0)
    with pytest.raises(TimeoutError):
        await pace.wait(MERCHANT_DELAY, patience=0.01)


def test_options_are_read():
    assert parse_columns("card_id=customer_id,merchant_id=terminal_id") == {
        "card_id": "customer_id",
        "merchant_id": "terminal_id",
    }
    assert parse_delay("36h").total_seconds() == 36 * 3_600
    assert (parse_rate("max"), parse_rate("2.5")) == (None, 2.5)


@pytest.mark.parametrize(
    ("parse", "text"),
    [(parse_columns, "card_id"), (parse_columns, "=x"), (parse_delay, "7"), (parse_delay, "-1d"), (parse_rate, "0"),
     (parse_rate, "fast"), (parse_rate, "inf"), (parse_rate, "nan")],
)  # fmt: skip
def test_options_that_cannot_be_read_say_how_they_are_written(parse, text):
    with pytest.raises(ValueError, match="expected"):
        parse(text)
