"""A real Redis Cluster on loopback, three masters: what holds on one Redis need not hold where keys have homes.

Formed without redis-cli, which the wheel with redis-server does not bring, and with nothing newer than Redis 6.2.
"""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError

from services.stack.errors import StackError
from services.stack.ports import LOOPBACK, is_free
from services.stack.redis_server import RedisServer, redis_server

SLOTS = (range(5461), range(5461, 10923), range(10923, 16384))
"""The slots of each node, as redis-cli would give them out."""
_TO_BUS = 10_000
"""Nodes talk to each other on their port plus this; Redis 6.2 has no option for another."""
_PICK_FROM = range(20_000, 22_000)
"""Keeps the bus, too, below the ports of outgoing connections; see `ports`."""
_OPTIONS = {"cluster-enabled": "yes", "cluster-node-timeout": "2000"}
_FORM_SECONDS = 30.0

Front = Callable[[int], AbstractAsyncContextManager[int]]
"""Given the port of a node, gives another one that leads there, until the block ends."""


@dataclass(frozen=True)
class RedisClusterServers:
    """A running cluster."""

    nodes: tuple[RedisServer, ...]
    """In the order of `SLOTS`."""
    announced: tuple[int, ...]
    """The port to which clients of each are sent."""

    @property
    def url(self) -> str:
        """Where a client may begin."""
        return self.nodes[0].url

    def node_of(self, key: str) -> RedisServer:
        """Give the node that holds `key`."""
        slot = key_slot(key.encode())
        return next(node for node, slots in zip(self.nodes, SLOTS, strict=True) if slot in slots)

    async def is_whole(self) -> bool:
        """Whether it `is_whole_to` every node."""
        return all([await self.is_whole_to(node) for node in self.nodes])

    async def is_whole_to(self, node: RedisServer) -> bool:
        """Whether `node` answers, knows where all slots are now, and finds the cluster in order."""
        return await _view(node) == ("ok", dict(zip(SLOTS, self.announced, strict=True)))


@asynccontextmanager
async def redis_cluster(
    directory: Path, *, restart: bool = False, front: Front | None = None
) -> AsyncIterator[RedisClusterServers]:
    """Run three masters on the data in `directory`, from when they serve all slots until the block ends.

    Args:
        directory: has a directory of `redis_server` for each node, with its nodes.conf. The data outlive the block
            and may be opened again; the ports are others then.
        restart: start a node again when it crashes. Redis lets it serve its slots two seconds later.
        front: stands between clients and each node, which sends them there.

    Raises:
        StackError: no redis-server, or it does not start on these data, or they are not those of such a cluster.
    """
    async with AsyncExitStack() as stack:
        nodes, announced = [], []
        for n in range(len(SLOTS)):
            port = _free_port()
            announced.append(await stack.enter_async_context(front(port)) if front else port)
            options = _OPTIONS | {"cluster-announce-port": str(announced[-1])}
            node = redis_server(directory / f"node-{n}", port, restart=restart, options=options)
            nodes.append(await stack.enter_async_context(node))
        cluster = RedisClusterServers(tuple(nodes), tuple(announced))
        await _form(cluster)
        yield cluster


async def _form(cluster: RedisClusterServers) -> None:
    for epoch, (node, slots) in enumerate(zip(cluster.nodes, SLOTS, strict=True), start=1):
        async with _joining(node) as client:
            if (await client.cluster("INFO"))["cluster_slots_assigned"] == "0":
                await client.cluster("ADDSLOTS", *slots)  # in one command: it keeps them all, in nodes.conf, or none
                await client.cluster("SET-CONFIG-EPOCH", epoch)  # allowed only before it meets another
    for node in cluster.nodes:
        async with _joining(node) as client:
            for other in set(cluster.nodes) - {node}:  # also where they have met before: the ports are others now
                await client.cluster("MEET", LOOPBACK, _port(other))
    for node in cluster.nodes:
        await node.process.until(partial(cluster.is_whole_to, node), _FORM_SECONDS)


@asynccontextmanager
async def _joining(node: RedisServer) -> AsyncIterator[Redis]:
    try:
        async with _client(node) as client:
            yield client
    except RedisError as error:
        command = node.process.command
        quoted = f"{command.log} says:\n{command.log_tail()}"
        raise StackError(f"{node.url} cannot join the cluster: {error}; {quoted}") from error


async def _view(node: RedisServer) -> tuple[str, dict[range, int]] | None:
    """Give the state of the cluster and the port of each range of slots, as `node` sees them."""
    try:
        async with _client(node) as client:
            state = (await client.cluster("INFO"))["cluster_state"]
            return state, {range(first, last + 1): home[1] for first, last, home in await client.cluster("SLOTS")}
    except RedisError:
        return None


def _client(node: RedisServer) -> Redis:
    return Redis.from_url(node.url, socket_timeout=1.0, retry=Retry(NoBackoff(), 0))


def _port(node: RedisServer) -> int:
    return int(node.url.rsplit(":", 1)[1].split("/")[0])


def _free_port() -> int:
    for port in random.sample(_PICK_FROM, k=len(_PICK_FROM)):
        if is_free(port) and is_free(port + _TO_BUS):
            return port
    raise StackError("found no free port for a node of a cluster on 127.0.0.1")
