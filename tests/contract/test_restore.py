"""What `restore` writes from the log is what `commit` had written."""

import asyncio
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from feature_store.restore import Cards, Restored
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store.decision_store import Committed, Decided, RedisDecisionStore, Write
from feature_store.definitions import DAYS
from feature_store.formulas import counted
from feature_store.keys import Keys
from feature_store.transaction import MAX_AMOUNT, Transaction

KEYS = Keys(2)
KEEP_SECONDS = 3_600
START = int(datetime(2026, 11, 1, 23, 59, 30, tzinfo=UTC).timestamp())
LOST = ("card:", "decided:", "sequence")
"""The kinds of key that the log brings back: those `commit` writes, but for what is on its way to the log."""


def transaction(number, card="c0", amount=5, second=START):
    return Transaction(
        transaction_id=f"t{number}",
        card_id=card,
        merchant_id="m0",
        amount=amount,
        currency="EUR",
        event_time=datetime.fromtimestamp(second, UTC),
    )


async def decide(client, *transactions):
    """Commit them, and give what the log has of them, by partition."""
    store, log = RedisDecisionStore(client, KEYS, keep_seconds=KEEP_SECONDS), defaultdict(list)
    for t in transactions:
        seen = await store.read(t)
        write = Write(counted(t, seen.aggregates), f"answer {t.transaction_id}".encode(), b"{}")
        outcome = await store.commit(t, seen, write)
        log[outcome.partition].append(Restored(outcome.sequence, t, write.counted, write.stored, KEEP_SECONDS))
    return log


@pytest.fixture
def lost(opened):
    """`await lost(client)`: a Redis that lost everything; gives the cards, for a recovery."""

    async def lose(client):
        await client.flushdb()
        return Cards(client, KEYS, await opened(client, KEYS))

    return lose


def batches(decisions, size, overlap):
    """Cut into batches that begin `overlap` before the last one's end."""
    for end in range(size, len(decisions) + size, size):
        yield decisions[max(0, end - size - overlap) : end]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["c0", "c1", "c2", "c3"]),
        st.one_of(st.integers(0, 10_000), st.integers(0, MAX_AMOUNT)),
        st.sampled_from([0, 1, 60, 90 * 60, 36 * 3_600, 8 * DAYS, 41 * DAYS]),  # seconds later
        st.sampled_from([0, 0, 120, 90 * 60, 3 * DAYS, 60 * DAYS]),  # late by
    ),
    max_size=30,
)


@given(steps=STEPS, size=st.integers(1, 30), overlap=st.integers(0, 5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_restored_is_what_was_committed_however_it_is_cut_into_batches(
    steps, size, overlap, server, lost, contents
):
    """Late and out-of-order events, tiles that fall out of what is kept; batches of any size that may overlap."""

    async def compare():
        client = server.connect()
        await lost(client)
        transactions, second = [], START
        for number, (card, amount, later, late) in enumerate(steps):
            second += later
            transactions.append(transaction(number, card, amount, second - late))
        log = await decide(client, *transactions)
        committed = await contents(client, *LOST)
        cards = await lost(client)
        for partition, decisions in log.items():
            restored = [await cards.restore(partition, batch) for batch in batches(decisions, size, overlap)]
            assert sum(restored) == len(decisions) == await cards.sequence(partition)
        assert await contents(client, *LOST) == committed
        await client.aclose()

    asyncio.run(compare())


async def test_a_batch_that_comes_again_changes_nothing(client, lost, contents):
    await lost(client)
    [(partition, decisions)] = (await decide(client, *map(transaction, range(6)))).items()
    cards = await lost(client)
    assert await cards.restore(partition, decisions) == 6
    before = await contents(client)
    assert await cards.restore(partition, decisions) == 0
    assert await cards.restore(partition, decisions[2:4]) == 0
    assert await contents(client) == before


async def test_what_a_redis_still_has_is_left_as_it_is_and_only_the_lost_tail_is_restored(client, lost, contents):
    await lost(client)
    [(partition, decisions)] = (await decide(client, *map(transaction, range(6)))).items()
    committed = await contents(client, *LOST)
    cards = await lost(client)
    await decide(client, *map(transaction, range(4)))
    foreign = [replace(decision, stored=b"another answer") for decision in decisions[:4]]
    assert await cards.restore(partition, [*foreign, *decisions[4:]]) == 2
    assert await contents(client, *LOST) == committed


async def test_what_is_restored_is_kept_as_long_as_is_said_and_counts_for_the_card_all_the_same(client, lost, contents):
    await lost(client)
    [(partition, decisions)] = (await decide(client, *map(transaction, range(2)))).items()
    of_card = await contents(client, "card:")
    cards = await lost(client)
    gone, kept = replace(decisions[0], keep_seconds=0), replace(decisions[1], keep_seconds=50)
    assert await cards.restore(partition, [gone, kept]) == 2
    assert set(await contents(client, "decided:")) == {KEYS.decided("c0", "t1")}
    assert 40 < await client.ttl(KEYS.decided("c0", "t1")) <= 50
    assert await contents(client, "card:") == of_card


async def test_a_card_is_kept_as_long_as_after_a_commit(client, lost, contents):
    await lost(client)
    [(partition, decisions)] = (await decide(client, transaction(0))).items()
    [card] = await contents(client, "card:")
    before = await client.ttl(card)
    await (await lost(client)).restore(partition, decisions)
    assert before - 10 < await client.ttl(card) <= before


async def test_decisions_go_on_behind_what_was_restored_and_are_not_made_twice(client, lost):
    await lost(client)
    [(partition, decisions)] = (await decide(client, *map(transaction, range(3)))).items()
    await (await lost(client)).restore(partition, decisions)
    store = RedisDecisionStore(client, KEYS, keep_seconds=KEEP_SECONDS)
    assert await store.read(transaction(1)) == Decided(b"answer t1")
    seen = await store.read(transaction(3))
    assert seen.version == 3
    write = Write(counted(transaction(3), seen.aggregates), b"answer", b"{}")
    assert await store.commit(transaction(3), seen, write) == Committed(partition, 4)


async def test_a_partition_without_decisions_has_no_sequence(client, lost, contents):
    cards = await lost(client)
    before = await contents(client)
    assert await cards.sequence(1) == 0
    assert await cards.restore(1, []) == 0
    assert await contents(client) == before
