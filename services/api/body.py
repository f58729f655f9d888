"""Reads a request's body, up to a limit, before anything looks at it."""

from starlette.requests import Request

MOST_BYTES = 16_384
"""No valid transaction or label comes near this."""


class TooLargeError(Exception):
    """The body is longer than `MOST_BYTES`."""


async def read_body(request: Request) -> bytes:
    """Read the body.

    Raises:
        TooLargeError: it is declared or turns out to be too long; the rest is not read.
    """
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > MOST_BYTES:
        raise TooLargeError
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise TooLargeError
    return bytes(body)
