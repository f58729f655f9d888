import json
from types import SimpleNamespace

import pytest

from feature_store.transaction import NOT_KNOWN
from services.dead_letter import DeadLetters
from services.metrics import Metrics

CARD_NUMBER = "4111111111111111"


class Producer:
    def __init__(self):
        self.sent = []

    async def send_and_wait(self, topic, value, key, partition):
        self.sent.append((topic, json.loads(value), key, partition))


def record(value):
    return SimpleNamespace(topic="transactions", partition=3, offset=42, timestamp=1_790_000_000_000, value=value)


async def set_aside(value, message="is required"):
    producer, metrics = Producer(), Metrics()
    await DeadLetters(producer, metrics).send(record(value), cause="invalid", field="amount", message=message)
    assert metrics.registry.get_sample_value("fraud_dead_letters_total", {"topic": "transactions"}) == 1
    return producer.sent[0]


async def test_a_dead_letter_says_what_was_wrong_and_where_it_came_from():
    topic, letter, key, partition = await set_aside(b'{"x": 1}')
    assert (topic, key, partition) == ("transactions.dead-letter", b"transactions/3/42", 3)
    assert letter == {
        "cause": "invalid",
        "field": "amount",
        "message": "is required",
        "topic": "transactions",
        "partition": 3,
        "offset": 42,
        "received_at": "2026-09-21T14:13:20Z",
        "value": '{"x": 1}',
    }


@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe{", b"[" * 100_000])
async def test_whatever_came_in_can_be_set_aside(value):
    _, letter, *_ = await set_aside(value)
    assert isinstance(letter["value"], str)


@pytest.mark.parametrize(
    "value",
    [
        f'{{"card_id": "{CARD_NUMBER}"}}',
        f'{{"card_id": {CARD_NUMBER}}}',
        f"not json {CARD_NUMBER}",
        '{"card_id": "' + "".join(f"\\u00{ord(digit):02x}" for digit in CARD_NUMBER) + '"}',
    ],
)
async def test_a_card_number_is_not_written_to_the_dead_letters_either(value):
    _, letter, *_ = await set_aside(value.encode())
    assert letter["value"] is None


async def test_the_content_of_an_unknown_field_is_not_kept():
    _, letter, *_ = await set_aside(b'{"cvv": "123"}', message=NOT_KNOWN)
    assert letter["value"] is None
