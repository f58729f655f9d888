import asyncio
from contextlib import asynccontextmanager

import pytest

from services.stack.health import healthy
from services.stack.ports import free_port


@asynccontextmanager
async def answering(status):
    async def answer(reader, writer):
        request = await reader.readuntil(b"\r\n\r\n")
        assert request.startswith(b"GET /health HTTP/1.1\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(("status", "expected"), [("200 OK", True), ("503 Service Unavailable", False)])
async def test_a_process_is_healthy_when_it_answers_200(status, expected):
    async with answering(status) as port:
        assert await healthy("127.0.0.1", port) is expected


async def test_a_process_that_does_not_listen_is_not_healthy():
    assert not await healthy("127.0.0.1", free_port())
