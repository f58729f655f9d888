"""One decision: what the caller gets, what the log gets, and that the second time changes nothing."""

import math
from dataclasses import replace

import msgspec
import pytest
from logged import NOW, label_of, paid
from with_device import WITH_DEVICE

from feature_store.codec import CorruptStateError
from feature_store.entity_writer import LoggedDecision, LoggedLabel
from feature_store.features import CARD, FEATURES, SHIPPED
from feature_store.held import Held
from feature_store.keys import Keys
from feature_store.scripts import ClosedError
from services.decision.decide import ConflictError
from services.decision.record import VERSION, Stored, decode_record, placed
from services.metrics import STAGES

KEYS = Keys(12)
PARTITION = KEYS.partition("c1")


async def test_the_answer_names_everything_that_made_it(deciding):
    outcome = await deciding().decide(paid())
    answer = msgspec.to_builtins(outcome.answer)
    assert tuple(answer.pop("stage_ms")) == ("wait", "read", "features", "score", "judge")
    assert len(answer.pop("policy")) == 12
    assert answer == {
        "transaction_id": "t1",
        "action": "approve",
        "score": 0.0,
        "reasons": (),
        "model": "model",
        "features_version": SHIPPED.fingerprint,
        "degraded": (),
    }


async def test_an_outcome_has_every_stage_and_each_is_measured(deciding):
    case = deciding()
    outcome = await case.decide(paid())
    assert tuple(outcome.stages) == STAGES == ("wait", "read", "features", "score", "judge", "commit")
    assert all(seconds >= 0 for seconds in outcome.stages.values())
    assert [case.counted("stage_seconds_count", stage=stage) for stage in STAGES] == [1] * 6


async def test_a_repetition_gets_the_same_answer_and_has_no_effect(deciding):
    case = deciding()
    first = await case.decide(paid())
    state = dict(case.store.state.values)
    again = await case.decide(paid())
    assert msgspec.json.encode(again.answer) == msgspec.json.encode(first.answer)
    assert (first.repeated, again.repeated) == (False, True)
    assert (case.store.state.values, len(case.store.log)) == (state, 1)
    assert tuple(again.stages) == ("wait", "read")
    assert case.counted("repeats_total", what="decision") == 1
    assert case.counted("decisions_total", action="approve") == 1


async def test_the_same_id_with_another_body_is_a_conflict(deciding):
    case = deciding()
    await case.decide(paid(amount=1))
    for changed in ({"amount": 2}, {"amount": 1, "merchant_id": "m2"}, {"amount": 1, "device_id": "d"}):
        with pytest.raises(ConflictError):
            await case.decide(paid(**changed))
    assert len(case.store.log) == 1


async def test_the_same_id_of_another_card_is_another_transaction(deciding):
    case = deciding()
    assert not (await case.decide(paid())).repeated
    assert not (await case.decide(paid(card_id="c2"))).repeated


async def test_the_record_holds_what_recomputing_the_decision_needs(deciding):
    case = deciding()
    await case.decide(paid("t0"))
    await case.store.count([LoggedDecision(3, 7, paid("t0", card_id="c2"))])
    await case.store.label([LoggedLabel(5, 11, label_of(paid("t0")))])
    outcome = await case.decide(paid("t1"))
    record = case.records()[-1]
    assert (record.version, record.transaction, record.answer) == (VERSION, paid("t1"), outcome.answer)
    assert (record.epoch, record.partition, record.sequence, record.decided_at) == (0, PARTITION, 2, NOW)
    assert record.held == {
        "card": Held(decisions={PARTITION: 1}, labels={5: 11}),
        "merchant": Held(decisions={3: 7}, labels={5: 11}),
    }
    assert len(record.features) == len(FEATURES)
    assert record.counted == {
        "count": 1,
        "amount": 1_000,
        "squares": 1_000_000,
        "largest_ratio": 1_000,
        "high_ratios": 0,
    }


async def test_what_is_stored_can_be_made_again_from_the_record(deciding):
    case = deciding()
    outcome = await case.decide(paid())
    [record] = case.records()
    stored = await case.store.decided("c1", "t1")
    assert Stored.of(record.transaction, record.answer).to_bytes() == stored
    assert Stored.from_bytes(stored).answer("t1") == outcome.answer


async def test_a_decision_without_a_score_can_be_read_from_the_log(deciding):
    """A score that is NaN is null in JSON; a record that nobody can read would be lost to all that follow the log."""

    class Broken:
        version = "broken"

        def score(self, _):
            return math.nan

    case = deciding(model=Broken())
    answer = (await case.decide(paid())).answer
    assert (answer.action, answer.reasons) == ("review", ("no_score",))
    [(partition, sequence, raw)] = case.store.log
    assert decode_record(placed(raw, 0, partition, sequence)).answer.action == "review"


# --- entities


async def test_an_entity_the_transaction_does_not_name_is_not_held(deciding):
    case = deciding(features=WITH_DEVICE)
    await case.decide(paid("t1"))
    await case.decide(paid("t2", device_id="d1"))
    without, with_one = case.records()
    assert set(without.held) == {"card", "merchant"}
    assert with_one.held["device"] == Held()
    assert without.features[-2:] == with_one.features[-2:] == (0.0, None)


async def test_an_entity_named_is_read_as_of_its_own_state(deciding):
    case = deciding(features=WITH_DEVICE)
    earlier = paid("t0", card_id="c2", device_id="d1", event_time=NOW.replace(hour=11))
    await case.store.count([LoggedDecision(3, 7, earlier)])
    await case.decide(paid(device_id="d1"))
    [record] = case.records()
    assert record.held["device"] == Held(decisions={3: 7})
    assert record.features[WITH_DEVICE.names.index("device_count_1h")] == 1.0


# --- state that must not be used


async def test_behind_a_closed_gate_nothing_is_decided(deciding):
    case = deciding()
    case.store.state.values[KEYS.gate(PARTITION)] = b"0!token@memory"
    with pytest.raises(ClosedError):
        await case.decide(paid())
    assert case.store.log == []


async def test_a_gate_that_moves_before_the_commit_stops_it(deciding):
    case = deciding()
    read = case.store.read

    async def read_then_recover(transaction):
        seen = await read(transaction)
        case.store.state.values[KEYS.gate(PARTITION)] = b"0 1@memory"
        return seen

    case.store.read = read_then_recover
    with pytest.raises(ClosedError):
        await case.decide(paid())
    assert case.store.log == []


async def test_on_damaged_state_nothing_is_decided(deciding):
    case, key = deciding(), KEYS.history(CARD, "c1")
    await case.decide(paid("t0"))
    case.store.state.values[key] = case.store.state.values[key][:-1] + b"\xff"
    with pytest.raises(CorruptStateError, match="card:c1"):
        await case.decide(paid("t1"))
    assert len(case.store.log) == 1


async def test_a_damaged_merchant_stops_its_decisions_too(deciding):
    case = deciding()
    case.store.state.values[KEYS.history(SHIPPED.followers[0], "m1")] = b"of another layout"
    with pytest.raises(CorruptStateError, match="merchant:m1"):
        await case.decide(paid())
    assert not (await case.decide(paid(merchant_id="m2"))).repeated


# --- what it had to do without


@pytest.mark.parametrize(
    ("since", "lag", "degraded"),
    [
        (math.inf, 0, ()),
        (NOW.timestamp() + 60, 0, ()),  # an event of the future: nothing of before it is missing
        (NOW.timestamp() - 120, 120, ()),
        (NOW.timestamp() - 121, 121, ("merchant_lag",)),
        (-math.inf, math.inf, ("merchant_lag",)),  # nobody knows
    ],
)
async def test_a_decision_too_far_behind_the_log_says_so(deciding, since, lag, degraded):
    case = deciding()
    read = case.store.read

    async def read_behind(transaction):
        return replace(await read(transaction), pending_since=since)

    case.store.read = read_behind
    answer = (await case.decide(paid())).answer
    assert (answer.degraded, answer.action) == (degraded, "approve")
    assert case.counted("merchant_lag_seconds") == lag
    assert case.counted("degraded_decisions_total", cause="merchant_lag") == len(degraded)
