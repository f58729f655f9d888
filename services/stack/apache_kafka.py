"""One node of Apache Kafka itself (KRaft) on loopback: the one embedded broker whose log survives a restart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from services.stack.directory_lock import locked
from services.stack.errors import StackError
from services.stack.kafka_jars import available, download
from services.stack.kafka_storage import prepare
from services.stack.ports import LOOPBACK, free_port
from services.stack.supervisor import Child, supervised

_START_SECONDS = 60.0
_ANSWER_MILLISECONDS = 2_000


@dataclass(frozen=True)
class ApacheKafka:
    """A running node."""

    bootstrap: str
    process: Child

    @property
    def pid(self) -> int:
        """Process id of its Java machine."""
        return self.process.pid


@asynccontextmanager
async def apache_kafka(
    directory: Path, port: int | None = None, *, restart: bool = False
) -> AsyncIterator[ApacheKafka]:
    """Run a node on the log in `directory`, from when it answers until the block ends.

    Args:
        directory: log and kafka.log; used by one node at a time. The log outlives the block and may be
            opened again, also on another port.
        port: on loopback; None picks a free one.
        restart: start it again when it crashes.

    Raises:
        StackError: Apache Kafka cannot run here, be downloaded, or start on this log.
    """
    if reason := available():
        raise StackError(f"Apache Kafka cannot run here: {reason}")
    jars = await download()
    port = port or free_port()
    async with locked(directory) as lock:
        command = await prepare(directory, jars, port, lock)
        async with supervised([command], restart=restart) as children:
            node = ApacheKafka(f"{LOOPBACK}:{port}", children["kafka"])
            await node.process.until(lambda: _answers(port), _START_SECONDS)
            yield node


async def _answers(port: int) -> bool:
    """Whether the node accepts connections and knows itself as a broker."""
    if not await _accepts(port):
        return False
    client = AIOKafkaClient(bootstrap_servers=f"{LOOPBACK}:{port}", request_timeout_ms=_ANSWER_MILLISECONDS)
    try:
        await client.bootstrap()
        return bool(client.cluster.brokers())
    except KafkaError:
        return False
    finally:
        await client.close()


async def _accepts(port: int) -> bool:
    """A bare connect first: the client logs each refusal as an error."""
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    return True
