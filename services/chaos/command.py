"""The command `fraud chaos`: seed after seed, until the time or the points are over or a promise is broken."""

import asyncio
import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console

from loadtest.machine import describe_machine
from services.chaos.case import Outcome, plan, run_case
from services.chaos.faults import KINDS
from services.stack.kafka_jars import VERSION
from services.stack.redis_server import find_redis, redis_version

POINTS_OF_A_SEED = len(KINDS)
"""Each kind once, on a stack of its own."""


@dataclass(frozen=True)
class Wish:
    """How much to run. With `seed` that one is run again."""

    minutes: float | None = None
    points: int | None = None
    seed: int | None = None
    cluster: bool = False


def run(wish: Wish, report: Path | None) -> bool:
    """Run kill points and print each; give whether all promises held.

    Raises:
        StackError: Apache Kafka or Redis cannot run here.
    """
    console = Console(highlight=False, soft_wrap=True)
    for noisy in ("aiokafka", "services.stack"):  # which tell of every server that is away: they are meant to be
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    started, outcomes = time.monotonic(), list[Outcome]()

    def told(outcome: Outcome) -> None:
        outcomes.append(outcome)
        verdict = "ok" if not outcome.broken else "BROKEN"
        missed = "" if outcome.struck else " (found nothing to strike)"
        place = f"seed {outcome.seed} point {outcome.number}"
        console.print(f"{place}: {outcome.kind} after {outcome.after}{missed}: {verdict}, {outcome.seconds:.1f} s")
        for text in outcome.broken:
            console.print(f"  {text}")

    for seed, points in _seeds(wish, started):
        asyncio.run(run_case(seed, plan(seed, points), cluster=wish.cluster, told=told))
        if outcomes[-1].broken:
            again = f"fraud chaos --seed {seed}{' --cluster' if wish.cluster else ''}"
            console.print(f"a promise is broken; the same kill points again: {again}")
            break
        if wish.points is not None and len(outcomes) >= wish.points:
            break
    if report is not None:
        _write(report, wish, outcomes, time.monotonic() - started)
    held = not any(outcome.broken for outcome in outcomes)
    console.print(f"{len(outcomes)} kill points, {'every promise held' if held else 'a promise is broken'}")
    return held


def _seeds(wish: Wish, started: float) -> Iterator[tuple[int, int]]:
    """Give seeds, each with its number of kill points."""
    if wish.seed is not None:
        yield wish.seed, POINTS_OF_A_SEED
    elif wish.points is not None:
        for seed in itertools.count(1):
            yield seed, min(POINTS_OF_A_SEED, wish.points - (seed - 1) * POINTS_OF_A_SEED)
    else:
        while time.monotonic() - started < 60 * (wish.minutes or 0):
            yield random.SystemRandom().randrange(1_000_000), POINTS_OF_A_SEED


def _write(report: Path, wish: Wish, outcomes: list[Outcome], seconds: float) -> None:
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "kill_points": len(outcomes),
        "broken": [outcome for outcome in outcomes if outcome.broken],
        "redis": "cluster of three masters" if wish.cluster else "one server",
        "by_kind": dict(sorted(Counter(outcome.kind for outcome in outcomes).items())),
        "found_nothing_to_strike": sum(not outcome.struck for outcome in outcomes),
        "seeds": sorted({outcome.seed for outcome in outcomes}),
        "seconds": round(seconds),
        "machine": describe_machine() | {"redis-server": redis_version(find_redis()), "apache-kafka": VERSION},
    }
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
