"""What an endpoint answers, and how it goes out: two ASGI messages, with nothing between them and the server."""

from dataclasses import dataclass

from starlette.types import Send

JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, body and the headers that are its own."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def send(self, send: Send) -> None:
        """Send it."""
        length = (b"content-length", b"%d" % len(self.body))
        headers = [(b"content-type", self.content_type), length, *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})
