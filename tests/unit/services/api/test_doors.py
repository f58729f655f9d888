"""The HTTP door over the store in memory: one decision for one id, and rules told by the name of the field."""

from datetime import timedelta

import httpx
import msgspec
import pytest
from logged import NOW, label_of, paid
from memory_store import MemoryStore

from feature_store.keys import Keys
from services.api.app import create_app
from services.api.body import MOST_BYTES
from services.api.decisions import Decisions
from services.api.labels import LabelAccepted, Labels
from services.decision.decide import Decide
from services.decision.policy import Policy
from services.metrics import STAGES, Metrics

PROBLEM = "application/problem+json"


class Model:
    version = "model"

    def score(self, _):
        return 0.25


class Sender:
    async def send(self, label):
        return LabelAccepted(transaction_id=label.transaction_id, topic="labels", partition=3, offset=7)


async def healthy():
    return None


class Door:
    """Its client, and what was counted."""

    def __init__(self):
        store, self.metrics = MemoryStore(Keys(12)), Metrics()
        policy = Policy(review=0.5, decline=0.8)
        decide = Decide(store=store, model=Model(), policy=policy, metrics=self.metrics, now=lambda: NOW)
        decisions = Decisions(decide, store, self.metrics, lambda: NOW, lambda now: now - timedelta(days=30))
        app = create_app(decisions, Labels(Sender(), self.metrics, lambda: NOW), self.metrics, healthy)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def post(self, transaction, path="/v1/decisions"):
        content = transaction if isinstance(transaction, bytes) else msgspec.json.encode(transaction)
        return await self.client.post(path, content=content)

    def counted(self, outcome):
        return self.metrics.registry.get_sample_value("fraud_requests_total", {"door": "http", "outcome": outcome})


@pytest.fixture
def door():
    return Door()


async def test_a_decision_comes_with_the_time_of_every_stage(door):
    response = await door.post(paid())
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert (response.json()["action"], response.json()["score"]) == ("approve", 0.25)
    assert list(response.json()["stage_ms"]) == list(STAGES[:-1])
    timing = response.headers["server-timing"].split(", ")
    assert [part.split(";dur=")[0] for part in timing] == list(STAGES)
    assert door.metrics.registry.get_sample_value("fraud_stage_seconds_count", {"stage": "total"}) == 1


async def test_the_same_body_again_gets_the_same_answer(door):
    first, again = await door.post(paid()), await door.post(paid())
    looked_up = await door.client.get("/v1/decisions/c1/t1")
    assert again.content == first.content == looked_up.content
    assert [door.counted(outcome) for outcome in ("decided", "repeated", "found")] == [1, 1, 1]


async def test_the_same_id_with_another_body_is_a_409(door):
    await door.post(paid())
    response = await door.post(paid(amount=7))
    assert (response.status_code, response.headers["content-type"]) == (409, PROBLEM)
    assert door.counted("conflict") == 1


async def test_what_was_never_decided_is_a_404(door):
    response = await door.client.get("/v1/decisions/c1/t1")
    assert (response.status_code, response.headers["content-type"]) == (404, PROBLEM)
    assert door.counted("not_found") == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (paid(amount=-1), "amount"),
        (paid(currency="KWD"), "currency"),
        (paid(event_time=NOW - timedelta(days=31)), "event_time"),
        (paid(event_time=NOW + timedelta(minutes=6)), "event_time"),
        (paid(card_id="4111111111111111"), "card_id"),
    ],
)
async def test_a_body_that_breaks_a_rule_is_a_422_by_name(door, body, field):
    response = await door.post(body)
    assert (response.status_code, response.headers["content-type"]) == (422, PROBLEM)
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert door.counted("invalid") == 1


async def test_a_card_number_in_the_path_is_not_looked_up(door):
    response = await door.client.get("/v1/decisions/4111111111111111/t1")
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "card_id")
    assert "4111" not in response.text


async def test_a_body_longer_than_anything_valid_is_a_413(door):
    response = await door.post(b" " * (MOST_BYTES + 1))
    assert (response.status_code, response.headers["content-type"]) == (413, PROBLEM)


async def test_a_label_is_accepted_with_its_place_in_the_log(door):
    response = await door.post(label_of(paid()), "/v1/labels")
    assert response.status_code == 202
    assert response.json() == {"transaction_id": "t1", "topic": "labels", "partition": 3, "offset": 7}
    assert door.counted("accepted") == 1


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/decisions", 405), ("GET", "/nowhere", 404)])
async def test_what_the_framework_refuses_is_a_problem_too(door, method, path, status):
    response = await door.client.request(method, path)
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM)
