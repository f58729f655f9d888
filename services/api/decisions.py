"""`/v1/decisions`: a transaction comes in, a decision goes out."""

from collections.abc import Callable
from datetime import datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from feature_store.card_number import contains_card_number
from feature_store.decision_store import DecisionStore
from feature_store.redis_client import UNAVAILABLE
from feature_store.scripts import ClosedError
from feature_store.transaction import EARLIEST, InvalidError, Transaction, parse
from services.api import problems
from services.api.body import read_body
from services.api.endpoint import endpoint
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
        self._total = metrics.stage_seconds.labels("total")
        self.post = endpoint(self._post, metrics)
        self.get = endpoint(self._get, metrics)

    async def _post(self, request: Request) -> tuple[str, Response]:
        """Decide the transaction in the body."""
        with self._total.time():
            now, body = self._now(), await read_body(request)
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
            return ("repeated" if outcome.repeated else "decided"), _answer(outcome)

    async def _get(self, request: Request) -> tuple[str, Response]:
        """Look a decision up."""
        names = ("card_id", "transaction_id")
        for name in names:
            if contains_card_number(request.path_params[name]):
                raise InvalidError(name, "looks like a card number; send a token that stands for the card")
        try:
            stored = await self._store.decided(*(request.path_params[name] for name in names))
        except UNAVAILABLE:
            return "unavailable", problems.unavailable("the decision could not be looked up in time")
        if stored is None:
            return "not_found", problems.not_found()
        answer = Stored.from_bytes(stored).answer(request.path_params["transaction_id"])
        return "found", Response(msgspec.json.encode(answer), media_type="application/json")


def _answer(outcome: Outcome) -> Response:
    timing = ", ".join(f"{stage};dur={seconds * 1_000:.3f}" for stage, seconds in outcome.stages.items())
    return Response(
        msgspec.json.encode(outcome.answer), headers={"Server-Timing": timing}, media_type="application/json"
    )
