"""Asks a process whether it is ready, with no HTTP client beyond the standard library."""

import asyncio
from contextlib import closing

_SECONDS = 2.0
_OK = b" 200 "


async def healthy(host: str, port: int) -> bool:
    """Whether GET /health answers 200."""
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            with closing(writer):
                writer.write(f"GET /health HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
                return _OK in await reader.readline()
    except (OSError, TimeoutError):
        return False
