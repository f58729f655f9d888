"""A TCP proxy on loopback that loses replies or requests, falls silent or refuses, when told to.

Between a process and its Redis it makes the moments in which a caller cannot know what happened; killing one of the
two hits them only by luck.
"""

import asyncio
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from services.stack.ports import LOOPBACK, free_port

_CHUNK_BYTES = 65_536
_TAIL_BYTES = 1_024

_Kind = Literal["lose reply", "lose request", "silence", "refuse"]


@dataclass(eq=False)
class Fault:
    """A fault in force: until it has found as many requests as it was armed for, or is lifted."""

    kind: _Kind
    needle: bytes = b""
    left: float = math.inf
    hits: int = 0
    """How often it has happened: replies or requests lost, chunks or new connections held, connections closed."""
    happened: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it has happened."""
    lifted: asyncio.Event = field(default_factory=asyncio.Event)

    def lift(self) -> None:
        """End it."""
        self.left = 0
        self.lifted.set()

    def take(self, kind: _Kind, seen: bytes, before: int) -> bool:
        """Use it up once, if it is in force and its needle ends in `seen` behind the first `before` bytes."""
        fresh = seen[max(0, before - len(self.needle) + 1) :]
        if self.left <= 0 or self.kind != kind or self.needle not in fresh:
            return False
        self.left -= 1
        return True

    def hit(self) -> None:
        """Count that it happened."""
        self.hits += 1
        self.happened.set()


class FaultProxy:
    """The running proxy. Its methods belong to the event loop it runs on.

    A request is what a client writes before it waits for the reply. A needle, of up to 1,024 bytes, is found in it
    wherever the network cut it; what came before the piece in which a needle ends was forwarded.
    """

    def __init__(self, port: int, target: tuple[str, int]) -> None:
        self.port = port
        self._target = target
        self._faults: list[Fault] = []
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where clients connect, as host:port."""
        return f"{LOOPBACK}:{self.port}"

    def lose_reply(self, needle: bytes, times: int = 1) -> Fault:
        """Forward the next request with `needle`, drop the reply and close: the effect happened, unknown to the caller.

        The caller is told when the server begins to answer: of a request in pieces the rest has its effect after that.
        """
        return self.arm(Fault("lose reply", needle, times))

    def lose_request(self, needle: bytes, times: int = 1) -> Fault:
        """Close on the next request with `needle` instead of forwarding it: the effect did not happen."""
        return self.arm(Fault("lose request", needle, times))

    def silence(self) -> Fault:
        """Hold everything back, as a dead network does. Once lifted it arrives, also from callers who gave up."""
        return self.arm(Fault("silence"))

    def arm(self, fault: Fault) -> Fault:
        """Put a fault in force here; several proxies may share one, and who finds its request first takes it."""
        self._faults.append(fault)
        return fault

    def refuse(self) -> Fault:
        """Close all connections now, and new ones at once."""
        fault = self.arm(Fault("refuse"))
        for connection in self._connections:
            connection.cancel()
            fault.hit()
        return fault

    def accept(self, listener: socket.socket) -> None:
        """Take the connection that waits at `listener`."""
        client, _ = listener.accept()
        if fault := self._take("refuse"):
            client.close()
            fault.hit()
            return
        connection = asyncio.create_task(self._carry(client))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        connection.add_done_callback(lambda _: client.close())  # a task cancelled before its first step runs no line

    async def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _take(self, kind: _Kind, seen: bytes = b"", before: int = 0) -> Fault | None:
        return next((fault for fault in self._faults if fault.take(kind, seen, before)), None)

    async def _carry(self, client: socket.socket) -> None:
        try:
            with socket.socket() as server:
                for end in (client, server):
                    end.setblocking(False)
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the proxy itself delays nothing
                await self._while_silent()
                await asyncio.get_running_loop().sock_connect(server, self._target)
                losing: list[Fault] = []
                async with asyncio.TaskGroup() as directions:
                    directions.create_task(self._requests(client, server, losing))
                    directions.create_task(self._replies(client, server, losing))
        except* OSError:
            pass  # one end is gone, which closes the other

    async def _requests(self, client: socket.socket, server: socket.socket, losing: list[Fault]) -> None:
        tail = b""
        while chunk := await self._receive(client):
            seen = tail + chunk
            if fault := self._take("lose request", seen, len(tail)):
                fault.hit()
                raise ConnectionAbortedError  # ends both directions
            if not losing and (fault := self._take("lose reply", seen, len(tail))):
                losing.append(fault)
            await asyncio.get_running_loop().sock_sendall(server, chunk)
            tail = seen[-_TAIL_BYTES:]
        server.shutdown(socket.SHUT_WR)

    async def _replies(self, client: socket.socket, server: socket.socket, losing: list[Fault]) -> None:
        while (chunk := await self._receive(server)) and not losing:
            await asyncio.get_running_loop().sock_sendall(client, chunk)
        if chunk:
            losing[0].hit()
        client.shutdown(socket.SHUT_WR)  # not close: of a request in pieces the rest must still reach the server
        while await self._receive(server):
            pass

    async def _receive(self, end: socket.socket) -> bytes:
        chunk = await asyncio.get_running_loop().sock_recv(end, _CHUNK_BYTES)
        await self._while_silent()
        return chunk

    async def _while_silent(self) -> None:
        while fault := self._take("silence"):
            fault.hit()
            await fault.lifted.wait()


@asynccontextmanager
async def fault_proxy(target_host: str, target_port: int) -> AsyncIterator[FaultProxy]:
    """Stand between clients and the server at `target_host`:`target_port` until the block ends."""
    loop = asyncio.get_running_loop()
    with socket.create_server((LOOPBACK, free_port())) as listener:
        listener.setblocking(False)
        proxy = FaultProxy(listener.getsockname()[1], (target_host, target_port))
        loop.add_reader(listener, proxy.accept, listener)
        try:
            yield proxy
        finally:
            loop.remove_reader(listener)
            await proxy.close()
