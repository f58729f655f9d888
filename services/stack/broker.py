"""Which Kafka broker `fraud up` uses, and what that one does not promise."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aiokafka.errors import KafkaConnectionError

from services.settings import Settings
from services.stack.apache_kafka import apache_kafka
from services.stack.errors import StackError
from services.stack.kafka_jars import available
from services.stack.librdkafka_broker import PARTITIONS, librdkafka_broker, touch_topics
from services.stack.ports import free_port
from services.stack.supervisor import Child
from services.topics import ALL, ensure_topics

KAFKA_PORT = 9092


@dataclass(frozen=True)
class Choice:
    """A kind of broker."""

    name: Literal["external", "apache-kafka", "librdkafka"]
    partitions: int | None
    """The number of partitions it imposes; None leaves it to the settings."""
    limits: str
    """What it does not promise."""
    fetch_wait_ms: int | None = None
    """How long its readers let it wait; None leaves it to the settings."""


EXTERNAL = Choice("external", None, "not started here: promises what it is configured for")
APACHE_KAFKA = Choice(
    "apache-kafka", None, "one node, replication factor 1: survives a killed process, not a lost disk"
)
LIBRDKAFKA = Choice(
    "librdkafka",
    PARTITIONS,
    f"in memory: topics are gone when it stops, about 5 MiB a partition are kept,"
    f" {PARTITIONS} partitions, one member per consumer group",
    fetch_wait_ms=10,  # it answers a reader only when that time is over, also where there is something new
)


@dataclass(frozen=True)
class Broker:
    """A broker that answers and has the project's topics."""

    choice: Choice
    bootstrap: str
    partitions: int
    lost: Callable[[], Awaitable[object]] | None = None
    """Returns when the broker ended for good, its topics with it; None where it is started again."""
    process: Child | None = None
    """Where it is started again when it ends."""


def pick(settings: Settings) -> Choice:
    """The kind FRAUD_BROKER forces, else what FRAUD_KAFKA_BOOTSTRAP names, else the best that can run here.

    Raises:
        StackError: the forced one cannot run here.
    """
    if settings.broker == "librdkafka":
        return LIBRDKAFKA
    if settings.broker == "auto" and "kafka_bootstrap" in settings.model_fields_set:
        return EXTERNAL
    reason = available()
    if reason is None:
        return APACHE_KAFKA
    if settings.broker == "apache":
        raise StackError(f"FRAUD_BROKER=apache, but {reason}")
    return LIBRDKAFKA


@asynccontextmanager
async def open_broker(settings: Settings, directory: Path) -> AsyncIterator[Broker]:
    """Run the picked broker, with its topics, until the block ends.

    Args:
        settings: the wishes.
        directory: where Apache Kafka keeps its log.

    Raises:
        StackError: it does not start.
        PartitionCountError: the topics it stores have another number of partitions than the settings.
    """
    choice = pick(settings)
    partitions = choice.partitions or settings.partitions
    if choice is EXTERNAL:
        try:
            await ensure_topics(settings.kafka_bootstrap, partitions)
        except KafkaConnectionError as error:
            raise StackError(f"FRAUD_KAFKA_BOOTSTRAP: {error}") from error
        yield Broker(choice, settings.kafka_bootstrap, partitions)
    elif choice is APACHE_KAFKA:
        async with apache_kafka(directory, free_port(KAFKA_PORT), restart=True) as node:
            await ensure_topics(node.bootstrap, partitions)
            yield Broker(choice, node.bootstrap, partitions, process=node.process)
    else:
        async with librdkafka_broker() as node:
            await touch_topics(node.bootstrap, ALL)
            yield Broker(choice, node.bootstrap, partitions, lost=node.process.wait)
