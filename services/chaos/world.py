"""What a crash test runs in: Apache Kafka, Redis or a cluster behind fault proxies, and two of each process."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

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
    redis: tuple[Child, ...]
    redis_url: str
    """Redis itself, without a proxy."""
    proxy: FaultProxy | None
    """Between all processes and Redis; a cluster has none, its clients ask it for its addresses."""
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
    async with AsyncExitStack() as stack:
        proxy: FaultProxy | None = None
        if cluster:
            servers = await stack.enter_async_context(redis_cluster(directory / "redis", restart=True))
            url = seen = servers.url
            children = tuple(node.process for node in servers.nodes)
        else:
            server = await stack.enter_async_context(redis_server(directory / "redis", restart=True))
            proxy = await stack.enter_async_context(fault_proxy(LOOPBACK, urlsplit(server.url).port or 0))
            url, seen, children = server.url, f"redis://{proxy.address}/0", (server.process,)
        settings = Settings(
            broker="apache",
            redis_url=seen,
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
            redis=children,
            redis_url=url,
            proxy=proxy,
            broker=up.broker,
        )
