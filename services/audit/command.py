"""The commands `fraud rebuild` and `fraud verify`: the terminal around them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from aiokafka.errors import KafkaTimeoutError
from redis import Redis, RedisCluster
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from feature_store.keys import Keys
from feature_store.tables import write_table
from model.scorer import load_scorer
from services.audit.export import rows
from services.audit.state import actual, differences, expected
from services.audit.verify import Verdict, verify
from services.audit.whole_log import Log, whole_log
from services.decision.policy import Policy
from services.kafka import open_reader
from services.rebuild import rebuild
from services.recovery import Advance
from services.settings import Settings

SHOWN = 20
"""Most differences that are printed; the report has all."""
console = Console(stderr=True)


@contextlib.asynccontextmanager
async def _bar(what: str) -> AsyncIterator[Advance]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def run_rebuild(settings: Settings) -> None:
    """Rebuild, with a progress bar."""

    async def run() -> int:
        async with _bar("applying the log") as advance:
            return await rebuild(settings, advance)

    forgotten = asyncio.run(run())
    console.print(f"rebuilt from the log, after forgetting {forgotten} keys: decisions go on")


def run_verify(settings: Settings, last: int | None, *, state: bool, report: Path | None) -> bool:
    """Verify decisions, and with `state` every key in Redis; print a table and give whether all is as it must be.

    Raises:
        model.scorer.ModelRefusedError: the model at hand cannot be used.
        KafkaError, redis.exceptions.RedisError: the log, or Redis, cannot be reached.
    """
    scorer = load_scorer(settings.model_dir)
    policy = Policy(review=scorer.manifest.thresholds.review, decline=scorer.manifest.thresholds.decline)
    log = asyncio.run(_read(settings))
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("recomputing", total=min(last or len(log), len(log)))
        verdict = verify(log, scorer, policy, last=last, advance=lambda: progress.advance(task))
    wrong = _compare(settings, log) if state else None
    Console().print(_table(log, verdict, wrong))
    if report is not None:
        from loadtest.machine import describe_machine  # noqa: PLC0415  # not in an image that serves

        report.parent.mkdir(parents=True, exist_ok=True)
        found = {"date": datetime.now(UTC).date().isoformat(), "decisions": len(log), **asdict(verdict)}
        found |= ({} if wrong is None else {"keys": wrong}) | {"machine": describe_machine()}
        report.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    return verdict.holds and not wrong


def run_export(settings: Settings, file: Path) -> int:
    """Write the decisions of the log as a table; give how many there are.

    Raises:
        KafkaError: the log cannot be reached.
        OSError, feature_store.columns.MissingExtraError: the file cannot be written.
    """
    log = asyncio.run(_read(settings))
    write_table(file, rows(log))
    return len(log)


async def _read(settings: Settings) -> Log:
    try:
        return await _whole_log(settings)
    except TimeoutError as error:  # said as what it is; Redis has other errors
        raise KafkaTimeoutError(str(error)) from None


async def _whole_log(settings: Settings) -> Log:
    async with _bar("reading the log") as advance, open_reader(settings) as reader:
        return await whole_log(reader, settings.partitions, advance)


def _compare(settings: Settings, log: Log) -> list[str]:
    kind = RedisCluster if settings.redis_cluster else Redis
    with contextlib.closing(kind.from_url(settings.redis_url)) as client:
        keys = Keys(settings.partitions)
        return differences(expected(log, keys), actual(client))


def _table(log: Log, verdict: Verdict, wrong: list[str] | None) -> Table:
    table = Table(title="the log, recomputed", show_header=False)
    table.add_row("decisions in the log", str(len(log)))
    table.add_row("repeated, of an epoch that was over, or none", str(log.without_effect))
    table.add_row("verified: features, score, action", str(verdict.verified))
    table.add_row("features only (another model or policy)", str(verdict.features_only))
    table.add_row("not recomputed (other features)", str(verdict.other_features))
    table.add_row("missing sequence numbers", str(len(verdict.missing)))
    table.add_row("differences", str(len(verdict.differences)))
    for each in verdict.differences[:SHOWN]:
        place = f"{each.partition}/{each.sequence} {each.what}"
        table.add_row(f"  {place}", f"recorded {each.recorded}, recomputed {each.recomputed}")
    if wrong is not None:
        table.add_row("keys of state that differ", str(len(wrong)))
        for text in wrong[:SHOWN]:
            table.add_row("", text)
    return table
