"""`/v1/decisions`: a transaction comes in, a decision goes out."""

from collections.abc import Callable
from datetime import datetime
from time import perf_counter

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import Response

from feature_store.card_number import contains_card_number
from feature_store.decision_store import DecisionStore
from feature_store.transaction import InvalidError, Transaction, parse
from services.api import problems
from services.api.body import MOST_BYTES, TooLargeError, read_body
from services.decision.decide import ConflictError, Decide, Outcome
from services.decision.record import split_stored
from services.metrics import Metrics


class Decisions:
    """The two endpoints."""

    def __init__(self, decide: Decide, store: DecisionStore, metrics: Metrics, now: Callable[[], datetime]) -> None:
        self._decide = decide
        self._store = store
        self._metrics = metrics
        self._now = now

    async def post(self, request: Request) -> Response:
        """Decide the transaction in the body."""
        started = perf_counter()
        outcome, response = await self._post(request)
        total = perf_counter() - started
        self._metrics.requests.labels("http", outcome).inc()
        self._metrics.stage_seconds.labels("total").observe(total)
        return response

    async def _post(self, request: Request) -> tuple[str, Response]:
        try:
            transaction = parse(Transaction, await read_body(request), now=self._now())
            outcome = await self._decide(transaction)
        except TooLargeError:
            return "invalid", problems.too_large(MOST_BYTES)
        except InvalidError as error:
            return "invalid", problems.invalid(error.field, error.message)
        except ConflictError:
            return "conflict", problems.conflict()
        except (RedisError, OSError):
            return "unavailable", problems.unavailable("the decision could not be stored in time")
        return ("repeated" if outcome.repeated else "decided"), _answer(outcome)

    async def get(self, request: Request) -> Response:
        """Look a decision up."""
        names = ("card_id", "transaction_id")
        card_id, transaction_id = (request.path_params[name] for name in names)
        for name in names:
            if contains_card_number(request.path_params[name]):
                return problems.invalid(name, "looks like a card number; send a token that stands for the card")
        try:
            stored = await self._store.decided(card_id, transaction_id)
        except (RedisError, OSError):
            return problems.unavailable("the decision could not be looked up in time")
        self._metrics.requests.labels("http", "not_found" if stored is None else "found").inc()
        if stored is None:
            return problems.not_found()
        return Response(split_stored(stored)[1], media_type="application/json")


def _answer(outcome: Outcome) -> Response:
    timing = ", ".join(f"{stage};dur={seconds * 1_000:.3f}" for stage, seconds in outcome.stages.items())
    return Response(outcome.answer, headers={"Server-Timing": timing}, media_type="application/json")
