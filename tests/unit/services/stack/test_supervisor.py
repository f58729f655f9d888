import asyncio
import logging
import os
import signal

import pytest

from services.stack import supervisor
from services.stack.child import Command
from services.stack.errors import StackError
from services.stack.supervisor import supervised


@pytest.fixture
def shell(tmp_path):
    """`shell(name, script)`: a command that runs a shell script, with its output in a log."""
    return lambda name, script: Command(name, ("sh", "-c", script), tmp_path / f"{name}.log")


def runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_process_that_was_killed_is_started_again(shell, eventually):
    async with supervised([shell("worker", "exec sleep 60")]) as children:
        first = children["worker"].pid
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: children["worker"].pid != first)
        assert runs(children["worker"].pid)
        assert children["worker"].exits == [-signal.SIGKILL]


async def test_a_restart_is_one_log_line_after_a_pause_that_doubles(shell, eventually, caplog):
    async with supervised([shell("relay", "exit 3")]) as children:
        await eventually(lambda: len(children["relay"].exits) == 3)
    assert [record.getMessage() for record in caplog.records][:2] == [
        "relay ended with exit code 3, restarting in 0.2 s",
        "relay ended with exit code 3, restarting in 0.4 s",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


async def test_a_process_that_stayed_up_waits_the_short_pause(shell, eventually, caplog, monkeypatch):
    monkeypatch.setattr(supervisor, "_STABLE_SECONDS", 0.0)
    async with supervised([shell("relay", "exit 3")]) as children:
        await eventually(lambda: len(children["relay"].exits) == 3)
    assert all("restarting in 0.2 s" in record.getMessage() for record in caplog.records)


async def test_without_restart_a_process_runs_once(shell, eventually, caplog):
    async with supervised([shell("once", "exit 3")], restart=False) as children:
        await eventually(lambda: children["once"].exits)
    assert children["once"].exits == [3]
    assert not caplog.records


async def test_stopping_ends_all_the_last_started_first(shell, tmp_path, eventually, monkeypatch):
    asked = []
    stop = supervisor.Child.stop
    monkeypatch.setattr(supervisor.Child, "stop", lambda child: (asked.append(child.command.name), stop(child)))
    async with supervised([shell(name, "exec sleep 60") for name in ("api", "worker", "relay")]) as children:
        pids = [child.pid for child in children.values()]
    assert asked == ["relay", "worker", "api"]
    assert not any(runs(pid) for pid in pids)
    assert [child.exits for child in children.values()] == 3 * [[-signal.SIGTERM]]


async def test_a_process_finishes_its_work_when_it_is_asked_to_stop(shell, tmp_path, eventually):
    script = f"trap 'echo flushed > {tmp_path}/work; exit 0' TERM; touch {tmp_path}/up; while :; do sleep 0.01; done"
    async with supervised([shell("relay", script)]) as children:
        await eventually((tmp_path / "up").exists)
    assert (tmp_path / "work").read_text() == "flushed\n"
    assert children["relay"].exits == [0]


async def test_a_process_that_does_not_stop_is_killed_with_its_own(shell, tmp_path, eventually):
    script = f"trap '' TERM; sleep 60 & echo $! > {tmp_path}/grandchild; touch {tmp_path}/up; wait; wait"
    async with supervised([shell("stubborn", script)], stop_seconds=0.2) as children:
        await eventually((tmp_path / "up").exists)
    assert children["stubborn"].exits == [-signal.SIGKILL]
    grandchild = int((tmp_path / "grandchild").read_text())
    await eventually(lambda: not runs(grandchild))


async def test_stopping_does_not_wait_for_the_pause_before_a_restart(shell, eventually, monkeypatch):
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE_SECONDS", 60.0)
    async with asyncio.timeout(10):
        async with supervised([shell("relay", "exit 3")]) as children:
            await eventually(lambda: children["relay"].exits)


async def test_a_process_has_a_session_of_its_own_out_of_reach_of_ctrl_c(shell):
    async with supervised([shell("api", "exec sleep 60")]) as children:
        assert os.getsid(children["api"].pid) == children["api"].pid


async def test_a_process_that_ends_while_starting_is_quoted(shell):
    async def never():
        return False

    async with supervised([shell("api", "echo no model here; exit 3")], restart=False) as children:
        with pytest.raises(StackError, match=r"api ended with exit code 3 while starting[^$]*no model here"):
            await children["api"].until(never, seconds=10)


async def test_a_process_that_never_answers_is_reported_at_its_deadline(shell):
    async def never():
        return False

    async with supervised([shell("api", "exec sleep 60")]) as children:
        with pytest.raises(StackError, match="api did not answer within 0 s"):
            await children["api"].until(never, seconds=0.1)


async def test_a_command_that_does_not_exist_stops_those_before(shell, tmp_path, monkeypatch):
    processes = []
    spawn = supervisor.spawn

    async def recording(command):
        processes.append(await spawn(command))
        return processes[-1]

    monkeypatch.setattr(supervisor, "spawn", recording)
    absent = Command("worker", (str(tmp_path / "absent"),), tmp_path / "worker.log")
    with pytest.raises(FileNotFoundError):
        async with supervised([shell("api", "exec sleep 60"), absent]):
            pass
    assert [process.returncode for process in processes] == [-signal.SIGTERM]
