"""What `restore` writes from the log is what `commit` had written."""

import asyncio
from collections import defaultdict
from contextlib import aclosing
from dataclasses import replace

import pytest
from contract.events import LEAP_DAY, Interrupted, in_redis, label, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store.decision_store import Committed, Decided
from feature_store.definitions import DAYS
from feature_store.entity_writer import LoggedLabel, RestoredDecision
from feature_store.features import CARD, SHIPPED
from feature_store.keys import Keys
from feature_store.transaction import MAX_AMOUNT
from services.audit.state import actual

KEYS = Keys(2)
KEEP_SECONDS = 3_600
ON_ITS_WAY = ("}outbox", "}pending", "}pending_since")
"""Keys of what is committed and not in the log yet: gone with a Redis that lost everything."""


def cards(reader):
    """What is to be restored: cards, by what they hold, decisions under their ids, and the last sequences."""
    return {key: held for key, held in actual(reader).items() if not key.endswith(ON_ITS_WAY)}


async def decide(store, *transactions):
    """Commit them, and give what the log has of them, by partition."""
    log = defaultdict(list)
    for t in transactions:
        seen = await store.decisions.read(t)
        counted = SHIPPED.counted(t, seen.histories[0].read(t.second))
        stored = f"answer {t.transaction_id}".encode()
        outcome = await store.commit(t, seen, stored=stored)
        log[outcome.partition].append(RestoredDecision(outcome.sequence, t, counted, stored, KEEP_SECONDS))
    return log


@pytest.fixture
def lost(opened):
    """`await lost(client)`: a Redis that lost everything; gives the stores of a recovery."""

    async def lose(client):
        await client.flushdb()
        return in_redis(client, await opened(client, KEYS), keys=KEYS)

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
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_restored_is_what_was_committed(steps, size, overlap, server, reader, lost):
    """Late and out-of-order events, tiles that fall out of what is kept; batches of any size that may overlap."""

    async def compare():
        async with aclosing(server.connect()) as client:
            store = await lost(client)
            transactions, second = [], LEAP_DAY
            for number, (card, amount, later, late) in enumerate(steps):
                second += later
                transactions.append(transaction(number, card, amount=amount, second=second - late))
            log = await decide(store, *transactions)
            committed = cards(reader)
            recovery = await lost(client)
            assert cards(reader) == {}
            for partition, decisions in log.items():
                for batch in batches(decisions, size, overlap):
                    await recovery.writer.restore(partition, batch)
                assert await recovery.writer.sequence(partition) == len(decisions)
            assert cards(reader) == committed

    asyncio.run(compare())


@pytest.fixture
async def six(client, lost):
    """What the log has of six decisions, and their partition."""
    [(partition, decisions)] = (await decide(await lost(client), *map(transaction, range(6)))).items()
    return partition, decisions


async def test_a_batch_that_comes_again_changes_nothing(client, six, lost, contents):
    partition, decisions = six
    recovery = await lost(client)
    await recovery.writer.restore(partition, decisions)
    before = await contents(client)
    await recovery.writer.restore(partition, decisions)
    await recovery.writer.restore(partition, decisions[2:4])
    assert await contents(client) == before  # revisions too: nothing was written


async def test_only_the_lost_tail_is_restored(reader, client, six, lost):
    partition, decisions = six
    committed = cards(reader)
    recovery = await lost(client)
    await decide(recovery, *map(transaction, range(4)))
    foreign = [replace(decision, stored=b"another answer") for decision in decisions[:4]]
    await recovery.writer.restore(partition, [*foreign, *decisions[4:]])
    assert cards(reader) == committed


async def test_a_sequence_never_goes_back(client, six, lost):
    partition, decisions = six
    recovery = await lost(client)
    await recovery.writer.restore(partition, decisions)
    await client.set(KEYS.sequence(partition), 50)  # given since, to decisions that are not in this log
    for batch in (decisions[:2], decisions, []):
        await recovery.writer.restore(partition, batch)
        assert await recovery.writer.sequence(partition) == 50


async def test_a_sequence_raised_meanwhile_does_not_go_back(client, six, opened):
    partition, decisions = six
    await client.set(KEYS.sequence(partition), 2)
    trips = Interrupted(client, lambda: client.set(KEYS.sequence(partition), 50), behind=2)  # the cards, the sequence
    recovery = in_redis(client, await opened(client, KEYS), keys=KEYS, trips=trips)
    await recovery.writer.restore(partition, decisions)
    assert await recovery.writer.sequence(partition) == 50


async def test_a_card_lost_alone_leaves_the_sequence(reader, client, six, opened):
    partition, decisions = six
    committed = cards(reader)
    await client.delete(KEYS.history(CARD, "c0"))
    recovery = in_redis(client, await opened(client, KEYS), keys=KEYS)
    await recovery.writer.restore(partition, decisions[:3])
    assert await recovery.writer.sequence(partition) == 6
    await recovery.writer.restore(partition, decisions[3:])
    assert cards(reader) == committed


async def test_a_label_that_came_first_stays(reader, client, six, lost):
    """Labels and decisions are restored in any order."""
    partition, decisions = six
    labelled = [LoggedLabel(0, n, label(decision.transaction)) for n, decision in enumerate(decisions[:3])]
    found = []
    for steps in ("dl", "ld"):
        recovery = await lost(client)
        for step in steps:
            if step == "d":
                await recovery.writer.restore(partition, decisions)
            else:
                await recovery.writer.label(labelled)
        found.append(cards(reader))
    assert found[0] == found[1]


async def test_an_answer_is_kept_as_long_as_is_said(reader, client, six, lost):
    partition, decisions = six
    card = cards(reader)[KEYS.history(CARD, "c0")]
    recovery = await lost(client)
    gone, kept = replace(decisions[0], keep_seconds=0), replace(decisions[1], keep_seconds=50)
    await recovery.writer.restore(partition, [gone, kept, *decisions[2:]])
    assert await client.get(KEYS.decided("c0", "t0")) is None
    assert 40 < await client.ttl(KEYS.decided("c0", "t1")) <= 50
    assert cards(reader)[KEYS.history(CARD, "c0")] == card  # counted all the same


async def test_a_card_is_kept_as_long_as_after_a_commit(client, six, lost):
    partition, decisions = six
    before = await client.ttl(KEYS.history(CARD, "c0"))
    await (await lost(client)).writer.restore(partition, decisions)
    assert before - 10 < await client.ttl(KEYS.history(CARD, "c0")) <= before
    assert await client.ttl(KEYS.sequence(partition)) == -1


async def test_decisions_go_on_behind_what_was_restored(client, six, lost):
    partition, decisions = six
    recovery = await lost(client)
    await recovery.writer.restore(partition, decisions)
    assert await recovery.decide(transaction(1)) == Decided(b"answer t1")
    assert await recovery.decide(transaction(6)) == Committed(partition, 7)


async def test_what_was_read_before_a_restore_is_not_committed(client, six, lost):
    """The card was read empty; the recovery filled it."""
    partition, decisions = six
    recovery = await lost(client)
    seen = await recovery.decisions.read(transaction(6))
    await recovery.writer.restore(partition, decisions)
    moved = await recovery.commit(transaction(6), seen)
    assert moved.seen.held["card"].decisions == {partition: 6}


async def test_a_partition_without_decisions_has_no_sequence(client, lost, contents):
    recovery = await lost(client)
    before = await contents(client)
    assert await recovery.writer.sequence(1) == 0
    await recovery.writer.restore(1, [])
    assert await contents(client) == before
