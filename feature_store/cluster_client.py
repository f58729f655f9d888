"""redis-py's cluster client, made to fail as fast as the one for a single Redis. Each override names what 8.1 does."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis import exceptions
from redis.asyncio.cluster import ClusterNode, ClusterPipeline, PipelineCommand, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.cluster import PRIMARY

CONNECTIONS_PER_NODE = 256
"""Most connections to a node. Further callers are refused at once, so it is more than a stall fills."""
LOOK_SECONDS = 1.0
"""Least time between two looks where the slots are: a look renews all connections."""
REDIRECTIONS = 5
"""How often a call follows a slot that moves."""

_LOST = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ClusterDownError)


class PromptCluster(RedisCluster):
    """redis-py's client, failing as fast as the one for a single Redis.

    As it comes, 8.1 sleeps a quarter of a second and closes every connection when a node says that the cluster is
    down; queues callers without end when no node answers; sends ASKING over another connection than the command it is
    for; does not look where the slots are when a pipeline finds a node gone; fails calls on connections that a node
    closed long ago; and closes nothing after a failed call.
    """

    def __init__(self, *, timeout: float, **options: Any) -> None:
        super().__init__(socket_timeout=timeout, socket_connect_timeout=timeout, **options)
        self._timeout = timeout
        self._last_look = -math.inf
        made_by = self.connection_kwargs["connection_class"]
        self.connection_kwargs["connection_class"] = type("Connection", (_Noticing, made_by), {})

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Bound one call: so long to find the slots, if need be, and so long for all the rest."""
        try:
            if self._initialize:
                async with asyncio.timeout(self._timeout):
                    await self.initialize()
            async with asyncio.timeout(self._timeout):
                yield
        except exceptions.MaxConnectionsError:
            raise  # no word about the node
        except _LOST:
            self._look_again()
            raise
        except TimeoutError:
            self._look_again()
            raise exceptions.TimeoutError(f"the cluster did not answer within {self._timeout} s") from None

    def _look_again(self) -> None:
        """Have the next call find out where the slots are now."""
        now = time.monotonic()
        if now - self._last_look >= LOOK_SECONDS:
            self._last_look = now
            self._initialize = True

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command on the node or nodes it is for."""
        async with self.call():
            return await super().execute_command(*args, **kwargs)

    async def _execute_command(self, target_node: ClusterNode, *args: Any, **kwargs: Any) -> Any:
        """Ask one node. A refusal that says where the slot is, or is going to, is followed; all else is the answer."""
        node, asking = target_node, False
        for _ in range(REDIRECTIONS):
            try:
                return await (_ask if asking else ClusterNode.execute_command)(node, *args, **kwargs)
            except exceptions.AskError as redirection:
                asking = not isinstance(redirection, exceptions.MovedError)
                if not asking:
                    await self.nodes_manager.move_slot(redirection)
                node = self._node_at(redirection.host, redirection.port)
        raise exceptions.ClusterError("the slot moved again and again")

    def _node_at(self, host: str, port: int) -> ClusterNode:
        """Give the node, also one that no slot is known of: it may be about to be given its first."""
        node = self.get_node(host, port) or ClusterNode(host, port, PRIMARY, **self.connection_kwargs)
        return self.nodes_manager.nodes_cache.setdefault(node.name, node)

    def pipeline(self, transaction: Any | None = None, shard_hint: Any | None = None) -> ClusterPipeline:  # noqa: ARG002  # as redis-py has it
        """Collect commands; each goes to its node, to all nodes at the same time."""
        return _Pipeline(self, transaction)  # type: ignore[abstract]  # so is redis-py's own, to mypy

    async def aclose(self) -> None:
        """Close all connections."""
        self._initialize = False  # else redis-py takes them for closed
        await super().aclose()


class _Noticing(AbstractConnection):
    """Is made anew for the next call when the node has closed it, as a pool for a single Redis does it."""

    def should_reconnect(self) -> bool:
        reader, writer = self._reader, self._writer
        closed = reader is not None and writer is not None and (reader.at_eof() or writer.is_closing())
        return closed or self._should_reconnect


class _Pipeline(ClusterPipeline):
    """Raises when a node, or its cluster, is lost, as on a single Redis; any other error is a reply like others."""

    def __init__(self, client: PromptCluster, transaction: bool | None) -> None:
        super().__init__(client, transaction)
        self._call = client.call

    async def execute(self, raise_on_error: bool = True, allow_redirections: bool = True) -> list[Any]:
        """Send the commands and give their replies in order."""
        async with self._call():
            replies = await super().execute(raise_on_error, allow_redirections)
            for reply in replies:
                if isinstance(reply, _LOST):
                    raise reply
            return replies


async def _ask(node: ClusterNode, *args: Any, **kwargs: Any) -> Any:
    """Run a command in a slot that `node` is being given: ASKING is for the next command of its connection."""
    command = PipelineCommand(1, *args, **kwargs)
    await node.execute_pipeline([PipelineCommand(0, "ASKING"), command])
    if isinstance(command.result, Exception):
        raise command.result
    return command.result
