import asyncio

import pytest

from services.stack import directory_lock
from services.stack.child import Command, spawn
from services.stack.directory_lock import locked
from services.stack.errors import StackError


@pytest.fixture(autouse=True)
def short_wait(monkeypatch):
    monkeypatch.setattr(directory_lock, "_WAIT_SECONDS", 0.1)


async def test_a_directory_has_one_owner_at_a_time(tmp_path):
    async with locked(tmp_path):
        with pytest.raises(StackError, match=f"{tmp_path} is in use"):
            async with locked(tmp_path):
                pass


async def test_a_directory_can_be_owned_again_once_it_was_given_up(tmp_path):
    async with locked(tmp_path / "new"):
        pass
    async with locked(tmp_path / "new"):
        pass


async def test_a_server_that_inherited_the_lock_owns_the_directory(tmp_path):
    async with locked(tmp_path) as lock:
        server = await spawn(Command("server", ("sleep", "60"), tmp_path / "log", inherited=(lock,)))
    with pytest.raises(StackError):
        async with locked(tmp_path):
            pass
    server.kill()
    await server.wait()
    async with locked(tmp_path):
        pass


async def test_who_comes_next_waits_for_an_owner_that_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(directory_lock, "_WAIT_SECONDS", 10)
    entered = asyncio.Event()

    async def own():
        async with locked(tmp_path):
            entered.set()

    async with locked(tmp_path):
        waiting = asyncio.create_task(own())
        await asyncio.sleep(0)
        assert not entered.is_set()
    await asyncio.wait_for(waiting, 10)
