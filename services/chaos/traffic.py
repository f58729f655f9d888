"""The callers of a crash test: seeded transactions and labels over both doors, sent until they are acknowledged.

What was acknowledged is all that the promises are about, so it is noted here and nowhere else.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import aiohttp
import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from feature_store.transaction import Event, Label, Transaction
from services.topics import LABELS, TRANSACTIONS

CARDS, MERCHANTS = 7, 4
"""Few, so that transactions meet."""
CALLERS = 8
PAUSE_SECONDS = 0.05
PATIENCE_SECONDS = 180.0

Identity = tuple[str, str]
"""Card and transaction."""


class NotAcknowledgedError(Exception):
    """Something was not acknowledged within the patience, or refused for good."""


@dataclass
class Traffic:
    """Sends, and notes what was acknowledged."""

    apis: Sequence[str]
    http: aiohttp.ClientSession
    producer: AIOKafkaProducer
    rng: random.Random
    transactions: dict[Identity, Transaction] = field(default_factory=dict)
    """Every one that was acknowledged by a door."""
    answers: defaultdict[Identity, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """What the HTTP doors answered."""
    labels: set[Identity] = field(default_factory=set)
    """Every label that was acknowledged."""
    acknowledged: int = 0
    _made: int = 0
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, count: int) -> None:
        """Send so many transactions, some twice and over both doors, some with a label, each until acknowledged.

        Raises:
            ExceptionGroup: of NotAcknowledgedError.
        """
        queue: asyncio.Queue[list[tuple[str, Event]]] = asyncio.Queue()
        for _ in range(count):
            queue.put_nowait(self._ways(self._transaction()))

        async def call() -> None:
            while not queue.empty():
                for door, event in queue.get_nowait():
                    await self._until_acknowledged(door, event)

        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(call())

    async def after(self, count: int) -> None:
        """Wait until so many have been acknowledged in all."""
        while self.acknowledged < count:
            self._moved.clear()
            await self._moved.wait()

    def _transaction(self) -> Transaction:
        self._made += 1
        late = self.rng.choice((0, 0, 0, 5, 200, 4_000, 90_000))
        return Transaction(
            transaction_id=f"t{self._made}",
            card_id=f"c{self.rng.randrange(CARDS)}",
            merchant_id=f"m{self.rng.randrange(MERCHANTS)}",
            amount=self.rng.randrange(1, 50_000),
            currency="EUR",
            event_time=datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=late),
        )

    def _ways(self, transaction: Transaction) -> list[tuple[str, Event]]:
        """Choose the doors of a transaction, in order, and whether a label comes with it."""
        ways = self.rng.choice((["http"], ["http"], ["kafka"], ["http", "kafka"], ["kafka", "http"], ["http", "http"]))
        events: list[tuple[str, Event]] = [(door, transaction) for door in ways]
        if self.rng.random() < 0.25:  # noqa: PLR2004
            shared = {name: getattr(transaction, name) for name in Event.__struct_fields__}
            label = Label(**shared, is_fraud=self.rng.random() < 0.5)  # noqa: PLR2004
            events.insert(self.rng.randrange(len(events) + 1), (self.rng.choice(("http", "kafka")), label))
        return events

    async def _until_acknowledged(self, door: str, event: Event) -> None:
        identity = (event.card_id, event.transaction_id)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    if await (self._post(event) if door == "http" else self._produce(event)):
                        break
                    await asyncio.sleep(PAUSE_SECONDS)
        except TimeoutError:
            raise NotAcknowledgedError(f"{identity} over {door} within {PATIENCE_SECONDS:g} s") from None
        if isinstance(event, Transaction):
            self.transactions[identity] = event
        else:
            self.labels.add(identity)
        self.acknowledged += 1
        self._moved.set()

    async def _post(self, event: Event) -> bool:
        path, wanted = ("/v1/decisions", HTTPStatus.OK) if isinstance(event, Transaction) else (
            "/v1/labels", HTTPStatus.ACCEPTED)  # fmt: skip
        try:
            async with self.http.post(self.rng.choice(self.apis) + path, data=msgspec.json.encode(event)) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        if response.status == wanted and isinstance(event, Transaction):
            self.answers[event.card_id, event.transaction_id].add(answer)
        elif response.status < HTTPStatus.INTERNAL_SERVER_ERROR and response.status != wanted:
            raise NotAcknowledgedError(f"{path} answered {response.status} for {event.transaction_id}")
        return response.status == wanted

    async def _produce(self, event: Event) -> bool:
        topic = TRANSACTIONS if isinstance(event, Transaction) else LABELS
        try:
            await self.producer.send_and_wait(topic, msgspec.json.encode(event), key=event.card_id.encode())
        except KafkaError:
            return False
        return True
