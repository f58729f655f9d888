"""`/v1/decisions`: a transaction comes in, a decision goes out."""

from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec

from feature_store.card_number import contains_card_number
from feature_store.decision_store import DecisionStore
from feature_store.redis_client import UNAVAILABLE
from feature_store.scripts import ClosedError
from feature_store.transaction import EARLIEST, InvalidError, Transaction, parse
from services.api import problems
from services.api.endpoint import Endpoint
from services.api.reply import Reply
from services.decision.decide import ConflictError, ContendedError, Decide, Outcome
from services.decision.record import Stored
from services.metrics import Metrics


class Decisions:
    """The two endpoints."""

    def __init__(
        self,
        decide: Decide,
        store: DecisionStore,
        metrics: Metrics,
        now: Callable[[], datetime],
        oldest: Callable[[datetime], datetime] = lambda _: EARLIEST,
    ) -> None:
        self._decide = decide
        self._store = store
        self._now = now
        self._oldest = oldest
        self.post = Endpoint(self._post, metrics, decides=True)
        self.get = Endpoint(self._get, metrics)

    async def _post(self, _: Mapping[str, str], body: bytes) -> tuple[str, Reply]:
        """Decide the transaction in the body."""
        now = self._now()
        transaction = parse(Transaction, body, now=now, oldest=self._oldest(now))
        try:
            outcome = await self._decide(transaction)
        except ConflictError:
            return "conflict", problems.conflict()
        except ContendedError:
            return "contended", problems.unavailable("other processes keep deciding transactions of this card")
        except ClosedError:
            return "closed", problems.unavailable("state is being brought up to the log")
        except UNAVAILABLE:
            return "unavailable", problems.unavailable("the decision could not be stored in time")
        return ("repeated" if outcome.repeated else "decided"), _reply(outcome)

    async def _get(self, path: Mapping[str, str], _: bytes) -> tuple[str, Reply]:
        """Look a decision up."""
        for name in ("card_id", "transaction_id"):
            if contains_card_number(path[name]):
                raise InvalidError(name, "looks like a card number; send a token that stands for the card")
        try:
            stored = await self._store.decided(path["card_id"], path["transaction_id"])
        except UNAVAILABLE:
            return "unavailable", problems.unavailable("the decision could not be looked up in time")
        if stored is None:
            return "not_found", problems.not_found()
        answer = Stored.from_bytes(stored).answer(path["transaction_id"])
        return "found", Reply(200, msgspec.json.encode(answer))


def _reply(outcome: Outcome) -> Reply:
    timing = ", ".join([f"{stage};dur={seconds * 1_000:.3f}" for stage, seconds in outcome.stages.items()])
    return Reply(200, msgspec.json.encode(outcome.answer), headers=((b"server-timing", timing.encode()),))
