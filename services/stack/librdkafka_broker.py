"""The broker built into librdkafka, for machines without Java: the Kafka protocol in memory, as its own process.

Run as a module it is that process: it prints its address, and ends on SIGTERM or when its standard input
closes, which also happens when the process that started it is killed.
"""

import asyncio
import importlib.util
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer

from services.stack.child import kill_group
from services.stack.errors import StackError

PARTITIONS = 4
"""Of every topic: they come into being when first asked for, and it has no request to make them otherwise."""

_START_SECONDS = 20.0
_STOP_SECONDS = 5.0


@dataclass(frozen=True)
class LibrdkafkaBroker:
    """A running broker."""

    bootstrap: str
    process: Process

    @property
    def pid(self) -> int:
        """Process id of the broker's own process."""
        return self.process.pid


@asynccontextmanager
async def librdkafka_broker() -> AsyncIterator[LibrdkafkaBroker]:
    """Run the broker until the block ends; its topics end with it.

    Raises:
        StackError: confluent-kafka, which contains it, is not installed, or it does not start.
    """
    if importlib.util.find_spec("confluent_kafka") is None:
        raise StackError(
            "no Kafka broker: `pip install realtime-fraud-detection[embedded]` brings librdkafka's; or install"
            " Java 17 and Maven for Apache Kafka; or set FRAUD_KAFKA_BOOTSTRAP to one that runs"
        )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __spec__.name), stdin=PIPE, stdout=PIPE, start_new_session=True
    )
    try:
        yield LibrdkafkaBroker(await _read_address(process), process)
    finally:
        await _stop(process)


async def touch_topics(bootstrap: str, names: Iterable[str]) -> None:
    """Make topics exist by asking for them: the request that creates topics kills this broker."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        for name in names:
            await producer.partitions_for(name)
    finally:
        await producer.stop()


async def _read_address(process: Process) -> str:
    assert process.stdout is not None  # noqa: S101  # it was opened as a pipe
    try:
        line = await asyncio.wait_for(process.stdout.readline(), _START_SECONDS)
    except TimeoutError:
        line = b""
    if not line:
        raise StackError("librdkafka's broker did not start")
    return line.decode().strip()


async def _stop(process: Process) -> None:
    assert process.stdin is not None  # noqa: S101  # it was opened as a pipe
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    finally:
        kill_group(process)


def main() -> None:
    """Be the broker."""
    from confluent_kafka import Producer  # noqa: PLC0415  # optional, and needed only in this process

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing to save: ending at once is a clean stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    client = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    [broker] = client.list_topics(timeout=_START_SECONDS).brokers.values()
    print(f"{broker.host}:{broker.port}", flush=True)  # noqa: T201  # read by `librdkafka_broker`
    sys.stdin.read()


if __name__ == "__main__":
    main()
