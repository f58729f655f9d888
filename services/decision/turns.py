"""Transactions of one card take turns within a process, in the order they came; those of different cards do not wait.

Two of one card at a time would only find, at their commits, that the card has moved.
"""

import asyncio
from collections import deque


class Turns:
    """`await turns.come(card_id)`, and `turns.end(card_id)` whatever happened since."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def come(self, card_id: str) -> None:
        """Wait for the next turn of a card. Who is cancelled meanwhile has had none."""
        queue = self._waiting.get(card_id)
        if queue is None:
            self._waiting[card_id] = deque()
            return
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it had come already
                self.end(card_id)
            raise

    def end(self, card_id: str) -> None:
        """End the turn: the next one who still waits has it."""
        queue = self._waiting[card_id]
        while queue:
            turn = queue.popleft()
            if not turn.done():  # else its caller went away
                turn.set_result(None)
                return
        del self._waiting[card_id]
