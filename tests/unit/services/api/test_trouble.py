"""What a caller is told when the trouble is ours: a problem document, that trying again is safe, and a count of it."""

from datetime import UTC, datetime

import httpx
import pytest
from aiokafka.errors import KafkaConnectionError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException
from redis.exceptions import TimeoutError as RedisTimeoutError

from feature_store.codec import CorruptStateError
from feature_store.scripts import ClosedError
from services.api.app import create_app
from services.api.decisions import Decisions
from services.api.labels import Labels
from services.decision.decide import ContendedError
from services.metrics import Metrics

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
TRANSACTION = {
    "transaction_id": "t1",
    "card_id": "c1",
    "merchant_id": "m1",
    "amount": 1,
    "currency": "EUR",
    "event_time": "2026-11-01T12:00:00Z",
}
LABEL = {name: TRANSACTION[name] for name in ("transaction_id", "card_id", "merchant_id", "event_time")} | {
    "is_fraud": True
}


class Broken:
    """Decides, looks up, sends and is healthy, all with the same error."""

    def __init__(self, error):
        self.error = error

    async def __call__(self, *_):
        raise self.error

    decided = send = __call__


def client(error):
    broken, metrics = Broken(error), Metrics()
    app = create_app(
        Decisions(broken, broken, metrics, lambda: NOW),
        Labels(broken, metrics, lambda: NOW),
        metrics,
        broken,
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test"), metrics


def counted(metrics, outcome):
    return metrics.registry.get_sample_value("fraud_requests_total", {"door": "http", "outcome": outcome})


REDIS_TROUBLE = [RedisConnectionError(), RedisTimeoutError(), RedisClusterException(), OSError()]
OURS = [RuntimeError("bug"), CorruptStateError("{5}card:secret", "does not match its checksum")]


def named(error):
    return type(error).__name__


@pytest.mark.parametrize("error", REDIS_TROUBLE, ids=named)
async def test_a_decision_without_redis_is_a_503(error):
    api, metrics = client(error)
    posted = await api.post("/v1/decisions", json=TRANSACTION)
    found = await api.get("/v1/decisions/c1/t1")
    for response in (posted, found):
        assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json")
        assert response.headers["retry-after"] == "1"
        assert "again is safe" in response.json()["detail"]
    assert counted(metrics, "unavailable") == 2


@pytest.mark.parametrize("error", OURS, ids=named)
async def test_a_bug_or_damaged_state_is_a_500_that_says_nothing(error):
    api, metrics = client(error)
    posted = await api.post("/v1/decisions", json=TRANSACTION)
    found = await api.get("/v1/decisions/c1/t1")
    for response in (posted, found):
        assert (response.status_code, response.json()["type"]) == (500, "urn:fraud:problem:internal")
        assert "bug" not in response.text
        assert "secret" not in response.text
    assert counted(metrics, "failed") == 2


@pytest.mark.parametrize(("error", "outcome"), [(ContendedError(), "contended"), (ClosedError(), "closed")], ids=named)
async def test_what_cannot_be_decided_now_is_a_503_with_its_outcome(error, outcome):
    api, metrics = client(error)
    response = await api.post("/v1/decisions", json=TRANSACTION)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "again is safe" in response.json()["detail"]
    assert counted(metrics, outcome) == 1


@pytest.mark.parametrize("error", [KafkaConnectionError(), TimeoutError()], ids=named)
async def test_a_label_without_kafka_is_a_503(error):
    api, metrics = client(error)
    response = await api.post("/v1/labels", json=LABEL)
    assert (response.status_code, response.json()["type"]) == (503, "urn:fraud:problem:unavailable")
    assert counted(metrics, "unavailable") == 1
