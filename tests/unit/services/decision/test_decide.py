import asyncio
import json
import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from feature_store.decision_store import Committed
from feature_store.definitions import FEATURES, FINGERPRINT, NAMES
from feature_store.held import Held
from feature_store.keys import Keys
from feature_store.memory import MemoryStore
from feature_store.transaction import Label, Transaction
from services.decision.decide import ATTEMPTS, ConflictError, Decide
from services.decision.policy import Policy
from services.decision.record import Stored, decode_record, placed
from services.metrics import Metrics

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Model:
    """Scores the card's velocity, so that a test sees what a decision has seen."""

    version = "model"

    def score(self, row):
        return float(row[NAMES.index("card_count_10m")]) / 100


class HotCard(MemoryStore):
    """Another process always decides the same card between our read and our commit, `times` times."""

    def __init__(self, times):
        super().__init__(Keys(12))
        self.times = times

    async def commit(self, transaction, seen, write, *, force=False):
        if self.times:
            self.times -= 1
            other = transaction_of(f"other{self.times}")
            assert isinstance(await super().commit(other, await self.read(other), write), Committed)
        return await super().commit(transaction, seen, write, force=force)


class Behind(MemoryStore):
    """Merchant state may lack events from `since` on."""

    def __init__(self, since):
        super().__init__(Keys(12))
        self.since = since

    async def read(self, transaction):
        seen = await super().read(transaction)
        return replace(seen, pending_since=self.since)


class Yielding(MemoryStore):
    """Lets other tasks run between read and commit, as a real store does."""

    async def read(self, transaction):
        seen = await super().read(transaction)
        await asyncio.sleep(0)
        return seen


def transaction_of(name="t1", amount=1_000, card="c1"):
    return Transaction(
        transaction_id=name, card_id=card, merchant_id="m1", amount=amount, currency="EUR", event_time=NOW
    )


def label_of(name, card="c1"):
    return Label(transaction_id=name, card_id=card, merchant_id="m1", event_time=NOW, is_fraud=True)


def records(store):
    return [decode_record(placed(raw, 0, partition, sequence)) for partition, sequence, raw in store.log]


def decider(store=None):
    metrics = Metrics()
    made = Decide(
        store=store or MemoryStore(Keys(12)),
        model=Model(),
        policy=Policy(review=0.5, decline=0.8, rules=()),
        metrics=metrics,
        now=lambda: NOW,
    )
    return made, metrics.registry.get_sample_value


async def test_the_answer_names_everything_that_made_it():
    decide, _ = decider()
    answer = json.loads((await decide(transaction_of())).answer)
    assert answer.pop("stage_ms").keys() == {"read", "score", "judge"}
    assert len(answer.pop("policy")) == 12
    assert answer == {
        "transaction_id": "t1",
        "action": "approve",
        "score": 0.0,
        "reasons": [],
        "model": "model",
        "features_version": FINGERPRINT,
        "degraded": [],
    }


async def test_a_repetition_gets_the_same_bytes_and_has_no_effect():
    store = MemoryStore(Keys(12))
    decide, value = decider(store)
    first, again = await decide(transaction_of()), await decide(transaction_of())
    assert (again.answer, again.repeated, first.repeated) == (first.answer, True, False)
    assert len(store.log) == 1
    assert value("fraud_repeats_total", {"what": "decision"}) == 1
    assert value("fraud_decisions_total", {"action": "approve"}) == 1


async def test_the_same_id_with_another_body_is_a_conflict():
    decide, _ = decider()
    await decide(transaction_of(amount=1))
    with pytest.raises(ConflictError):
        await decide(transaction_of(amount=2))


async def test_each_of_a_burst_sees_all_before_it():
    store = Yielding(Keys(12))
    decide, value = decider(store)
    await asyncio.gather(*(decide(transaction_of(f"t{n}")) for n in range(50)))
    assert value("fraud_commit_conflicts_total") == 0  # within a process they take turns
    assert [record.held.card_decisions for record in records(store)] == list(range(50))
    assert [record.answer.score for record in records(store)] == [n / 100 for n in range(50)]


async def test_when_the_card_moved_the_transaction_is_scored_again_on_what_is_there_now():
    store = HotCard(times=3)
    decide, value = decider(store)
    answer = json.loads((await decide(transaction_of())).answer)
    assert answer["score"] == 0.03
    assert answer["degraded"] == []
    assert value("fraud_commit_conflicts_total") == 3
    assert records(store)[-1].held.card_decisions == 3


async def test_the_loop_is_bounded_and_a_forced_commit_says_so_and_is_not_approved():
    store = HotCard(times=1_000)
    decide, value = decider(store)
    answer = json.loads((await decide(transaction_of())).answer)
    assert value("fraud_commit_conflicts_total") == ATTEMPTS
    assert (answer["action"], answer["degraded"]) == ("review", ["contention"])
    assert value("fraud_degraded_decisions_total", {"cause": "contention"}) == 1


@pytest.mark.parametrize(
    ("since", "lag", "degraded"),
    [
        (math.inf, 0, []),
        (NOW.timestamp() + 60, 0, []),  # an event of the future: nothing of before it is missing
        (NOW.timestamp() - 120, 120, []),
        (NOW.timestamp() - 121, 121, ["merchant_lag"]),
        (-math.inf, math.inf, ["merchant_lag"]),  # nobody knows
    ],
)
async def test_a_decision_on_merchant_state_that_is_too_far_behind_says_so(since, lag, degraded):
    decide, value = decider(Behind(since))
    assert json.loads((await decide(transaction_of())).answer)["degraded"] == degraded
    assert value("fraud_merchant_lag_seconds") == lag
    assert value("fraud_degraded_decisions_total", {"cause": "merchant_lag"}) == len(degraded)


async def test_the_record_holds_what_recomputing_the_decision_needs():
    store = MemoryStore(Keys(12))
    decide, _ = decider(store)
    await decide(transaction_of("t0"))
    await store.count(3, [(7, transaction_of("t0", card="c2"))])
    await store.label(label_of("t0"), (5, 11))
    await decide(transaction_of())
    record = records(store)[-1]
    assert record.transaction == transaction_of()
    assert (record.partition, record.sequence) == (Keys(12).partition("c1"), 2)
    assert record.held == Held(
        card_decisions=1, card_labels={5: 11}, merchant_decisions={3: 7}, merchant_labels={5: 11}
    )
    assert len(record.features) == len(FEATURES)
    assert record.counted["count"] == 1


async def test_what_is_stored_can_be_made_again_from_the_record_byte_for_byte():
    store = MemoryStore(Keys(12))
    decide, _ = decider(store)
    await decide(transaction_of())
    [record] = records(store)
    stored = Stored.of(record.transaction, record.answer).to_bytes()
    assert stored == await store.decided("c1", "t1")


async def test_another_process_that_was_faster_decides():
    class Late(MemoryStore):
        async def commit(self, transaction, seen, write, *, force=False):
            await super().commit(transaction, seen, write)
            return await super().commit(transaction, seen, write, force=force)

    decide, _ = decider(Late(Keys(12)))
    assert (await decide(transaction_of())).repeated
