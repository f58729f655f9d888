"""One child process: in its own session, with its output in a file, and never left behind.

Its own session, so that Ctrl-C in a terminal reaches the supervisor alone, which stops its children in order.
"""

import asyncio
import ctypes
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_TAIL_BYTES = 16_384


@dataclass(frozen=True)
class Command:
    """What to run, and where its output goes."""

    name: str
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str] | None = None
    """The whole environment; None inherits the supervisor's."""
    inherited: tuple[int, ...] = ()
    """File descriptors the child keeps open, such as the lock of its directory."""

    def log_tail(self, lines: int = 15) -> str:
        """Last `lines` lines of the log, indented for quoting in an error."""
        if not self.log.exists():
            return "  (no log)"
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
        return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (its log is empty)"


async def spawn(command: Command) -> Process:
    """Start `command`."""
    command.log.parent.mkdir(parents=True, exist_ok=True)
    with command.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *command.argv,
            stdin=DEVNULL,
            stdout=log,
            stderr=STDOUT,
            env=command.env,
            pass_fds=command.inherited,
            start_new_session=True,
            preexec_fn=_die_with_parent(),  # one system call, resolved before the fork
        )


def terminate(process: Process) -> None:
    """SIGTERM `process`, if it still runs.

    Not by its own method, which looks whether it has just ended and takes the exit code from who waits for it.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)


def kill_group(process: Process) -> None:
    """SIGKILL `process` and what it started, if it still runs."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _die_with_parent() -> Callable[[], object] | None:
    """On Linux the kernel kills the child when its parent is gone, even if that was by SIGKILL.

    "Parent" is the thread that started the child: start children from a thread that outlives them.
    """
    if sys.platform != "linux":
        return None
    return partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, signal.SIGKILL)
