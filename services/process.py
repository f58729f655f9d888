"""How a process runs: its work beside its HTTP server, until a signal or an error ends both.

A process that cannot go on crashes with the reason; whoever started it starts it again.
"""

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

Work = Callable[[asyncio.Event], Awaitable[None]]
"""Runs until the event is set, then finishes what it has begun and returns."""

STOP_SECONDS = 10.0
GARBAGE = 20_000
"""New objects before the youngest are looked through for cycles: what a request made dies without."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process: an HTTP application with its address, and the work beside it, if any."""

    app: ASGIApp
    host: str
    port: int
    work: Work | None = None


async def serve(process: Process) -> None:
    """Run until SIGINT or SIGTERM; raises what ended the work, if something did."""
    gc.collect()
    gc.freeze()  # what was built to serve stays: no collection has to walk through it
    gc.set_threshold(GARBAGE)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    server = _Server(
        uvicorn.Config(
            process.app,
            host=process.host,
            port=process.port,
            access_log=False,  # a path may name a card
            proxy_headers=False,  # nobody asks where a request came from
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=int(STOP_SECONDS),
        )
    )
    serving = asyncio.create_task(server.serve())
    working = asyncio.create_task(_until(stop, process.work))
    await asyncio.wait({serving, working}, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    server.should_exit = True
    await asyncio.wait_for(asyncio.gather(working, serving), STOP_SECONDS)


def is_over(stop: asyncio.Event) -> bool:
    """Tell whether a loop is to end: it was told to stop, or its task was cancelled, whoever has caught that.

    Before Python 3.12 `asyncio.wait_for`, through which redis-py sends, can lose a CancelledError. A loop that goes on
    then keeps its TaskGroup, and so its process, from ending.
    """
    task = asyncio.current_task()
    return stop.is_set() or (task is not None and task.cancelling() > 0)


class _Server(uvicorn.Server):
    """Leaves the signals to `serve`: the work ends first, then the server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _until(stop: asyncio.Event, work: Work | None) -> None:
    await (work(stop) if work else stop.wait())


def start_logging(level: str) -> None:
    """Log to standard error, a line an event."""
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
