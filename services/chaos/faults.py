"""The kinds of kill point: each strikes a running stack, by killing something or by arming a fault in its proxies."""

import asyncio
import os
import random
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass

from redis.asyncio import Redis

from feature_store.scripts import load
from services.chaos.proxy import Fault
from services.chaos.world import World
from services.stack.supervisor import Child

STRIKES_WITHIN = 40.0
"""Seconds until a fault has met its request, and until a killed server has ended."""

Strike = Callable[[World, random.Random], Coroutine[None, None, None]]
"""Does it; returns when it is under way. The random numbers choose whom."""


class MissedError(Exception):
    """The request a fault was waiting for never came."""


def kill(kind: str) -> Strike:
    """SIGKILL one process of a kind."""

    async def strike(world: World, rng: random.Random) -> None:
        rng.choice(world.of(kind)).kill()

    return strike


def leave(kind: str) -> Strike:
    """Have a member leave its group while it works (SIGTERM); its successor joins: two rebalances."""

    async def strike(world: World, rng: random.Random) -> None:
        child = rng.choice(world.of(kind))
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGTERM)

    return strike


async def kill_redis(world: World, rng: random.Random) -> None:
    """SIGKILL redis-server, or a master of the cluster; it comes back with its append-only file."""
    await _ended(rng.choice(world.redis))


async def kill_kafka(world: World, _: random.Random) -> None:
    """SIGKILL the broker; it comes back with its log."""
    assert world.broker.process is not None  # noqa: S101 - it is started here
    await _ended(world.broker.process)


async def kill_redis_and_relays(world: World, rng: random.Random) -> None:
    """SIGKILL redis-server, and the relays while they recover."""
    await _ended(rng.choice(world.redis))
    await asyncio.sleep(rng.uniform(0.2, 3.0))
    for child in world.of("relay"):
        child.kill()


async def kill_redis_and_kafka(world: World, rng: random.Random) -> None:
    """SIGKILL both servers at once."""
    await asyncio.gather(kill_redis(world, rng), kill_kafka(world, rng))


async def forget_scripts(world: World, rng: random.Random) -> None:
    """Have redis-server, or a master of the cluster, forget all scripts."""
    async with Redis.from_url(f"redis://{rng.choice(world.proxies).address}") as client:
        await client.script_flush()


async def silence(world: World, rng: random.Random) -> None:
    """Let nothing through to Redis, or to one master, for longer than anyone waits, then everything."""
    fault = rng.choice(world.proxies).silence()
    await asyncio.sleep(rng.uniform(0.5, 3.0))
    fault.lift()


def lose_reply(script: str) -> Strike:
    """Lose the reply after the script ran: its caller cannot know."""

    async def strike(world: World, _: random.Random) -> None:
        await _meets(world, Fault("lose reply", _digest(script), 1))

    return strike


def lose_request(script: str) -> Strike:
    """Lose the request: the script does not run, after all that its caller did before had its effect."""

    async def strike(world: World, _: random.Random) -> None:
        await _meets(world, Fault("lose request", _digest(script), 1))

    return strike


def while_recovering(fault: Strike) -> Strike:
    """Kill Redis, and have the fault meet the recovery that follows."""

    async def strike(world: World, rng: random.Random) -> None:
        met = asyncio.create_task(fault(world, rng))
        await asyncio.sleep(0)  # runs it up to its first wait: it is armed
        await kill_redis(world, rng)
        await met

    return strike


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of kill point."""

    name: str
    strike: Strike


KINDS: Sequence[Kind] = (
    Kind("api killed", kill("api")),
    Kind("worker killed", kill("worker")),
    Kind("relay killed", kill("relay")),
    Kind("updater killed", kill("updater")),
    Kind("redis-server killed", kill_redis),
    Kind("Kafka broker killed", kill_kafka),
    Kind("redis-server and broker killed", kill_redis_and_kafka),
    Kind("redis-server killed, relays killed while they recover", kill_redis_and_relays),
    Kind("worker leaves and joins (rebalance)", leave("worker")),
    Kind("updater leaves and joins (rebalance)", leave("updater")),
    Kind("scripts forgotten", forget_scripts),
    Kind("reply lost after the commit", lose_reply("commit")),
    Kind("commit lost", lose_request("commit")),
    Kind("relay stopped between publishing and trimming", lose_request("trim_outbox")),
    Kind("reply lost after entities were written", lose_reply("write")),
    Kind("write of entities lost", lose_request("write")),
    Kind("updater stopped between counting and settling", lose_request("settle")),
    Kind("recovery stopped before it opens", while_recovering(lose_request("open_gate"))),
    Kind("reply lost after the gate opened", while_recovering(lose_reply("open_gate"))),
    Kind("Redis silent", silence),
)


def _digest(script: str) -> bytes:
    return load(script).digest.encode()


async def _meets(world: World, fault: Fault) -> None:
    """Wait until it has met its request, on whichever server."""
    for proxy in world.proxies:
        proxy.arm(fault)
    try:
        async with asyncio.timeout(STRIKES_WITHIN):
            await fault.happened.wait()
    except TimeoutError:
        raise MissedError from None
    finally:
        fault.lift()


async def _ended(child: Child) -> None:
    """Kill, and wait until it has ended; its supervisor starts the next one."""
    ended = len(child.exits)
    child.kill()
    async with asyncio.timeout(STRIKES_WITHIN):
        while True:
            if len(child.exits) > ended:
                return
            await asyncio.sleep(0.01)
