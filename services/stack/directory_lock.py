"""One owner for a data directory: two servers appending to the same files would ruin them.

The lock belongs to an open file that the server inherits, so the kernel holds it until that server is really
gone, even when whoever started it was killed first.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.stack.errors import StackError

_WAIT_SECONDS = 3.0  # an owner that was killed a moment ago is still being torn down
_POLL_SECONDS = 0.05


@asynccontextmanager
async def locked(directory: Path) -> AsyncIterator[int]:
    """Create `directory` if need be, own it, and give the descriptor for the server to inherit.

    Raises:
        StackError: another process owns it.
    """
    descriptor = _open(directory)
    try:
        await _take(descriptor, directory)
        yield descriptor
    finally:
        os.close(descriptor)


def _open(directory: Path) -> int:
    directory.mkdir(parents=True, exist_ok=True)
    return os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


async def _take(descriptor: int, directory: Path) -> None:
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if loop.time() > give_up:
                raise StackError(f"{directory} is in use by another process: stop it, or set FRAUD_DATA_DIR") from None
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return
