"""Holds back events until merchant state has caught up to their delay, so that speed does not change a feature."""

import asyncio
from collections.abc import Hashable

from feature_store.definitions import MERCHANT_DELAY


class Pace:
    """What was sent and has had no effect on merchant state yet, oldest first.

    Live traffic has this for free: an event is two minutes old before any feature includes it. A replay runs hours of
    event time a second, so it must wait where live traffic would only have to be.
    """

    def __init__(self) -> None:
        self._open: dict[Hashable, int] = {}
        self._progress = asyncio.Event()

    def sent(self, key: Hashable, second: int) -> None:
        """Note an event on its way; seconds must not decrease."""
        self._open[key] = second

    def settled(self, key: Hashable) -> None:
        """Note that an event is in merchant state, or never will be."""
        if self._open.pop(key, None) is not None:
            self._progress.set()

    def holds(self, second: int) -> bool:
        """Tell whether an event at `second` must wait."""
        return bool(self._open) and next(iter(self._open.values())) <= second - MERCHANT_DELAY

    async def wait(self, second: int, patience: float) -> None:
        """Wait until an event at `second` may go.

        Raises:
            TimeoutError: nothing settled for `patience` seconds.
        """
        while self.holds(second):
            self._progress.clear()
            await asyncio.wait_for(self._progress.wait(), patience)
