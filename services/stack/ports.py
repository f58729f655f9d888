"""Which loopback ports are free.

A port is picked below the range from which the system takes the ports of outgoing connections: a client that
retries on a stopped server's port could otherwise be given that very port, and connect to itself.
"""

import random
import socket

from services.stack.errors import StackError

LOOPBACK = "127.0.0.1"
_PICK_FROM = range(20_000, 32_000)
_HIGHEST = 65_535


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on `host`:`port` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ports of just closed servers count as free
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError:
            return False
    return True


def free_port(preferred: int | None = None) -> int:
    """`preferred` if it is free, else a random free port."""
    if preferred is not None and is_free(preferred):
        return preferred
    for port in random.sample(_PICK_FROM, k=1_000):
        if is_free(port):
            return port
    raise StackError("found no free port on 127.0.0.1")


def free_ports_from(first: int, count: int, host: str = LOOPBACK) -> list[int]:
    """The `count` lowest free ports that are not below `first`."""
    found: list[int] = []
    for port in range(first, _HIGHEST + 1):
        if len(found) == count:
            break
        if is_free(port, host):
            found.append(port)
    if len(found) < count:
        raise StackError(f"found no {count} free ports from {first} on {host}")
    return found
