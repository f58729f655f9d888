import asyncio
import json
import os
import re
import signal
import socket
import sys
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from services.stack.ports import free_port

pytest.importorskip("confluent_kafka")

UP = """
import asyncio, sys
from services.settings import Settings
from services.stack.programs import Program
from services.stack.up import up

programs = [Program(name, (sys.executable, *sys.argv[1:], name)) for name in ("api", "worker", "relay", "updater")]
sys.exit(asyncio.run(up(Settings(), programs=programs)))
"""
NAMES = ("api", "worker", "relay", "updater")
STAND_IN = str(Path(__file__).with_name("stand_in_process.py"))


@pytest.fixture
async def start_up(tmp_path):
    """`await start_up(...)`: `fraud up` with stand-ins in a process of its own."""
    started = []

    async def start(*program, **settings):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FRAUD_")}
        environment |= {"FRAUD_DATA_DIR": str(tmp_path / "var"), "FRAUD_BROKER": "librdkafka"} | settings
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", UP, *(program or (STAND_IN,))),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ready(process):
    """The `ready` block as a dict."""
    lines = []
    async with asyncio.timeout(60):
        while not lines or not lines[-1].startswith("  other terminals"):
            line = (await process.stdout.readline()).decode()
            assert line, (await process.stderr.read()).decode()
            lines.append(line.rstrip())
    assert lines[0].startswith("ready http://127.0.0.1:")
    return {"url": lines[0].removeprefix("ready ")} | dict(
        re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in lines[1:]
    )


async def stand_in(block, name):
    """What the stand-in of this name says about itself."""

    def ask():
        with urlopen(block[f"{name} metrics"]) as answer:  # noqa: S310  # the address is our own
            return json.load(answer)

    return await asyncio.to_thread(ask)


def runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def child_of(parent, word):
    """Pid of the child that has this word in its command."""
    [found] = [child.pid for child in psutil.Process(parent).children() if word in " ".join(child.cmdline())]
    return found


async def redis_pid(url):
    async with Redis.from_url(url, retry=Retry(ConstantBackoff(0.02), 500)) as client:
        return (await client.info("server"))["process_id"]


async def ended(process):
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, out.decode(), err.decode()


async def test_every_process_runs_with_the_addresses_of_the_stack_until_sigterm_stops_all(start_up, tmp_path):
    port = free_port()
    process = await start_up(FRAUD_API_PORT=str(port))
    block = await ready(process)
    assert block["url"] == f"http://127.0.0.1:{port}"
    assert block["api metrics"] == f"http://127.0.0.1:{port}/metrics"
    assert block["logs"] == str(tmp_path / "var" / "librdkafka" / "logs")
    assert "gone when it stops" in block["librdkafka"]

    answers = [await stand_in(block, name) for name in NAMES]
    for answer in answers:
        environment = answer["environment"]
        assert environment["FRAUD_KAFKA_BOOTSTRAP"] == block["kafka"]
        assert environment["FRAUD_REDIS_URL"] == block["redis"]
        assert environment["FRAUD_PARTITIONS"] == "4"
    pids = [answer["pid"] for answer in answers] + [await redis_pid(block["redis"])]

    process.terminate()
    assert await ended(process) == (0, "stopped\n", "")
    assert not any(runs(pid) for pid in pids)


async def test_redis_keeps_its_state_from_one_run_to_the_next(start_up):
    for value in (None, b"kept"):
        process = await start_up(FRAUD_API_PORT="0")
        block = await ready(process)
        async with Redis.from_url(block["redis"]) as client:
            assert await client.get("state") == value
            await client.set("state", "kept")
        process.send_signal(signal.SIGINT)
        code, _, _ = await ended(process)
        assert code == 0


async def test_a_killed_process_is_started_again_and_so_is_redis(start_up, eventually):
    process = await start_up(FRAUD_API_PORT="0")
    block = await ready(process)
    first, first_redis = (await stand_in(block, "worker"))["pid"], await redis_pid(block["redis"])
    os.kill(first, signal.SIGKILL)
    os.kill(first_redis, signal.SIGKILL)

    async def worker_is_another():
        try:
            return (await stand_in(block, "worker"))["pid"] != first
        except OSError:
            return False

    await eventually(worker_is_another)
    assert await redis_pid(block["redis"]) != first_redis
    process.terminate()
    code, _, err = await ended(process)
    assert code == 0
    assert "worker ended with exit code -9, restarting" in err
    assert "redis ended with exit code -9, restarting" in err


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
async def test_nothing_is_left_behind_when_it_is_itself_killed(start_up, eventually):
    process = await start_up(FRAUD_API_PORT="0")
    block = await ready(process)
    pids = [(await stand_in(block, name))["pid"] for name in NAMES]
    pids.append(await redis_pid(block["redis"]))
    kafka_host, kafka_port = block["kafka"].split(":")
    process.kill()
    await eventually(lambda: not any(runs(pid) for pid in pids))

    def broker_is_gone():
        with socket.socket() as probe:
            return probe.connect_ex((kafka_host, int(kafka_port))) != 0

    await eventually(broker_is_gone)


async def test_a_second_one_on_the_same_data_is_refused(start_up):
    first = await start_up(FRAUD_API_PORT="0")
    await ready(first)
    code, _, err = await ended(await start_up(FRAUD_API_PORT="0"))
    assert code == 1
    assert "is in use by another process" in err
    assert "FRAUD_DATA_DIR" in err
    first.terminate()
    await ended(first)


async def test_a_taken_api_port_is_refused_with_the_name_of_its_setting(start_up):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = await ended(await start_up(FRAUD_API_PORT=str(port)))
    assert result == (1, "", f"error: port {port} is taken: set FRAUD_API_PORT to a free one\n")


async def test_a_process_that_keeps_crashing_ends_it_with_the_last_lines_of_its_log(start_up):
    code, out, err = await ended(await start_up("-c", "raise SystemExit('no model here')", FRAUD_API_PORT="0"))
    assert (code, out) == (1, "")
    assert "error: api ended with exit code 1 while starting" in err
    assert err.rstrip().endswith("no model here")


async def test_it_ends_when_the_broker_that_keeps_its_topics_in_memory_is_gone(start_up):
    process = await start_up(FRAUD_API_PORT="0")
    await ready(process)
    os.kill(child_of(process.pid, "librdkafka_broker"), signal.SIGKILL)
    code, _, err = await ended(process)
    assert code == 1
    assert "error: the broker ended: in memory" in err


async def test_an_external_broker_that_does_not_answer_is_named(start_up):
    code, _, err = await ended(
        await start_up(FRAUD_API_PORT="0", FRAUD_BROKER="auto", FRAUD_KAFKA_BOOTSTRAP=f"127.0.0.1:{free_port()}")
    )
    assert code == 1
    assert "error: FRAUD_KAFKA_BOOTSTRAP: " in err
