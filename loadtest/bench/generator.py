"""Load from a process of its own: raw HTTP over a few connections, cheap enough to share a machine with what it loads.

Closed loop (no rate): every connection sends its next request when it has its answer; this finds what a core can do.
Open loop (a rate): requests are due at fixed times and wait in line for a free connection; latency counts from the time
a request was due. Run as `python -m loadtest.bench.generator URL ...`; it prints one line of JSON.
"""

import asyncio
import contextlib
import itertools
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, cast
from urllib.parse import urlsplit

import httptools
import msgspec
import typer
import uvloop

from loadtest.transactions import live_transactions
from loadtest.verdict import percentile

GRACE_SECONDS = 5.0
"""How long after the last request answers may still come."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. Milliseconds: from when a request was due in an open loop, else from when it was sent."""

    seconds: float
    sent: int
    answered: int
    statuses: dict[int, int]
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    late: int
    """Answers after more than 200 ms."""

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        return self.sent - self.statuses.get(200, 0)


@dataclass
class _Run:
    next_request: Callable[[], bytes]
    rate: float
    seconds: float
    started: float = 0.0
    sent: int = 0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    free: deque["_Connection"] = field(default_factory=deque)
    due: deque[float] = field(default_factory=deque)
    ending: bool = False
    nothing_left: asyncio.Event = field(default_factory=asyncio.Event)

    def closed(self) -> bool:
        return self.rate == 0

    def over(self) -> bool:
        return time.perf_counter() - self.started > self.seconds

    async def settled(self) -> None:
        """Wait until everything that was sent or is due has its answer."""
        self.ending = True
        if len(self.latencies) < self.sent or self.due:
            await self.nothing_left.wait()

    def answered(self, connection: "_Connection", since: float, status: int) -> None:
        self.latencies.append(time.perf_counter() - since)
        self.statuses[status] += 1
        if self.closed():
            if not self.over():
                connection.send(time.perf_counter())
        elif self.due:
            connection.send(self.due.popleft())
        else:
            self.free.append(connection)
        if self.ending and len(self.latencies) == self.sent and not self.due:
            self.nothing_left.set()


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._since = 0.0
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, since: float) -> None:
        """Send the next request, which counts from `since`."""
        self._since = since
        self._run.sent += 1
        self._transport.write(self._run.next_request())

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        status, self._parser = self._parser.get_status_code(), httptools.HttpResponseParser(self)
        self._run.answered(self, self._since, status)


def requests(url: str, *, seed: int, empty: bool) -> Iterator[bytes]:
    """Give requests for ever: transactions of now, or to an endpoint that ignores what it gets."""
    at = urlsplit(url)
    bodies = itertools.repeat(b'{"amount":4200}') if empty else live_transactions(seed)
    head = f"POST {at.path} HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
    for body in bodies:
        yield f"{head}{len(body)}\r\n\r\n".encode() + body


async def generate(url: str, run: _Run, connections: int) -> Load:
    """Load `url` and give what came of it."""
    loop, at = asyncio.get_running_loop(), urlsplit(url)
    made = [
        (await loop.create_connection(lambda: _Connection(run), at.hostname or "", at.port or 80))[1]
        for _ in range(connections)
    ]
    run.started = time.perf_counter()
    if run.closed():
        for connection in made:
            connection.send(run.started)
        await asyncio.sleep(run.seconds)
    else:
        run.free.extend(made)
        await _keep_time(run)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(run.settled(), GRACE_SECONDS)
    ordered = sorted(seconds * 1_000 for seconds in run.latencies)
    return Load(
        seconds=time.perf_counter() - run.started,
        sent=run.sent + len(run.due),
        answered=len(ordered),
        statuses=dict(run.statuses),
        p50_ms=percentile(ordered, 50),
        p95_ms=percentile(ordered, 95),
        p99_ms=percentile(ordered, 99),
        max_ms=percentile(ordered, 100),
        late=sum(value > 200 for value in ordered),  # noqa: PLR2004  # the budget
    )


async def _keep_time(run: _Run) -> None:
    for number in range(int(run.rate * run.seconds)):
        due = run.started + number / run.rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        if run.free:
            run.free.popleft().send(due)
        else:
            run.due.append(due)


def main(
    url: Annotated[str, typer.Argument(help="where to POST")],
    connections: Annotated[int, typer.Option(min=1, help="how many at a time")] = 32,
    rate: Annotated[float, typer.Option(min=0, help="requests a second; 0 is a closed loop")] = 0.0,
    seconds: Annotated[float, typer.Option(min=0, help="for how long")] = 10.0,
    seed: Annotated[int, typer.Option(help="of the transactions")] = 1,
    core: Annotated[int, typer.Option(help="run on this processor only; -1: on any")] = -1,
    *,
    empty: Annotated[bool, typer.Option("--empty", help="send no transaction")] = False,
) -> None:
    """Load one URL and print what came of it as JSON."""
    if core >= 0:
        os.sched_setaffinity(0, {core})
    feed = requests(url, seed=seed, empty=empty)
    next(feed)  # simulates what all are made from; no request shall wait for that
    run = _Run(lambda: next(feed), rate, seconds)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(generate(url, run, connections))) + b"\n")


if __name__ == "__main__":
    typer.run(main)
