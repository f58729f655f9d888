"""What all endpoints share: each request is counted by its outcome, and what goes wrong becomes a problem.

An endpoint is an ASGI application of its own. The framework routes and documents; it does not come between the server
and a decision, to whose cost it would add a third (decision record 12).
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter

from starlette.types import Receive, Scope, Send

from feature_store.transaction import InvalidError
from services.api import problems
from services.api.body import MOST_BYTES, IncompleteError, TooLargeError, read_body
from services.api.reply import Reply
from services.metrics import Metrics

log = logging.getLogger(__name__)

Handler = Callable[[Mapping[str, str], bytes], Awaitable[tuple[str, Reply]]]
"""Takes the parameters in the path and the body; gives the outcome (see `metrics.OUTCOMES`) and the reply."""


class Endpoint:
    """Makes an ASGI application of a handler; where it decides, the seconds from request to reply are observed."""

    def __init__(self, handle: Handler, metrics: Metrics, *, decides: bool = False) -> None:
        self._handle = handle
        self._observe = metrics.observe_stages if decides else None
        self._count = metrics.count_request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = perf_counter()
        try:
            outcome, reply = await self._handle(scope.get("path_params", {}), await read_body(receive))
        except InvalidError as error:
            outcome, reply = "invalid", problems.invalid(error.field, error.message)
        except TooLargeError:
            outcome, reply = "invalid", problems.too_large(MOST_BYTES)
        except IncompleteError:
            outcome, reply = "invalid", problems.invalid("body", "ended before it was complete")
        except Exception:
            log.exception("a request failed")
            outcome, reply = "failed", problems.internal()
        if self._observe:
            self._observe({"total": perf_counter() - started})
        self._count("http", outcome)
        await reply.send(send)
