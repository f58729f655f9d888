"""`fraud verify` and `fraud rebuild` from the terminal: what they find, what they say, and how they end."""

import json
import os
import re
import subprocess
import sys
from contextlib import asynccontextmanager, closing
from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest
from memory_store import MemoryStore
from redis import Redis

from feature_store.keys import Keys
from feature_store.transaction import Transaction
from model.scorer import load_scorer
from services.decision.decide import Decide
from services.decision.policy import Policy
from services.decision.record import decode_record, placed
from services.kafka import open_producer
from services.log import FOLLOWS, Epochs
from services.metrics import Metrics
from services.relay import RECOVERY_LEASE
from services.settings import Settings
from services.stack.librdkafka_broker import PARTITIONS, librdkafka_broker, touch_topics
from services.stack.programs import as_environment
from services.topics import ALL, DECISIONS

NOWHERE = "127.0.0.1:1"


def fraud(settings, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        env=os.environ | as_environment(settings),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def shown(ended):
    """The table that was printed: what is said of what."""
    rows = re.findall(r"^│ +(.*?) +│ +(.*?) +│$", ended.stdout, re.MULTILINE)
    return dict(rows)


# --- of a stack that runs


async def test_every_decision_of_the_running_stack_is_verified(stack, api, body, eventually, tmp_path):
    for _ in range(8):
        assert (await api.post("/v1/decisions", json=body())).status_code == 200
    report = tmp_path / "deep" / "report.json"
    settings = stack.settings.model_copy(update={"kafka_bootstrap": stack.bootstrap})

    async def verified():
        ended = fraud(settings, "verify", "--report", str(report))
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return json.loads(report.read_text())["verified"] >= 8

    await eventually(verified, 60)
    found = json.loads(report.read_text())
    assert date.fromisoformat(found.pop("date")) <= datetime.now(UTC).date()
    assert found.pop("machine")["redis"]
    assert found.pop("decisions") == found.pop("verified")
    assert found == {"features_only": 0, "other_features": 0, "differences": [], "missing": []}

    ended = fraud(settings, "verify", "--last", "5", "--report", str(report))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(report.read_text())
    assert found["decisions"] >= 8
    assert found["verified"] == 5
    assert shown(ended)["verified: features, score, action"] == "5"


# --- of a log with what no process would write


class Writer:
    """Decides as the processes do, in memory, and writes what it is told into the log."""

    def __init__(self, settings, producer):
        scorer = load_scorer(settings.model_dir)
        thresholds = scorer.manifest.thresholds
        self._store = MemoryStore(Keys(settings.partitions))
        self._decide = Decide(
            store=self._store,
            model=scorer,
            policy=Policy(review=thresholds.review, decline=thresholds.decline),
            metrics=Metrics(),
            now=lambda: datetime.now(UTC),
        )
        self._producer = producer

    async def begin(self):
        for partition in range(PARTITIONS):
            await self._send(partition, b"", headers=[(FOLLOWS, Epochs((), 0).beginning())])

    async def decide(self, card):
        """Give the record of one more decision, in its place."""
        number = len(self._store.log)
        await self._decide(
            Transaction(
                transaction_id=f"t{number}",
                card_id=card,
                merchant_id="m",
                amount=100 + number,
                currency="EUR",
                event_time=datetime(2026, 11, 1, 12, tzinfo=UTC) + timedelta(seconds=number),
            )
        )
        partition, sequence, raw = self._store.log[-1]
        return decode_record(placed(raw, 0, partition, sequence))

    async def write(self, record, **changes):
        """Write a record into the log, changed; `answer` takes what is to change in it. Gives its place."""
        if answer := changes.pop("answer", None):
            changes["answer"] = msgspec.structs.replace(record.answer, **answer)
        record = msgspec.structs.replace(record, **changes)
        await self._send(record.partition, msgspec.json.encode(record))
        return f"{record.partition}/{record.sequence}"

    async def write_garbage(self):
        await self._send(0, b"{ no decision")

    async def _send(self, partition, value, **more):
        await self._producer.send_and_wait(DECISIONS, value, partition=partition, **more)


@pytest.fixture
def own_log(server_loop):
    """Settings of a log of its own, which is empty."""
    pytest.importorskip("confluent_kafka")
    with server_loop.wrap_async_context_manager(librdkafka_broker()) as broker:
        server_loop.call(touch_topics, broker.bootstrap, ALL)
        yield Settings(kafka_bootstrap=broker.bootstrap, partitions=PARTITIONS, kafka_fetch_wait_ms=10)


@asynccontextmanager
async def writing(settings):
    async with open_producer(settings) as producer:
        yield Writer(settings, producer)


async def test_what_was_forged_in_the_log_is_named_by_its_place_and_the_rest_holds(own_log, tmp_path):
    async with writing(own_log) as writer:
        await writer.begin()
        records = [await writer.decide(f"c{number % 8}") for number in range(40)]
        for record in records:
            await writer.write(record)
        await writer.write(records[7])  # a relay that was not sure
        await writer.write(records[8], epoch=99, sequence=1_000)  # a relay of an epoch that is not in force
        await writer.write_garbage()
        ended = fraud(own_log, "verify")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert (shown(ended)["decisions in the log"], shown(ended)["differences"]) == ("40", "0")
        assert shown(ended)["repeated, of an epoch that was over, or none"] == "3"

        one, two, three = [await writer.decide(card) for card in ("c0", "c1", "c2")]
        another = "decline" if three.answer.action == "approve" else "approve"
        forged = {
            (await writer.write(one, answer={"score": 0.25}), "score"),
            (await writer.write(two, features=(1.0,) * len(two.features)), "features"),
            (await writer.write(three, answer={"action": another}), "action"),
        }
        left_out, behind = await writer.decide("c3"), await writer.decide("c3")
        await writer.write(behind)
    report = tmp_path / "report.json"
    ended = fraud(own_log, "verify", "--report", str(report))
    assert ended.returncode == 1
    for place, what in forged:
        assert f"{place} {what}" in ended.stdout
    assert shown(ended)["missing sequence numbers"] == "1"
    found = json.loads(report.read_text())
    named = {(f"{each['partition']}/{each['sequence']}", each["what"]) for each in found["differences"]}
    assert named >= forged
    assert named - forged <= {
        (f"{behind.partition}/{behind.sequence}", what) for what in ("features", "counted", "score")
    }
    assert found["missing"] == [[left_out.partition, left_out.sequence]]
    assert found["decisions"] == 44


# --- where nothing can be done


@pytest.mark.parametrize("command", ["verify", "rebuild"])
def test_a_kafka_that_is_away_is_named_with_its_setting(command):
    ended = fraud(Settings(kafka_bootstrap=NOWHERE, kafka_timeout_seconds=1.0), command)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith(f"error: Kafka at {NOWHERE} (FRAUD_KAFKA_BOOTSTRAP): ")


@pytest.mark.parametrize("arguments", [["verify", "--state"], ["rebuild"]])
def test_a_redis_that_is_away_is_an_error(own_log, arguments):
    ended = fraud(own_log.model_copy(update={"redis_url": f"redis://{NOWHERE}/0"}), *arguments)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert re.match(r"error: .*\b127\.0\.0\.1:1\b", ended.stderr.splitlines()[-1])


def test_a_rebuild_while_somebody_else_brings_state_up_to_the_log_changes_nothing(own_log, clean_redis):
    with closing(Redis.from_url(clean_redis)) as client:
        client.set(RECOVERY_LEASE, "a relay")
        client.set("{0}card:c", "1")
        ended = fraud(own_log.model_copy(update={"redis_url": clean_redis}), "rebuild")
        assert ended.returncode == 1
        last = ended.stderr.splitlines()[-1]
        assert last == "error: a relay or another rebuild is bringing state up to the log; try again when it is done"
        assert "Traceback" not in ended.stderr
        assert set(client.keys()) == {b"{0}card:c", RECOVERY_LEASE.encode()}
