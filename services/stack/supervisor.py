"""Keeps named child processes running: one that cannot go on crashes, and is started again here.

Stopping is SIGTERM to all, last started first, then SIGKILL for those that do not end in time.
"""

import asyncio
import logging
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from services.stack.child import Command, kill_group, spawn, terminate
from services.stack.errors import StackError

_log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_STABLE_SECONDS = 10.0
_POLL_SECONDS = 0.05


class Child:
    """A command under supervision, over all its restarts."""

    def __init__(self, command: Command, process: Process) -> None:
        self.command = command
        self.exits: list[int] = []
        """Exit codes so far; negative: killed by that signal."""
        self._process = process
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int:
        """Process id, of the latest start."""
        return self._process.pid

    async def keep(self, *, restart: bool) -> None:
        """Wait for the process, and start it again each time it ends, until `stop`."""
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE_SECONDS
        while True:
            started = loop.time()
            code = await self._process.wait()
            self.exits.append(code)
            if self._stopping.is_set() or not restart:
                return
            if loop.time() - started > _STABLE_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            _log.warning("%s ended with exit code %d, restarting in %.1f s", self.command.name, code, pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
                return
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            self._process = await spawn(self.command)
            if self._stopping.is_set():  # asked while it was starting
                self.stop()

    def stop(self) -> None:
        """Ask the process to end, for good."""
        self._stopping.set()
        terminate(self._process)

    def kill(self) -> None:
        """End the process now, with all it started."""
        kill_group(self._process)

    async def until(self, answers: Callable[[], Awaitable[bool]], seconds: float, crashes: int = 0) -> None:
        """Poll until the process `answers`.

        Raises:
            StackError: not within `seconds`, or it ended more than `crashes` times; quotes its log.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + seconds
        while not await answers():
            if len(self.exits) > crashes:
                reason = f"ended with exit code {self.exits[-1]} while starting"
            elif loop.time() > give_up:
                reason = f"did not answer within {seconds:.0f} s"
            else:
                await asyncio.sleep(_POLL_SECONDS)
                continue
            raise StackError(f"{self.command.name} {reason}; {self.command.log} says:\n{self.command.log_tail()}")


@asynccontextmanager
async def supervised(
    commands: Sequence[Command], *, restart: bool = True, stop_seconds: float = 10.0
) -> AsyncIterator[dict[str, Child]]:
    """Run `commands` until the block ends; gives the children by name."""
    children: dict[str, Child] = {}
    keepers: list[asyncio.Task[None]] = []
    try:
        for command in commands:
            child = children[command.name] = Child(command, await spawn(command))
            keepers.append(asyncio.create_task(child.keep(restart=restart), name=command.name))
        yield children
    finally:
        await _stop(list(children.values()), keepers, stop_seconds)


async def _stop(children: Sequence[Child], keepers: Sequence[asyncio.Task[None]], seconds: float) -> None:
    for child in reversed(children):
        child.stop()
    if not keepers:
        return
    try:
        await asyncio.wait(keepers, timeout=seconds)
    finally:
        for child in children:
            child.kill()
    await asyncio.gather(*keepers)
