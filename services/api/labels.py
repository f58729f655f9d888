"""`/v1/labels`: a chargeback comes in and goes to topic `labels`; it is accepted when the broker has it."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from feature_store.transaction import Label, parse
from services.api import problems
from services.api.endpoint import Endpoint
from services.api.reply import Reply
from services.kafka import open_producer
from services.metrics import Metrics
from services.settings import Settings
from services.topics import LABELS


class LabelAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """Where in the log the label is."""

    transaction_id: str
    topic: str
    partition: int
    offset: int


class LabelSender:
    """Sends labels; connects with the first one, so that decisions never wait for Kafka."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open = contextlib.AsyncExitStack()
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()

    async def send(self, label: Label) -> LabelAccepted:
        """Send one label.

        Raises:
            KafkaError, TimeoutError: the broker did not acknowledge it; sending it again is safe.
        """
        producer = await self._connected()
        sent = await asyncio.wait_for(
            producer.send_and_wait(LABELS, msgspec.json.encode(label), key=label.card_id.encode()),
            self._settings.kafka_timeout_seconds,
        )
        return LabelAccepted(
            transaction_id=label.transaction_id, topic=LABELS, partition=sent.partition, offset=sent.offset
        )

    async def _connected(self) -> AIOKafkaProducer:
        async with self._connecting:
            if self._producer is None:
                self._producer = await self._open.enter_async_context(open_producer(self._settings))
            return self._producer

    async def aclose(self) -> None:
        """Stop the producer, if one was started."""
        await self._open.aclose()


class Labels:
    """The endpoint."""

    def __init__(self, sender: LabelSender, metrics: Metrics, now: Callable[[], datetime]) -> None:
        self._sender = sender
        self._now = now
        self.post = Endpoint(self._post, metrics)

    async def _post(self, _: Mapping[str, str], body: bytes) -> tuple[str, Reply]:
        """Accept the label in the body."""
        label = parse(Label, body, now=self._now())
        try:
            accepted = await self._sender.send(label)
        except (KafkaError, TimeoutError):
            return "unavailable", problems.unavailable("the label could not be written to the log in time")
        return "accepted", Reply(202, msgspec.json.encode(accepted))
