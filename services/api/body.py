"""Reads a request's body, up to a limit, before anything looks at it."""

from starlette.types import Receive

MOST_BYTES = 16_384
"""No valid transaction or label comes near this."""


class TooLargeError(Exception):
    """The body is longer than `MOST_BYTES`."""


class IncompleteError(Exception):
    """The caller went away before the body was complete."""


async def read_body(receive: Receive) -> bytes:
    """Read the body.

    Raises:
        TooLargeError: it is too long; the rest is not read.
        IncompleteError: it ended before it was complete.
    """
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise IncompleteError
        more: bytes = message.get("body", b"")
        body += more
        if len(body) > MOST_BYTES:
            raise TooLargeError
        if not message.get("more_body", False):
            return body
