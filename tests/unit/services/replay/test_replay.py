import asyncio
import contextlib
from datetime import timedelta
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from logged import NOW as START
from logged import paid, published

from feature_store.features import MERCHANT_DELAY
from feature_store.tables import Row
from services.log import FOLLOWS
from services.replay.replay import Options, Replay, StuckError
from services.topics import DECISIONS, LABELS

LABEL_DELAY = 30
LATER = MERCHANT_DELAY + LABEL_DELAY
"""Seconds after the first event at which one waits for all before it, and for the first one's label."""


class Door:
    """Takes everything."""

    def __init__(self):
        self.came = set()

    async def send(self, transaction):
        self.came.add(transaction.transaction_id)

    async def label(self, label):
        self.came.add(f"label {label.transaction_id}")
        return 0, 0


def row(name, second, *, is_fraud=False):
    return Row(paid(name, card_id=f"c-{name}", event_time=START + timedelta(seconds=second)), is_fraud=is_fraud)


ROWS = (row("first", 0, is_fraud=True), row("close", LABEL_DELAY), row("later", LATER))
EARLY = {"first", "label first", "close"}


def log_brings(replay, row, sequence):
    """Topic decisions has this row's decision, at the offset `sequence`."""
    value = published(row.transaction, sequence)
    replay.watch.record(SimpleNamespace(topic=DECISIONS, partition=0, offset=sequence, value=value))


@contextlib.asynccontextmanager
async def replaying(pace, patience=10.0):
    """A replay of ROWS that has done what it can; gives it and what came to the door."""
    door = Door()
    options = Options(rate=None, label_delay=timedelta(seconds=LABEL_DELAY), pace=pace, patience=patience)
    replay = Replay(door, options, lambda: None)
    begin = SimpleNamespace(topic=DECISIONS, partition=0, offset=0, value=b"", headers=((FOLLOWS, b"-1"),))
    replay.watch.record(begin)
    running = asyncio.create_task(replay.run(ROWS))
    await goes_on()
    yield replay, door.came
    for sequence, each in enumerate(ROWS, 1):
        log_brings(replay, each, sequence)
    replay.watch.reached(TopicPartition(DECISIONS, 0), 10)
    report = await running
    assert report.complete


async def goes_on():
    """Let tasks go on until they wait for something else than each other."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_with_pace_none_nothing_waits():
    async with replaying("none") as (_, came):
        assert came == EARLY | {"later"}


async def test_with_pace_log_an_event_waits_for_the_log():
    async with replaying("log") as (replay, came):
        assert came == EARLY
        log_brings(replay, ROWS[0], 1)
        await goes_on()
        assert came == EARLY
        log_brings(replay, ROWS[1], 2)
        await goes_on()
        assert "later" in came


@pytest.mark.parametrize("first", [DECISIONS, LABELS])
async def test_with_pace_state_an_event_waits_for_the_updater(first):
    async with replaying("state") as (replay, came):
        log_brings(replay, ROWS[0], 1)
        log_brings(replay, ROWS[1], 2)
        for topic in sorted((DECISIONS, LABELS), key=first.__ne__):
            await goes_on()
            assert came == EARLY
            replay.watch.reached(TopicPartition(topic, 0), 3)
        await goes_on()
        assert "later" in came


@pytest.mark.parametrize(("pace", "who"), [("state", "updater"), ("log", "relay")])
async def test_a_replay_that_waits_in_vain_says_who_does_not_move(pace, who):
    replay = Replay(Door(), Options(None, timedelta(days=7), pace, 0.01), lambda: None)
    with pytest.raises(ExceptionGroup) as raised:
        await replay.run(ROWS)
    assert raised.group_contains(StuckError, match=who)
