"""The catalogue of metrics is what the processes emit: all of it, and nothing else."""

import json

import httpx
from prometheus_client.parser import text_string_to_metric_families

from services.metrics import Metrics

AT_REST_ZERO = {"fraud_outbox_length", "fraud_merchant_lag_seconds", "fraud_consumer_lag_records"}
"""Gauges that are 0 whenever all is well: they are emitted, with no more to ask."""
NEEDS_TROUBLE = {
    # What only trouble counts: each has a unit test of its own (test_decide.py, test_updater.py).
    "fraud_degraded_decisions",
    "fraud_commit_conflicts",
    "fraud_sequence_gaps",
}


def families(text):
    return {family.name: family for family in text_string_to_metric_families(text) if family.samples}


async def test_each_metric_of_the_catalogue_is_emitted_by_traffic_and_none_outside_it(
    stack, api, producer, body, eventually
):
    transaction = body()
    await api.post("/v1/decisions", json=transaction)
    await api.post("/v1/decisions", json=transaction)
    await api.post("/v1/decisions", json=transaction | {"amount": 2})
    label = {name: transaction[name] for name in ("transaction_id", "card_id", "merchant_id", "event_time")}
    await api.post("/v1/labels", json=label | {"is_fraud": True})
    await producer.send_and_wait("transactions", json.dumps(body()).encode())
    await producer.send_and_wait("transactions", b"bad")
    catalogue = {family.name for family in Metrics().registry.collect()}

    async def emitted():
        found = {}
        async with httpx.AsyncClient() as client:
            for url in stack.urls.values():
                for name, family in families((await client.get(f"{url}/metrics")).text).items():
                    found.setdefault(name, []).extend(family.samples)
        return found

    async def complete():
        moved = {name for name, samples in (await emitted()).items() if any(sample.value for sample in samples)}
        return moved >= catalogue - NEEDS_TROUBLE - AT_REST_ZERO

    await eventually(complete, 20)
    found = await emitted()
    assert set(found) == catalogue
    edges = {sample.labels.get("le") for sample in found["fraud_stage_seconds"]}
    assert "0.2" in edges


async def test_every_process_says_that_it_is_healthy(stack):
    async with httpx.AsyncClient() as client:
        for url in stack.urls.values():
            assert (await client.get(f"{url}/health")).json() == {"status": "ok"}
