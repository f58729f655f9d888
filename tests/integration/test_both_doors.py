"""A transaction through the whole system, over either door and both at once."""

import asyncio
import json
import re

import pytest
from jsonschema import Draft202012Validator

from feature_store.keys import Keys
from services.schema import FOLDER


def schema(name):
    return Draft202012Validator(json.loads((FOLDER / f"{name}.json").read_text()))


def decisions_of(records, *transactions):
    ids = {transaction["transaction_id"] for transaction in transactions}
    return [record for record in records if record["transaction"]["transaction_id"] in ids]


async def test_a_transaction_over_http_is_answered_and_its_decision_is_in_the_log(api, body, read_topic, eventually):
    transaction = body(channel="pos", country="DE", mcc="5411", device_id="d1")
    schema("transactions").validate(transaction)
    response = await api.post("/v1/decisions", json=transaction)
    assert response.status_code == 200
    answer = response.json()
    assert answer["transaction_id"] == transaction["transaction_id"]
    assert {"wait", "read", "features", "score", "judge", "commit"} == {
        stage.split(";")[0].strip() for stage in response.headers["server-timing"].split(",")
    }

    async def logged():
        return decisions_of(await read_topic("decisions"), transaction)

    await eventually(logged, 20)
    [record] = await logged()
    schema("decisions").validate(record)
    assert record["answer"] == answer
    assert record["transaction"]["mcc"] == "5411"


async def test_the_same_transaction_again_gets_the_same_answer_and_another_body_a_409(api, body, entity):
    transaction = body()
    first = await api.post("/v1/decisions", json=transaction)
    again = await asyncio.gather(*(api.post("/v1/decisions", json=transaction) for _ in range(20)))
    assert {response.content for response in again} == {first.content}
    other = await api.post("/v1/decisions", json=transaction | {"amount": 1})
    assert other.status_code == 409
    assert other.headers["content-type"] == "application/problem+json"
    assert other.json()["errors"][0]["field"] == "transaction_id"
    found = await api.get(f"/v1/decisions/{transaction['card_id']}/{transaction['transaction_id']}")
    assert found.content == first.content
    _, counts = entity("card", transaction["card_id"])["minute tiles"]
    assert counts == [1]


async def test_a_decision_that_is_not_there_is_not_found(api):
    response = await api.get("/v1/decisions/nobody/nothing")
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


async def test_a_transaction_over_kafka_is_decided_in_the_same_way(api, producer, body, eventually):
    transaction = body()
    await producer.send_and_wait("transactions", json.dumps(transaction).encode(), key=transaction["card_id"].encode())
    path = f"/v1/decisions/{transaction['card_id']}/{transaction['transaction_id']}"

    async def decided():
        return (await api.get(path)).status_code == 200

    await eventually(decided)
    over_kafka = await api.get(path)
    over_http = await api.post("/v1/decisions", json=transaction)
    assert over_http.content == over_kafka.content


async def test_the_same_transactions_over_both_doors_at_once_have_one_effect_each(
    api, producer, body, read_topic, eventually, stack
):
    card = "both-doors"
    transactions = [body(card_id=card) for _ in range(40)]

    async def over_kafka(transaction):
        await producer.send_and_wait("transactions", json.dumps(transaction).encode(), key=card.encode())

    async def read_by_worker():
        metrics = await api.get(f"{stack.urls['worker']}/metrics")
        found = re.findall(r'^fraud_requests_total{door="kafka".*} (.+)$', metrics.text, re.MULTILINE)
        return sum(map(float, found))

    async def all_came_through_both_doors():
        logged = len(decisions_of(await read_topic("decisions"), *transactions))
        return logged >= 40 and await read_by_worker() == before + 40

    before = await read_by_worker()
    answers = await asyncio.gather(
        *(api.post("/v1/decisions", json=transaction) for transaction in transactions),
        *(over_kafka(transaction) for transaction in transactions),
    )
    assert {response.status_code for response in answers[:40]} == {200}
    await eventually(all_came_through_both_doors, 20)
    records = decisions_of(await read_topic("decisions"), *transactions)
    ordered = sorted(records, key=lambda record: record["sequence"])
    seen = [record["held"]["card"].get("decisions", {}) for record in ordered]
    before_each = [{str(record["partition"]): record["sequence"]} for record in ordered[:-1]]
    assert seen == [{}, *before_each]  # each has seen the one before it


BAD_RECORDS = {
    b"": ("invalid", "body"),
    b"not json": ("invalid", "body"),
    b"[1, 2]": ("invalid", "body"),
    b"\xff\xfe\x00": ("invalid", "body"),
    b"[" * 50_000: ("invalid", "body"),
    b'{"transaction_id": "t"}': ("invalid", "card_id"),
}


async def test_bad_records_are_set_aside_with_their_cause_and_never_block_a_partition(
    api, producer, body, read_topic, eventually, stack
):
    card = "bad-records"
    partition = Keys(stack.partitions).partition(card)
    first, last = body(card_id=card), body(card_id=card)
    changed = first | {"amount": 1}
    bad = {
        **BAD_RECORDS,
        json.dumps(body(card_id=card, currency="XXX")).encode(): ("invalid", "currency"),
        json.dumps(body(card_id=card, amount=1e308)).encode(): ("invalid", "amount"),
        json.dumps(body(card_id=card, device_id="\ud800")).encode(): ("invalid", "body"),
        json.dumps(body(card_id="4111111111111111")).encode(): ("invalid", "card_id"),
        json.dumps(changed).encode(): ("conflict", "transaction_id"),
    }
    offsets = {}
    for value in (json.dumps(first).encode(), *bad, json.dumps(last).encode()):
        sent = await producer.send_and_wait("transactions", value, partition=partition)
        offsets[sent.offset] = bad.get(value)
    path = f"/v1/decisions/{card}/{last['transaction_id']}"

    async def last_decided():
        return (await api.get(path)).status_code == 200

    await eventually(last_decided)
    letters = {
        letter["offset"]: letter
        for letter in await read_topic("transactions.dead-letter")
        if letter["partition"] == partition and letter["offset"] in offsets
    }
    found = {offset: (letter["cause"], letter["field"]) for offset, letter in letters.items()}
    assert found == {offset: cause for offset, cause in offsets.items() if cause}
    assert "4111111111111111" not in json.dumps(letters)
    for letter in letters.values():
        schema("dead-letter").validate(letter)


async def test_a_decision_reaches_its_merchant_and_is_no_longer_pending(api, body, state, entity, eventually):
    transaction = body(amount=777)
    await api.post("/v1/decisions", json=transaction)

    def counted():
        on_its_way = [key for key in state() if key.endswith((b"}pending", b"}pending_since"))]
        return not on_its_way and entity("merchant", transaction["merchant_id"])

    await eventually(counted)
    _, counts, amounts, _ = counted()["day tiles"]
    assert (counts, amounts) == ([1], [777])


async def test_a_label_is_applied_once_and_a_contradiction_is_set_aside(api, body, entity, read_topic, eventually):
    transaction = body()
    await api.post("/v1/decisions", json=transaction)
    label = {name: transaction[name] for name in ("transaction_id", "card_id", "merchant_id", "event_time")}
    schema("labels").validate(label | {"is_fraud": True})
    for is_fraud in (True, True, False):
        response = await api.post("/v1/labels", json=label | {"is_fraud": is_fraud})
        assert response.status_code == 202, response.text
        assert response.json()["topic"] == "labels"

    async def contradiction():
        letters = await read_topic("labels.dead-letter")
        return [letter for letter in letters if transaction["transaction_id"] in (letter["value"] or "")]

    await eventually(contradiction)
    assert [(letter["cause"], letter["field"]) for letter in await contradiction()] == [("conflict", "is_fraud")]
    for kind in ("card", "merchant"):
        *_, frauds = entity(kind, label[f"{kind}_id"])["day tiles"]
        assert frauds == [1]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_what_the_framework_refuses_is_a_problem_document_too(api, method):
    response = await api.request(method, "/v1/labels")
    assert (response.status_code, response.headers["content-type"]) == (405, "application/problem+json")
    assert (await api.get("/v2")).headers["content-type"] == "application/problem+json"
