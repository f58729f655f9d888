"""The whole stack as one block: broker, Redis, the four processes; started in this order, stopped in reverse.

Redis state and the log it is a function of live side by side, in one directory for each kind of broker.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from services.settings import Settings
from services.stack.broker import Broker, open_broker, pick
from services.stack.directory_lock import locked
from services.stack.health import healthy
from services.stack.ports import free_port
from services.stack.programs import PROGRAMS, Address, Program, addresses, commands
from services.stack.redis_cluster import redis_cluster
from services.stack.redis_server import redis_server
from services.stack.supervisor import Child, supervised

REDIS_PORT = 6379
_HEALTHY_SECONDS = 300.0  # the first start after a power cut brings state up to the log
_CRASHES = 2  # the third is no longer bad luck


@dataclass(frozen=True)
class Running:
    """A stack whose processes all answered."""

    broker: Broker
    redis_url: str
    directory: Path
    logs: Path
    """One file for each process."""
    addresses: Mapping[str, Address]
    children: Mapping[str, Child]
    servers: tuple[Child, ...]
    """The redis-servers that were started here: one, or the masters of the cluster."""


@asynccontextmanager
async def running(settings: Settings, programs: Sequence[Program] = PROGRAMS) -> AsyncIterator[Running]:
    """Run the stack from when every process is healthy until the block ends.

    Args:
        settings: handed to every process through its environment, with the addresses filled in.
        programs: the processes, the API first.

    Raises:
        StackError: something cannot start; the text quotes its log.
        PartitionCountError: the stored topics have another number of partitions than the settings.
    """
    directory = settings.data_dir / pick(settings).name
    logs = directory / "logs"
    async with locked(directory):
        listening = addresses(settings, programs)
        async with (
            open_broker(settings, directory / "kafka") as broker,
            _open_redis(settings, directory / "redis") as (redis_url, servers),
        ):
            started = {
                "kafka_bootstrap": broker.bootstrap,
                "redis_url": redis_url,
                "partitions": broker.partitions,
                "kafka_fetch_wait_ms": broker.choice.fetch_wait_ms or settings.kafka_fetch_wait_ms,
            }
            stack = settings.model_copy(update=started)
            async with supervised(commands(stack, programs, listening, logs)) as children:
                await _all_healthy(children, listening)
                yield Running(broker, redis_url, directory, logs, listening, children, servers)


@asynccontextmanager
async def _open_redis(settings: Settings, directory: Path) -> AsyncIterator[tuple[str, tuple[Child, ...]]]:
    """The Redis that FRAUD_REDIS_URL names, else one of our own, or a cluster with FRAUD_REDIS_CLUSTER."""
    if "redis_url" in settings.model_fields_set:
        yield settings.redis_url, ()
    elif settings.redis_cluster:
        async with redis_cluster(directory.with_name("redis-cluster"), restart=True) as cluster:
            yield cluster.url, tuple(node.process for node in cluster.nodes)
    else:
        async with redis_server(directory, free_port(REDIS_PORT), restart=True) as server:
            yield server.url, (server.process,)


async def _all_healthy(children: Mapping[str, Child], listening: Mapping[str, Address]) -> None:
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _HEALTHY_SECONDS
    for name, address in listening.items():
        answers = partial(healthy, address.reachable_host, address.port)
        await children[name].until(answers, give_up - loop.time(), crashes=_CRASHES)
