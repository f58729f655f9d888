"""The console script `fraud`: one command a process, and the tools around them.

Commands import what they run when they run, so that serving needs no package of a tool.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from pydantic import ValidationError

from services.process import Process, serve, start_logging
from services.settings import Settings

app = typer.Typer(
    help="Real-time fraud detection: card transactions in over HTTP and Kafka, decisions out, each exactly once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Open = Callable[[Settings], AbstractAsyncContextManager[Process]]


def main() -> None:
    """Run the command line."""
    app()


def _settings() -> Settings:
    try:
        settings = Settings()
    except ValidationError as error:
        for wrong in error.errors():
            name = "_".join(str(part) for part in wrong["loc"]).upper()
            typer.echo(f"error: FRAUD_{name}: {wrong['msg']}", err=True)
        raise typer.Exit(2) from None
    start_logging(settings.log_level)
    return settings


def _run(opened: Open) -> None:
    """Run a process until it is told to stop. What the operator must mend is one line and no traceback."""
    from feature_store.layout import LayoutError
    from model.scorer import ModelRefusedError
    from services.decision.record import RecordVersionError

    settings = _settings()

    async def run() -> None:
        async with opened(settings) as process:
            await serve(process)

    try:
        uvloop.run(run())
    except ModelRefusedError as error:
        typer.echo(f"error: model refused: {error}", err=True)
        raise typer.Exit(1) from None
    except (LayoutError, RecordVersionError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def up() -> None:
    """Start everything here: Redis, a Kafka broker and the four processes, until Ctrl-C."""
    from services.stack.up import up as run_up

    raise typer.Exit(asyncio.run(run_up(_settings())))


@app.command()
def api() -> None:
    """Run the HTTP door."""
    from services.api.process import open_api

    _run(open_api)


@app.command()
def worker() -> None:
    """Run the Kafka door: topic transactions."""
    from services.worker import open_worker

    _run(open_worker)


@app.command()
def relay() -> None:
    """Publish decisions from the outbox to topic decisions."""
    from services.relay import open_relay

    _run(open_relay)


@app.command()
def updater() -> None:
    """Apply topic decisions to the entities that follow it, and topic labels to those they name."""
    from services.updater import open_updater

    _run(open_updater)


@app.command()
def topics() -> None:
    """Create the topics that are missing, with FRAUD_PARTITIONS partitions, and check the others."""
    from services.topics import PartitionCountError, ensure_topics

    settings = _settings()
    try:
        uvloop.run(
            ensure_topics(settings.kafka_bootstrap, settings.partitions, patience=settings.kafka_timeout_seconds)
        )
    except (PartitionCountError, TimeoutError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def schemas() -> None:
    """Write the JSON Schemas of topics and API to services/schemas; refuse a change that breaks compatibility."""
    from services.schema import IncompatibleError, write_schemas

    try:
        changed = write_schemas()
    except IncompatibleError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo("\n".join(f"wrote {path.name}" for path in changed) or "nothing changed")


class Door(StrEnum):
    """The doors a replay can use."""

    KAFKA = "kafka"
    HTTP = "http"


class Pace(StrEnum):
    """Where older events have to be before a replay sends an event."""

    STATE = "state"
    LOG = "log"
    NONE = "none"


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="CSV or parquet file of transactions", exists=True, dir_okay=False)],
    door: Annotated[Door, typer.Option(help="way in")] = Door.HTTP,
    rate: Annotated[str, typer.Option(help="transactions a second, or max")] = "max",
    start: Annotated[datetime | None, typer.Option("--from", help="leave out what happened before")] = None,
    end: Annotated[datetime | None, typer.Option("--to", help="leave out what happened then or later")] = None,
    columns: Annotated[str, typer.Option(help="card_id=customer_id,...: our field = the file's column")] = "",
    minor_units: Annotated[bool, typer.Option("--minor-units", help="amount is in minor units")] = False,
    currency: Annotated[str, typer.Option(help="currency of rows that name none")] = "EUR",
    label_delay: Annotated[str, typer.Option(help="label frauds so long after them, in event time")] = "7d",
    pace: Annotated[
        Pace, typer.Option(help="hold back events until older ones are in merchant state, or only in the log; or never")
    ] = Pace.STATE,
    patience: Annotated[float, typer.Option(help="give up after so many seconds in which nothing moved")] = 60.0,
    url: Annotated[str, typer.Option(help="the API, for --door http")] = "",
    report: Annotated[Path | None, typer.Option(help="also write the report here, as JSON")] = None,
) -> None:
    """Stream a file of transactions into a door and wait until each is decided. Exit 1 if one was not, exactly once."""
    from aiokafka.errors import KafkaError

    from feature_store.columns import MissingExtraError, TableError
    from feature_store.table_options import parse_columns, parse_delay
    from feature_store.tables import read_table
    from services.replay import command
    from services.replay.doors import RefusedError
    from services.replay.options import parse_rate
    from services.replay.replay import Options, StuckError

    settings = _settings()
    try:
        table = read_table(
            file, columns=parse_columns(columns), minor_units=minor_units, currency=currency, start=start, end=end
        )
        options = Options(parse_rate(rate), parse_delay(label_delay), pace.value, patience)
        address = url or f"http://{settings.api_host}:{settings.api_port}"
        result = command.run(settings, table, door.value, address, options)
    except KafkaError as error:
        typer.echo(f"error: Kafka at {settings.kafka_bootstrap} (FRAUD_KAFKA_BOOTSTRAP): {error}", err=True)
        raise typer.Exit(1) from None
    except (TableError, MissingExtraError, RefusedError, StuckError, ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    command.print_report(result, report)
    raise typer.Exit(0 if result.complete else 1)


@app.command()
def rebuild() -> None:
    """Forget all state in Redis and make it again from the log. Decisions wait meanwhile; nothing is lost."""
    from aiokafka.errors import KafkaError

    from feature_store.redis_client import UNAVAILABLE
    from services.audit.command import run_rebuild
    from services.decision.record import RecordVersionError
    from services.rebuild import BusyError

    settings = _settings()
    try:
        run_rebuild(settings)
    except KafkaError as error:
        typer.echo(f"error: Kafka at {settings.kafka_bootstrap} (FRAUD_KAFKA_BOOTSTRAP): {error}", err=True)
        raise typer.Exit(1) from None
    except (BusyError, RecordVersionError, *UNAVAILABLE) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def verify(
    last: Annotated[int | None, typer.Option(help="only the last so many decisions", min=1)] = None,
    state: Annotated[bool, typer.Option("--state", help="also compare every key in Redis; when traffic rests")] = False,
    report: Annotated[Path | None, typer.Option(help="also write the result here, as JSON")] = None,
) -> None:
    """Recompute decisions from the log: features, score, action. Exit 1 if one is not what its record says."""
    from aiokafka.errors import KafkaError

    from feature_store.redis_client import UNAVAILABLE
    from model.scorer import ModelRefusedError
    from services.audit.command import run_verify
    from services.decision.record import RecordVersionError

    settings = _settings()
    try:
        holds = run_verify(settings, last, state=state, report=report)
    except KafkaError as error:
        typer.echo(f"error: Kafka at {settings.kafka_bootstrap} (FRAUD_KAFKA_BOOTSTRAP): {error}", err=True)
        raise typer.Exit(1) from None
    except (ModelRefusedError, RecordVersionError, *UNAVAILABLE) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(0 if holds else 1)


@app.command()
def export(file: Annotated[Path, typer.Argument(help="CSV or parquet file to write", dir_okay=False)]) -> None:
    """Write the decisions of the log as a table, in the order they were made: `python -m model.train FILE` reads it."""
    from aiokafka.errors import KafkaError

    from feature_store.columns import MissingExtraError
    from services.audit.command import run_export
    from services.decision.record import RecordVersionError

    settings = _settings()
    try:
        count = run_export(settings, file)
    except KafkaError as error:
        typer.echo(f"error: Kafka at {settings.kafka_bootstrap} (FRAUD_KAFKA_BOOTSTRAP): {error}", err=True)
        raise typer.Exit(1) from None
    except (MissingExtraError, RecordVersionError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"wrote {count} decisions to {file}")


@app.command()
def chaos(
    minutes: Annotated[float | None, typer.Option(help="run fresh seeds for so long", min=0)] = None,
    points: Annotated[int | None, typer.Option(help="run so many kill points, of seeds 1, 2, ...", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="run the kill points of this seed again")] = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="on a Redis Cluster of three masters")] = False,
    report: Annotated[Path | None, typer.Option(help="also write the result here, as JSON")] = None,
) -> None:
    """Kill processes and servers of a stack of its own under traffic. Exit 1 on the first broken promise."""
    from services.chaos.command import Wish
    from services.chaos.command import run as run_chaos
    from services.stack.errors import StackError

    if [minutes, points, seed].count(None) != 2:  # noqa: PLR2004
        typer.echo("error: give one of --minutes, --points and --seed", err=True)
        raise typer.Exit(2)
    try:
        held = run_chaos(Wish(minutes, points, seed, cluster), report)
    except StackError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(0 if held else 1)


if __name__ == "__main__":
    main()
