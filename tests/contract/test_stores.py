"""One suite over the stores, in memory (Python) and in Redis (Lua), on one server and on a cluster."""

import asyncio
import math
from contextlib import aclosing
from datetime import UTC, datetime

import msgspec
import pytest
from feature_store.entity_state import LabelConflictError, RedisEntityState
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.decision_store import Committed, Decided, Moved, RedisDecisionStore, Write
from feature_store.definitions import DAYS, NAMES, Measure
from feature_store.formulas import counted, feature_vector
from feature_store.held import Held
from feature_store.keys import Keys
from feature_store.memory import MemoryStore
from feature_store.pending import Pending
from feature_store.transaction import MAX_AMOUNT, Label, Transaction

KEYS = Keys(12)
LEAP_DAY = int(datetime(2024, 2, 29, 23, 59, 30, tzinfo=UTC).timestamp())


def transaction(number=0, card="c0", merchant="m0", amount=1_000, second=LEAP_DAY):
    return Transaction(
        transaction_id=f"t{number}",
        card_id=card,
        merchant_id=merchant,
        amount=amount,
        currency="EUR",
        event_time=datetime.fromtimestamp(second, UTC),
    )


def label(of, *, is_fraud=True):
    return Label(
        transaction_id=of.transaction_id,
        card_id=of.card_id,
        merchant_id=of.merchant_id,
        event_time=of.event_time,
        is_fraud=is_fraud,
    )


class Both:
    """A decision store and an entity state that belong together."""

    def __init__(self, decisions, entities):
        self.decisions = decisions
        self.entities = entities

    async def decide(self, t):
        """What `decide` and the updater do, without a model: the outcome, the state as read, the features as served.

        What is pending is left out: in memory nothing ever is.
        """
        seen = await self.decisions.read(t)
        if isinstance(seen, Decided):
            return seen, None
        outcome = await self.decisions.commit(t, seen, Write(counted(t, seen.aggregates), b"answer", b"{}"))
        await self.entities.count(outcome.partition, [(outcome.sequence, t)])
        return outcome, (seen.aggregates, seen.held, feature_vector(t, seen.aggregates).tobytes())


def memory():
    store = MemoryStore(KEYS)
    return Both(store, store)


def redis(client, gates):
    return Both(RedisDecisionStore(client, KEYS, keep_seconds=3_600), RedisEntityState(client, KEYS, gates))


@pytest.fixture(params=["in_memory", "on_one", "on_cluster"])
def place(request):
    """The server to use, or None."""
    return None if request.param == "in_memory" else request.getfixturevalue(request.param)


@pytest.fixture
async def store(place, opened):
    if place is None:
        yield memory()
    else:
        async with aclosing(place.connect()) as client:
            yield redis(client, await opened(client, KEYS))


WRITE = Write({Measure.COUNT: 1}, b"answer", b'{"record":1}')


async def test_what_was_decided_is_returned_and_counted_once(store):
    first, _ = await store.decide(transaction())
    again, _ = await store.decide(transaction())
    assert isinstance(first, Committed)
    assert again == Decided(b"answer")
    seen = await store.decisions.read(transaction(1))
    assert seen.version == 1


async def test_a_commit_on_a_card_that_moved_writes_nothing_and_gives_the_state_now(store):
    stale = await store.decisions.read(transaction(1))
    other = transaction(2, second=LEAP_DAY - 600)
    await store.decide(other)
    await store.entities.label(label(other), (4, 9))
    moved = await store.decisions.commit(transaction(1), stale, WRITE)
    assert isinstance(moved, Moved)
    card = Held(card_decisions=1, card_labels={4: 9}, merchant_decisions={}, merchant_labels={})
    assert (moved.seen.version, moved.seen.held, moved.seen.pending_since) == (1, card, stale.pending_since)
    now = await store.decisions.read(transaction(1))
    assert moved.seen.aggregates.card == now.aggregates.card != stale.aggregates.card
    assert moved.seen.aggregates.merchant == stale.aggregates.merchant != now.aggregates.merchant
    assert await store.decisions.decided("c0", "t1") is None
    assert isinstance(await store.decisions.commit(transaction(1), moved.seen, WRITE), Committed)


async def test_a_forced_commit_takes_the_card_as_it_is_but_never_decides_twice(store):
    stale = await store.decisions.read(transaction(1))
    await store.decide(transaction(2))
    assert isinstance(await store.decisions.commit(transaction(1), stale, WRITE, force=True), Committed)
    assert await store.decisions.commit(transaction(1), stale, WRITE, force=True) == Decided(b"answer")


async def test_sequences_of_a_partition_have_no_gap_and_other_partitions_count_for_themselves(store):
    outcomes = [(await store.decide(transaction(n, card=f"c{n % 5}")))[0] for n in range(30)]
    by_partition = {}
    for outcome in outcomes:
        by_partition.setdefault(outcome.partition, []).append(outcome.sequence)
    assert len(by_partition) > 1
    assert all(sequences == list(range(1, len(sequences) + 1)) for sequences in by_partition.values())


async def test_a_decision_of_the_log_is_counted_for_its_merchant_once(store):
    t = transaction()
    assert await store.entities.count(3, [(7, t)]) == 1
    assert await store.entities.count(3, [(7, t), (6, t)]) == 0
    assert await store.entities.count(3, [(8, t)]) == 1
    assert await store.entities.count(4, [(1, t)]) == 1  # another partition has numbers of its own


async def test_a_label_for_another_merchant_contradicts_and_has_no_effect_anywhere(store):
    t, elsewhere = transaction(), transaction(merchant="m1")
    await store.decide(t)
    await store.entities.label(label(t), (0, 0))
    with pytest.raises(LabelConflictError):
        await store.entities.label(label(elsewhere), (0, 1))
    seen = await store.decisions.read(transaction(1, merchant="m1", second=LEAP_DAY + 9 * DAYS))
    assert named(transaction(1), seen)["merchant_frauds_7d"] == 0


async def test_a_batch_is_counted_once_a_merchant_whatever_was_counted_of_it_before(store):
    batch = [(n, transaction(n, merchant=f"m{n % 2}")) for n in range(1, 11)]
    assert await store.entities.count(3, batch[:3]) == 3
    assert await store.entities.count(3, batch) == 7
    assert await store.entities.count(3, batch) == 0


async def test_scripts_that_redis_forgot_are_sent_again(client, opened):
    store = redis(client, await opened(client, KEYS))
    await store.decide(transaction())
    await client.script_flush()
    assert isinstance((await store.decide(transaction(1)))[0], Committed)


async def test_what_is_read_says_which_part_of_the_log_it_is_from(store):
    t, other, foreign = transaction(1), transaction(2, merchant="m1"), transaction(3, card="c1")
    for decided in (t, other, foreign):
        await store.decide(decided)
    await store.entities.label(label(t), (3, 11))
    await store.entities.label(label(foreign), (5, 2))
    await store.entities.label(label(other), (3, 12))
    await store.entities.label(label(other), (3, 40))  # a repetition has no effect, so it is no part of it
    place, foreign_place = KEYS.partition("c0"), KEYS.partition("c1")
    assert (await store.decisions.read(transaction(4))).held == Held(
        card_decisions=2,
        card_labels={3: 12},
        merchant_decisions={place: 1, foreign_place: 1},
        merchant_labels={3: 11, 5: 2},
    )


async def test_what_was_read_stays_as_it_was_when_state_goes_on(store):
    await store.decide(transaction(1))
    seen = await store.decisions.read(transaction(2))
    held = msgspec.json.encode(seen.held)
    await store.decide(transaction(2))
    await store.entities.label(label(transaction(1)), (0, 0))
    assert msgspec.json.encode(seen.held) == held


async def test_the_oldest_event_that_merchant_state_may_lack_is_known_whichever_partition_it_is_in(client, opened):
    await opened(client, KEYS)
    store, pending = RedisDecisionStore(client, KEYS, keep_seconds=3_600), Pending(client, KEYS)

    async def commit(number, card, second):
        t = transaction(number, card=card, second=second)
        return await store.commit(t, await store.read(t), WRITE)

    async def since():
        return (await store.read(transaction(9, card="c9"))).pending_since

    assert await since() == math.inf
    later = await commit(1, "c0", LEAP_DAY + 20)
    oldest = await commit(2, "c1", LEAP_DAY + 5)
    between = await commit(3, "c1", LEAP_DAY + 10)
    assert oldest.partition not in {later.partition, KEYS.partition("c9")}
    assert await since() == LEAP_DAY + 5
    await pending.settle(oldest.partition, [oldest.sequence])
    assert await since() == LEAP_DAY + 10
    await pending.settle(between.partition, [between.sequence])
    assert await since() == LEAP_DAY + 20
    await pending.settle(later.partition, [later.sequence])
    assert await since() == math.inf


async def test_where_the_merchants_gate_is_closed_nobody_knows_what_its_state_lacks(client, opened):
    await opened(client, KEYS)
    store = RedisDecisionStore(client, KEYS, keep_seconds=3_600)
    assert (await store.read(transaction())).pending_since == math.inf
    await client.delete(KEYS.gate(KEYS.partition("m0")))
    assert (await store.read(transaction())).pending_since == -math.inf


async def test_the_first_label_of_a_transaction_stands(store):
    t = transaction()
    assert await store.entities.label(label(t), (0, 0))
    assert not await store.entities.label(label(t), (0, 0))
    with pytest.raises(LabelConflictError):
        await store.entities.label(label(t, is_fraud=False), (0, 1))


async def test_a_label_reaches_card_and_merchant_when_its_delay_is_over(store):
    t = transaction()
    await store.decide(t)
    await store.entities.label(label(t), (0, 0))
    for days, known in ((7, 0), (9, 1)):
        later = transaction(1, second=LEAP_DAY + days * DAYS)
        seen = await store.decisions.read(later)
        assert named(later, seen)["card_frauds_30d"] == known
        assert named(later, seen)["merchant_frauds_7d"] == known


def named(t, seen):
    return dict(zip(NAMES, feature_vector(t, seen.aggregates).tolist(), strict=True))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["c0", "c1", "c2"]),
        st.sampled_from(["m0", "m1"]),
        st.one_of(st.integers(0, 10_000), st.integers(0, MAX_AMOUNT)),
        st.sampled_from(
            [0, 1, 59, 60, 3_600, 90 * 60, 36 * 3_600, 86_399, 8 * DAYS, 41 * DAYS, 45 * DAYS]
        ),  # seconds later
        st.sampled_from([0, 0, 0, 120, 90 * 60, 7_200, 36 * 3_600, 3 * DAYS, 41 * DAYS, 60 * DAYS]),  # late by
    ),
    max_size=40,
)


@given(steps=STEPS.filter(bool), data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_read_of_a_merchant_does_not_depend_on_the_order_in_which_events_were_counted(steps, data):
    events, second = [], LEAP_DAY
    for number, (card, merchant, amount, later, late) in enumerate(steps):
        second += later
        events.append((number + 1, transaction(number, card, merchant, amount, second - late)))

    async def read(order):
        store = memory()
        for sequence, t in order:
            await store.entities.count(sequence, [(1, t)])  # a partition each: any order is one the log can have
            await store.entities.label(label(t), (0, 0))
        probe = transaction(999, merchant="m0", second=second + 8 * DAYS)
        return (await store.decisions.read(probe)).aggregates.merchant

    assert asyncio.run(read(events)) == asyncio.run(read(data.draw(st.permutations(events))))
