"""What all endpoints share: each request is counted by its outcome, and what is not valid becomes a problem."""

from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from feature_store.transaction import InvalidError
from services.api import problems
from services.api.body import MOST_BYTES, TooLargeError
from services.metrics import Metrics

Handler = Callable[[Request], Awaitable[tuple[str, Response]]]
"""Gives the outcome (see `metrics.OUTCOMES`) and the response."""


def endpoint(handle: Handler, metrics: Metrics) -> Callable[[Request], Awaitable[Response]]:
    """Make an endpoint of a handler."""

    async def respond(request: Request) -> Response:
        outcome = "failed"
        try:
            outcome, response = await handle(request)
        except TooLargeError:
            outcome, response = "invalid", problems.too_large(MOST_BYTES)
        except ClientDisconnect:
            outcome, response = "invalid", problems.invalid("body", "ended before it was complete")
        except InvalidError as error:
            outcome, response = "invalid", problems.invalid(error.field, error.message)
        finally:
            metrics.requests.labels("http", outcome).inc()
        return response

    return respond
