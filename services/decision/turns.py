"""Transactions of one card take turns within a process, in the order they came; those of different cards do not wait.

Two of one card at a time would only find, at their commits, that the card has moved.
"""

import asyncio
from collections import deque
from types import TracebackType


class Turns:
    """`async with turns.of(card_id):` waits for the card's turn."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def of(self, card_id: str) -> "_Turn":
        """Give the next turn of a card."""
        return _Turn(self._waiting, card_id)


class _Turn:
    """From when it is this one's turn to the end of the block."""

    def __init__(self, waiting: dict[str, deque[asyncio.Future[None]]], card_id: str) -> None:
        self._waiting = waiting
        self._card_id = card_id

    async def __aenter__(self) -> None:
        queue = self._waiting.get(self._card_id)
        if queue is None:
            self._waiting[self._card_id] = deque()
            return
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was this one's turn already
                self._hand_on()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hand_on()

    def _hand_on(self) -> None:
        queue = self._waiting[self._card_id]
        while queue:
            turn = queue.popleft()
            if not turn.done():  # else its caller went away
                turn.set_result(None)
                return
        del self._waiting[self._card_id]
