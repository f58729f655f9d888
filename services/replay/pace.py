"""Holds back events until older ones are where they must be, so that speed does not change a feature."""

import asyncio
from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import Literal

from feature_store.features import MERCHANT_DELAY
from feature_store.transaction import Event, Label, Transaction

PaceName = Literal["state", "log", "none"]
"""Where an event has to be before later ones may go: in merchant state, or only in topic decisions; or nowhere."""
WAITED_FOR: Mapping[PaceName, tuple[type[Event], ...]] = MappingProxyType(
    {"state": (Transaction, Label), "log": (Transaction,), "none": ()}
)
STUCK: Mapping[PaceName, str] = MappingProxyType(
    {
        "state": "merchant state does not move: is the updater running?",
        "log": "no decision comes into the log: are the relay and the worker running?",
    }
)


class Pace:
    """What was sent and is not where it must be, oldest first.

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
        """Note that an event is where it must be, or never will be."""
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
