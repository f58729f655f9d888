"""P2: a card's features include every decision committed before, on any replica: a burst cannot slip through."""

import asyncio
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loadtest.machine import describe_machine

DECISIONS = 500
CONFLICTS = "fraud_commit_conflicts_total"

pytestmark = pytest.mark.timeout(600)


def write_down(what, record_property):
    for name, value in what.items():
        record_property(name, value)
    if folder := os.environ.get("PROMISES_RESULTS"):
        path = Path(folder) / "read-your-writes.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        dated = {"date": datetime.now(UTC).date().isoformat()} | what | {"machine": describe_machine()}
        path.write_text(json.dumps(dated, indent=2) + "\n")


async def test_five_hundred_at_once_of_one_card_over_four_apis_see_each_other_one_by_one(
    crowd, post, body, record_property
):
    first = body(merchant_id="burst")
    burst = [first, *(first | {"transaction_id": f"burst-{number}"} for number in range(1, DECISIONS))]
    before = sum((await crowd.counted(CONFLICTS)).values())
    started = time.perf_counter()
    answers = await asyncio.gather(
        *(post(crowd.apis[number % len(crowd.apis)], transaction) for number, transaction in enumerate(burst))
    )
    seconds = time.perf_counter() - started
    conflicts = sum((await crowd.counted(CONFLICTS)).values()) - before
    figures = {
        "decisions": DECISIONS,
        "api_processes": len(crowd.apis),
        "conflicts": int(conflicts),
        "conflicts_per_decision": round(conflicts / DECISIONS, 2),
        "seconds": round(seconds, 2),
    }
    write_down(figures, record_property)
    assert [status for status, _ in answers] == [200] * DECISIONS

    log = await crowd.assert_state_is_the_log()  # each decision has the features of exactly its predecessors
    records = [record for record in log if record.transaction.card_id == first["card_id"]]
    assert [record.held["card"].decisions for record in records] == [
        {},
        *({record.partition: record.sequence} for record in records[:-1]),
    ]
    declined = ["card_velocity_10m" in record.answer.reasons for record in records]
    assert declined == [False] * 10 + [True] * (DECISIONS - 10)
