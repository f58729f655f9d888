"""The console script `fraud`: one command a process, and the tools around them.

Commands import what they run when they run, so that serving needs no package of a tool.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

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
    """Run a process until it is told to stop. A model that cannot be used is the operator's to mend: no traceback."""
    from model.scorer import ModelRefusedError

    settings = _settings()

    async def run() -> None:
        async with opened(settings) as process:
            await serve(process)

    try:
        uvloop.run(run())
    except ModelRefusedError as error:
        typer.echo(f"error: model refused: {error}", err=True)
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
    """Apply topics decisions and labels to merchant and label state."""
    from services.updater import open_updater

    _run(open_updater)


@app.command()
def topics() -> None:
    """Create the topics that are missing, with FRAUD_PARTITIONS partitions, and check the others."""
    from services.topics import PartitionCountError, ensure_topics

    settings = _settings()
    try:
        asyncio.run(ensure_topics(settings.kafka_bootstrap, settings.partitions))
    except PartitionCountError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    main()
