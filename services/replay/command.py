"""The command behind `fraud replay`: files, doors and the terminal around the replay."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import aiohttp
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from feature_store.tables import Table
from services.kafka import open_producer
from services.replay.doors import Door, HttpDoor, KafkaDoor
from services.replay.replay import Options, Replay
from services.replay.report import Report
from services.replay.watch import watching
from services.settings import Settings

DoorName = Literal["kafka", "http"]
ANSWER_SECONDS = 5.0
"""How long a replay waits for an answer. Live callers would have given up; a replay wants to know."""


async def replay_table(settings: Settings, table: Table, door: DoorName, url: str, options: Options) -> Report:
    """Replay a table with a progress bar on standard error."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    )
    with bar:
        task = bar.add_task("replay", total=len(table))
        async with _open_door(settings, door, url) as opened:
            replay = Replay(opened, options, lambda: bar.advance(task))
            bar.update(task, description="reading topic decisions")
            async with watching(settings, replay.watch):
                bar.update(task, description="replay")
                return await replay.run(table)


@contextlib.asynccontextmanager
async def _open_door(settings: Settings, door: DoorName, url: str) -> AsyncIterator[Door]:
    if door == "kafka":
        async with open_producer(settings) as producer:
            yield KafkaDoor(producer)
    else:
        patience = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(url, timeout=patience) as session:
            yield HttpDoor(session)


def print_report(report: Report, path: Path | None) -> None:
    """Print the table, and write the report as JSON if a path is given."""
    Console().print(report.table())
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")


def run(settings: Settings, table: Table, door: DoorName, url: str, options: Options) -> Report:
    """Run the replay in an event loop of its own.

    Raises:
        StuckError, RefusedError, TableError, OSError: what ended it, without the groups its tasks wrap around it.
    """
    try:
        return asyncio.run(replay_table(settings, table, door, url, options))
    except BaseExceptionGroup as group:
        cause: BaseException = group
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        raise cause from None
