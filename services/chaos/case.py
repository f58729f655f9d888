"""One seed: a stack of its own, its kill points one after the other, and the judge after each."""

import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec

from services.chaos.faults import KINDS, Kind, MissedError
from services.chaos.judge import Judge
from services.chaos.traffic import NotAcknowledgedError, Traffic
from services.chaos.world import World, world
from services.kafka import open_producer, open_reader

TRANSACTIONS = 60
"""Sent around each kill point."""


@dataclass(frozen=True, slots=True)
class Point:
    """A kill point: what, and after how many acknowledgements of its round."""

    kind: Kind
    after: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a kill point."""

    seed: int
    number: int
    kind: str
    after: int
    struck: bool
    """Whether the fault met what it was waiting for."""
    seconds: float
    """From the strike until every effect was there."""
    broken: tuple[str, ...]


def plan(seed: int, points: int) -> list[Point]:
    """Choose the kill points of a seed: every kind once before any comes again."""
    rng = random.Random(seed)  # noqa: S311  # chosen to be repeatable
    rounds = range(-(-points // len(KINDS)))
    chosen = [kind for _ in rounds for kind in rng.sample(KINDS, k=len(KINDS))]
    return [Point(kind, rng.randrange(1, TRANSACTIONS // 2)) for kind in chosen[:points]]


async def run_case(
    seed: int, points: Sequence[Point], *, cluster: bool, told: Callable[[Outcome], None]
) -> list[Outcome]:
    """Run the kill points of a seed; ends with the first broken promise.

    Raises:
        StackError: Apache Kafka or Redis cannot run here.
    """
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        async with (
            world(Path(directory), cluster=cluster) as running,
            open_producer(running.settings) as producer,
            open_reader(running.settings) as reader,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http,
        ):
            rng = random.Random(seed)  # noqa: S311  # chosen to be repeatable
            traffic = Traffic(running.apis, http, producer, rng)
            judge = Judge(running, traffic, reader)
            for number, point in enumerate(points, start=1):
                outcome = await _strike(running, traffic, judge, rng, point)
                outcomes.append(msgspec.structs.replace(outcome, seed=seed, number=number))
                told(outcomes[-1])
                if outcome.broken:
                    break
    return outcomes


async def _strike(world: World, traffic: Traffic, judge: Judge, rng: random.Random, point: Point) -> Outcome:
    """Send traffic, strike in its middle, and judge when all of it is acknowledged."""
    at = traffic.acknowledged + point.after
    sending = asyncio.create_task(traffic.send(TRANSACTIONS))
    struck, broken = True, []
    await asyncio.wait({sending, asyncio.ensure_future(traffic.after(at))}, return_when=asyncio.FIRST_COMPLETED)
    started = time.monotonic()
    try:
        await point.kind.strike(world, rng)
    except MissedError:
        struck = False
    try:
        await sending
    except* NotAcknowledgedError as group:
        broken = [str(error) for error in group.exceptions]
    broken += await judge.broken()
    seconds = round(time.monotonic() - started, 2)
    return Outcome(
        seed=0, number=0, kind=point.kind.name, after=point.after, struck=struck, seconds=seconds, broken=tuple(broken)
    )
