"""Keys of a cluster, and ways to call it and to harm it."""

import contextlib
import os
import signal

from redis.asyncio.cluster import ClusterNode
from redis.crc import key_slot

from services.stack.ports import free_port
from services.stack.redis_server import RedisServer

KEYS = [f"{{{tag}}}key" for tag in range(12)]
KEY = KEYS[5]
FORSAKEN = 10_922
"""A slot of KEY's node that no key here is in."""
COUNT = "return redis.call('INCR', KEYS[1])"
SHORT = 0.3
"""A timeout that passes in a test, and in which a node that is well answers even on a busy machine."""
LONG = 30.0
"""A timeout that does not pass."""


@contextlib.contextmanager
def hung(*nodes: RedisServer):
    """Nodes that take connections and answer nothing."""
    for node in nodes:
        os.kill(node.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for node in nodes:
            os.kill(node.pid, signal.SIGCONT)


def elsewhere(cluster, key):
    """A key of another node."""
    return next(other for other in KEYS if cluster.node_of(other) is not cluster.node_of(key))


def misled(client, key):
    """Make the client believe that `key` is where nothing listens."""
    nowhere = ClusterNode("127.0.0.1", free_port(), **client.connection_kwargs)
    client.nodes_manager.slots_cache[key_slot(key.encode())] = [nowhere]


async def piped(client, *commands, raise_on_error=True):
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    return await pipeline.execute(raise_on_error=raise_on_error)
