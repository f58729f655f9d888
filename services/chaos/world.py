"""What a crash test runs in: Apache Kafka, Redis or a cluster behind fault proxies, and two of each process."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.chaos.proxy import FaultProxy, fault_proxy
from services.settings import Settings
from services.stack.broker import Broker
from services.stack.ports import LOOPBACK, free_port
from services.stack.programs import fleet
from services.stack.redis_cluster import redis_cluster
from services.stack.redis_server import redis_server
from services.stack.running import running
from services.stack.supervisor import Child

OF_EACH = 2


@dataclass(frozen=True)
class World:
    """A running stack, with a hand on everything that can fail."""

    settings: Settings
    """As its processes have them."""
    apis: tuple[str, ...]
    """Addresses of the HTTP doors."""
    processes: Mapping[str, Child]
    """By name, such as api-1."""
    redis: tuple[Child, ...]
    proxies: tuple[FaultProxy, ...]
    """One in front of each of `redis`, between it and all processes; the nodes of a cluster send clients there."""
    broker: Broker

    def of(self, kind: str) -> Sequence[Child]:
        """Give the processes of a kind."""
        return [child for name, child in self.processes.items() if name.partition("-")[0] == kind]


@asynccontextmanager
async def world(directory: Path, *, cluster: bool) -> AsyncIterator[World]:
    """Run it on data in `directory`, until the block ends.

    Raises:
        StackError: Apache Kafka or Redis cannot run here.
    """
    proxies: list[FaultProxy] = []

    @asynccontextmanager
    async def front(port: int) -> AsyncIterator[int]:
        """Put a proxy in front of the server at `port`; give the proxy's."""
        async with fault_proxy(LOOPBACK, port) as proxy:
            proxies.append(proxy)
            yield proxy.port

    async with AsyncExitStack() as stack:
        if cluster:
            nodes = redis_cluster(directory / "redis", restart=True, front=front)
            servers = tuple(node.process for node in (await stack.enter_async_context(nodes)).nodes)
        else:
            port = free_port()
            await stack.enter_async_context(front(port))
            server = redis_server(directory / "redis", port, restart=True)
            servers = ((await stack.enter_async_context(server)).process,)
        settings = Settings(
            broker="apache",
            redis_url=f"redis://{proxies[0].address}/0",
            redis_cluster=cluster,
            data_dir=directory / "stack",
            api_port=free_port(),
            redis_timeout_seconds=1.0,
            redis_patience_seconds=2.0,
        )
        programs = fleet(api=OF_EACH, worker=OF_EACH, relay=OF_EACH, updater=OF_EACH)
        up = await stack.enter_async_context(running(settings, programs))
        started = {"kafka_bootstrap": up.broker.bootstrap, "partitions": up.broker.partitions}
        yield World(
            settings=settings.model_copy(update=started),
            apis=tuple(address.url for name, address in up.addresses.items() if name.startswith("api")),
            processes=up.children,
            redis=servers,
            proxies=tuple(proxies),
            broker=up.broker,
        )
