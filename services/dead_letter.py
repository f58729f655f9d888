"""Where records go that no retry can help: beside their topic, with the cause and where they were.

Only a bad record goes there. Anything else that fails ends the process, so nothing is set aside by mistake.
"""

import re
from datetime import UTC, datetime

import msgspec
from aiokafka import AIOKafkaProducer, ConsumerRecord

from feature_store.card_number import contains_card_number
from feature_store.transaction import NOT_KNOWN
from services.metrics import Metrics
from services.topics import dead_letter

MOST_CHARACTERS = 65_536
"""Longest record kept in a dead letter; the source has the rest."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A record set aside. `value` is its text, or null where it may hold what must not be stored."""

    cause: str
    field: str
    message: str
    topic: str
    partition: int
    offset: int
    received_at: datetime
    value: str | None


class DeadLetters:
    """Sends records to the dead-letter topic of the topic they came from."""

    def __init__(self, producer: AIOKafkaProducer, metrics: Metrics) -> None:
        self._producer = producer
        self._metrics = metrics

    async def send(self, record: ConsumerRecord, *, cause: str, field: str, message: str) -> None:
        """Set a record aside; returns when the broker has it."""
        letter = DeadLetter(
            cause=cause,
            field=field,
            message=message,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            received_at=datetime.fromtimestamp(record.timestamp / 1_000, UTC),
            value=None if message == NOT_KNOWN else _printable(record.value or b""),
        )
        place = f"{record.topic}/{record.partition}/{record.offset}"
        await self._producer.send_and_wait(
            dead_letter(record.topic), msgspec.json.encode(letter), key=place.encode(), partition=record.partition
        )
        self._metrics.dead_letters.labels(record.topic).inc()


def _printable(raw: bytes) -> str | None:
    text = raw[:MOST_CHARACTERS].decode(errors="replace")
    unescaped = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text)  # behind which a card number could hide
    return None if contains_card_number(text) or contains_card_number(unescaped) else text


_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
