"""A stack of its own to measure, started as anyone would start it, and what each of its processes has used."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

START_SECONDS = 120.0
STOP_SECONDS = 30.0
PROCESSES = ("api", "worker", "relay", "updater")
_READY = re.compile(r"^ready (\S+)$", re.MULTILINE)
_EXPORTS = re.compile(r"export (FRAUD_\S+=\S+(?: FRAUD_\S+=\S+)*)")


class BenchError(RuntimeError):
    """Something could not be measured; the text says what."""


@dataclass(frozen=True)
class Stack:
    """A running stack."""

    api: str
    environment: Mapping[str, str]
    """What another command needs to reach it."""
    logs: Path
    processes: Mapping[str, psutil.Process]
    """By name: api, worker, relay, updater, redis, kafka."""

    def cpu(self) -> dict[str, float]:
        """Seconds of processor time that each process has used."""
        return {name: sum(process.cpu_times()[:2]) for name, process in self.processes.items()}

    def pin(self, cores: Mapping[str, int]) -> None:
        """Keep each process on one core; those not named, on any."""
        every = list(range(os.cpu_count() or 1))
        for name, process in self.processes.items():
            core = [cores[name]] if name in cores else every
            for thread in process.threads():
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(thread.id).cpu_affinity(core)


@contextlib.contextmanager
def running() -> Iterator[Stack]:
    """Run `fraud up` on data of its own until the block ends.

    Raises:
        BenchError: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        printed = Path(directory) / "up.log"
        environment = {**os.environ, "FRAUD_DATA_DIR": f"{directory}/data", "FRAUD_API_PORT": "0"}
        with printed.open("wb") as out:
            up = subprocess.Popen((sys.executable, "-m", "services.cli", "up"), env=environment, stdout=out, stderr=out)
        try:
            yield _found(up, printed, environment)
        finally:
            up.terminate()
            up.wait(STOP_SECONDS)


def _found(up: "subprocess.Popen[bytes]", printed: Path, environment: Mapping[str, str]) -> Stack:
    give_up = time.monotonic() + START_SECONDS
    while not (ready := _READY.search(printed.read_text())):
        if up.poll() is not None or time.monotonic() > give_up:
            raise BenchError(f"`fraud up` did not become ready:\n{printed.read_text()}")
        time.sleep(0.1)
    text = printed.read_text()
    exports = dict(pair.split("=", 1) for pair in _EXPORTS.findall(text)[0].split())
    logs = Path(re.findall(r"^ +logs +(.+)$", text, re.MULTILINE)[0])
    return Stack(ready[1], {**environment, **exports}, logs, _processes(psutil.Process(up.pid)))


def _processes(up: psutil.Process) -> dict[str, psutil.Process]:
    found = {}
    for process in up.children(recursive=True):
        words = process.cmdline()
        if words and words[-1] in PROCESSES:
            found[words[-1]] = process
        elif words and "redis-server" in words[0]:
            found["redis"] = process
        elif "kafka.Kafka" in words:
            found["kafka"] = process
    return found
