"""`make bench`: measures a stack of its own, prints the table, writes the file, and fails where a limit is missed."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from loadtest.bench import load, log, report, state
from loadtest.bench.report import Figure
from loadtest.bench.stack import BenchError, Stack, running

Phase = tuple[str, Callable[[Stack, Path], list[Figure]]]
PHASES: tuple[Phase, ...] = (
    ("reading state", lambda stack, _: state.reading(stack)),
    ("saturation", lambda stack, _: load.saturation(stack, 6)),
    ("against an empty endpoint", lambda stack, _: load.against_nothing(stack, 5)),
    ("open loop, 100/s", lambda stack, _: load.open_loop(stack, 100, 30, p99=8, max=60)),
    ("open loop, 1,000/s", lambda stack, _: load.open_loop(stack, 1_000, 60, p99=50)),
    ("replay, no pace", lambda stack, folder: [log.replay(stack, folder, "none", 40_000, 1_500)]),
    ("replay, pace of state", lambda stack, folder: [log.replay(stack, folder, "state", 40_000, 800)]),
    ("recovery after a flush", lambda stack, _: log.recovery(stack, 20_000)),
    ("training", lambda _, __: [log.training(20_000)]),
)


def main(
    out: Annotated[Path, typer.Option(help="where to write the figures")] = Path("var/bench.json"),
    only: Annotated[str, typer.Option(help="only phases whose name has this in it")] = "",
) -> None:
    """Measure what a decision costs. Exit 1 where a ratio, a count or CPU a decision misses its limit."""
    console, figures = Console(stderr=True), list[Figure]()
    chosen = [phase for phase in PHASES if only in phase[0]]
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    try:
        with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
            task = bar.add_task("starting the stack", total=len(chosen))
            with running() as stack, tempfile.TemporaryDirectory() as folder:
                for name, measure in chosen:
                    bar.update(task, description=name)
                    figures += measure(stack, Path(folder))
                    bar.advance(task)
    except BenchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    Console().print(report.table(figures))
    report.write(figures, out)
    raise typer.Exit(1 if report.missed(figures) else 0)


if __name__ == "__main__":
    typer.run(main)
