"""The two doors, as a replay uses them: send a transaction or a label, and say where it went."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

import aiohttp
import msgspec
from aiokafka import AIOKafkaProducer

from feature_store.transaction import Event, Label, Transaction
from services.api.labels import LabelAccepted
from services.topics import LABELS, TRANSACTIONS

Place = tuple[int, int]
"""Partition and offset."""
ATTEMPTS = 5
"""Tries of a request that got no answer or a 503; repeating is safe."""


class RefusedError(Exception):
    """The HTTP door refused a transaction for good, with this problem document."""


class Door(Protocol):
    """A way in."""

    async def send(self, transaction: Transaction) -> Place | None:
        """Send a transaction; gives its place in topic transactions, or None if it has been decided already.

        Raises:
            RefusedError: it never will be.
        """

    async def label(self, label: Label) -> Place:
        """Send a label; gives its place in topic labels."""


@dataclass
class KafkaDoor:
    """Topic transactions."""

    producer: AIOKafkaProducer

    async def send(self, transaction: Transaction) -> Place:
        """See `Door.send`."""
        return await self._send(TRANSACTIONS, transaction)

    async def label(self, label: Label) -> Place:
        """See `Door.label`."""
        return await self._send(LABELS, label)

    async def _send(self, topic: str, event: Event) -> Place:
        sent = await (await self.producer.send(topic, msgspec.json.encode(event), key=event.card_id.encode()))
        return sent.partition, sent.offset


@dataclass
class HttpDoor:
    """The API. The latency it collects ends when the answer has been read."""

    session: aiohttp.ClientSession
    seconds: list[float] = field(default_factory=list)
    """How long each answer took."""

    async def send(self, transaction: Transaction) -> None:
        """See `Door.send`."""
        started = time.perf_counter()
        status, answer = await self._post("/v1/decisions", transaction)
        self.seconds.append(time.perf_counter() - started)
        if status != HTTPStatus.OK:
            raise RefusedError(answer.decode())

    async def label(self, label: Label) -> Place:
        """See `Door.label`."""
        status, answer = await self._post("/v1/labels", label)
        if status != HTTPStatus.ACCEPTED:
            raise RefusedError(answer.decode())
        accepted = msgspec.json.decode(answer, type=LabelAccepted)
        return accepted.partition, accepted.offset

    async def _post(self, path: str, event: Event) -> tuple[int, bytes]:
        for attempt in range(ATTEMPTS):
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self.session.post(path, data=msgspec.json.encode(event)) as response:
                    answer = await response.read()
                    if response.status != HTTPStatus.SERVICE_UNAVAILABLE:
                        return response.status, answer
            await asyncio.sleep(0.1 * 2**attempt)
        raise RefusedError(f"no answer from {path} in {ATTEMPTS} attempts")
