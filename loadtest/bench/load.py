"""The HTTP door under load: what a decision costs, next to an endpoint that does nothing."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import msgspec
import psutil

from loadtest.bench.generator import Load
from loadtest.bench.report import Figure
from loadtest.bench.stack import BenchError, Stack

CPU_LIMITS = {"api": 230, "relay": 80, "updater": 120, "redis": 100, "kafka": 300}
"""Microseconds a decision, at saturation, everything on one machine of two cores."""
LEAST_RATIO = 0.35
ROUNDS = 5
"""Of each measurement: the least is taken, since everything that disturbs one only adds to it."""
SETTLE_SECONDS = 1.0
"""After a load: relay and updater finish what it left them."""


def generate(url: str, *options: str) -> Load:
    """Load a URL from a process of its own."""
    command = (sys.executable, "-m", "loadtest.bench.generator", url, *options)
    done = subprocess.run(command, check=True, capture_output=True)
    return msgspec.json.decode(done.stdout, type=Load)


def saturation(stack: Stack, seconds: int) -> list[Figure]:
    """Measure the CPU a decision of every process while 32 callers ask as fast as they get answers."""
    rounds = [_round(stack, seconds) for _ in range(ROUNDS)]
    figures = [Figure("decisions at saturation, 32 callers", max(rate for rate, _ in rounds), "/s", decides=False)]
    least = {name: min(costs[name] for _, costs in rounds) for name in CPU_LIMITS if name in rounds[0][1]}
    figures += [Figure(f"CPU a decision: {name}", cost, "us", at_most=CPU_LIMITS[name]) for name, cost in least.items()]
    return figures


def _round(stack: Stack, seconds: int) -> tuple[float, dict[str, float]]:
    before = stack.cpu()
    load = generate(f"{stack.api}/v1/decisions", "--connections", "32", "--seconds", str(seconds))
    time.sleep(SETTLE_SECONDS)
    after = stack.cpu()
    return load.answered / load.seconds, {name: (after[name] - before[name]) / load.answered * 1e6 for name in after}


def against_nothing(stack: Stack, seconds: int) -> list[Figure]:
    """Measure the CPU a decision of the API on a core of its own, and in turn that of an endpoint that does nothing."""
    stack.pin({name: 0 if name == "api" else 1 for name in stack.processes})
    url, failed, empty, api = f"{stack.api}/v1/decisions", 0, [], []
    with _empty_endpoint() as (nothing, process):
        for _ in range(ROUNDS):
            cost, _ = _cost(process, nothing, "--empty", "--seconds", str(seconds), "--core", "1")
            empty.append(cost)
            cost, load = _cost(stack.processes["api"], url, "--seconds", str(seconds), "--core", "1")
            api.append(cost)
            failed += load.failed
    stack.pin({})
    return [
        Figure("CPU a request: empty FastAPI endpoint, 32 callers, one core", min(empty), "us"),
        Figure("CPU a decision: api, 32 callers, one core", min(api), "us", decides=False),
        Figure("ratio of the two", min(empty) / min(api), "", at_least=LEAST_RATIO),
        Figure("answers that are not 200 at 32 callers", failed, "", at_most=0),
    ]


def open_loop(stack: Stack, rate: int, seconds: int, **limits: float) -> list[Figure]:
    """Measure latency where requests are due at fixed times, whatever became of those before."""
    options = ("--rate", str(rate), "--seconds", str(seconds), "--connections", "64")
    load = generate(f"{stack.api}/v1/decisions", *options)
    name = f"open loop {rate}/s for {seconds} s"
    return [
        Figure(f"{name}: failed", load.failed, "", at_most=0),
        *(
            Figure(f"{name}: {which}", getattr(load, f"{which}_ms"), "ms", at_most=limits.get(which), decides=False)
            for which in ("p50", "p99", "max")
        ),
        Figure(f"{name}: over 200 ms", load.late / load.sent, "", at_most=0.001),
    ]


def _cost(process: psutil.Process, url: str, *options: str) -> tuple[float, Load]:
    before = sum(process.cpu_times()[:2])
    load = generate(url, *options)
    return (sum(process.cpu_times()[:2]) - before) / load.answered * 1e6, load


@contextlib.contextmanager
def _empty_endpoint() -> Iterator[tuple[str, psutil.Process]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = (sys.executable, "-m", "loadtest.bench.empty", str(port))
    with subprocess.Popen(command) as started:
        try:
            _until_listening(port)
            process = psutil.Process(started.pid)
            process.cpu_affinity([0])
            yield f"http://127.0.0.1:{port}/", process
        finally:
            started.terminate()


def _until_listening(port: int) -> None:
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise BenchError("the empty endpoint does not start")
