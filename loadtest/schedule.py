"""When each request is due, whatever became of the ones before it: the open loop.

A user that waits for its answer before it sends again slows down together with the server and never sees the queue it
caused. Here the times are fixed in advance; a request that starts late has been waiting since it was due.
"""

import itertools
from collections.abc import Iterator


class Schedule:
    """`rate` times a second for `seconds`, counted from `start` (on the caller's monotonic clock)."""

    def __init__(self, *, rate: float, seconds: float, start: float) -> None:
        self.total = int(rate * seconds)
        self._rate = rate
        self._start = start
        self._next: Iterator[int] = itertools.count()

    def take(self) -> float | None:
        """Give the next time that is due, each once; None when all are taken."""
        slot = next(self._next)
        return self._start + slot / self._rate if slot < self.total else None
