"""One suite over the stores: in a dictionary, on one Redis, and on a cluster of three masters."""

import copy

from contract.events import KEYS, LEAP_DAY, label, transaction

from feature_store.decision_store import Committed, Decided, Moved
from feature_store.definitions import DAYS
from feature_store.entity_writer import LoggedDecision, LoggedLabel
from feature_store.features import SHIPPED
from feature_store.held import Held


def named(t, seen):
    """The features as served."""
    return dict(zip(SHIPPED.names, SHIPPED.row(t, seen.reads(t.second)).tolist(), strict=True))


def tables(history):
    return copy.deepcopy(history.tables)


async def test_a_decision_is_made_once_and_told_again(store):
    t = transaction()
    assert await store.decide(t) == Committed(KEYS.partition("c0"), 1)
    assert await store.decide(t) == Decided(b"answer")
    assert await store.decisions.decided("c0", "t0") == b"answer"
    seen = await store.decisions.read(transaction(1))
    assert seen.histories[0].decisions == {KEYS.partition("c0"): 1}


async def test_what_nobody_decided_is_not_found(store):
    await store.decide(transaction())
    assert await store.decisions.decided("c0", "t1") is None
    assert await store.decisions.decided("c1", "t0") is None


async def test_a_card_has_its_decision_at_the_next_read(store):
    for number in range(5):
        t = transaction(number, merchant=f"m{number}")
        assert named(t, await store.decisions.read(t))["card_count_10m"] == number
        await store.decide(t)


async def test_a_commit_on_a_moved_card_writes_nothing(store):
    t, other = transaction(1), transaction(2, second=LEAP_DAY - 600)
    stale = await store.decisions.read(t)
    merchant = tables(stale.histories[1])
    await store.decide_and_count(other)
    moved = await store.commit(t, stale)
    assert isinstance(moved, Moved)
    assert await store.decisions.decided("c0", "t1") is None
    now = await store.decisions.read(t)
    assert tables(moved.seen.histories[0]) == tables(now.histories[0])
    assert moved.seen.held["card"] == now.held["card"] == Held(decisions={KEYS.partition("c0"): 1})
    assert tables(moved.seen.histories[1]) == merchant != tables(now.histories[1])
    assert moved.seen.pending_since == stale.pending_since
    assert await store.commit(t, moved.seen) == Committed(KEYS.partition("c0"), 2)


async def test_a_label_between_read_and_commit_moves_the_card(store):
    await store.decide(transaction())
    t = transaction(1)
    stale = await store.decisions.read(t)
    await store.writer.label([LoggedLabel(4, 9, label(transaction()))])
    moved = await store.commit(t, stale)
    assert isinstance(moved, Moved)
    assert moved.seen.held["card"] == Held(decisions={KEYS.partition("c0"): 1}, labels={4: 9})
    assert await store.commit(t, moved.seen) == Committed(KEYS.partition("c0"), 2)
    assert (await store.decisions.read(transaction(2))).histories[0].labels == {4: 9}


async def test_a_commit_after_the_same_decision_tells_it(store):
    t = transaction()
    stale = [await store.decisions.read(t) for _ in range(2)]
    assert isinstance(await store.commit(t, stale[0], stored=b"first"), Committed)
    assert await store.commit(t, stale[1], stored=b"second") == Decided(b"first")


async def test_of_many_at_once_on_a_card_one_is_committed(store):
    transactions = [transaction(number) for number in range(5)]
    seen = [await store.decisions.read(t) for t in transactions]
    outcomes = [await store.commit(t, each) for t, each in zip(transactions, seen, strict=True)]
    assert [type(outcome) for outcome in outcomes] == [Committed, *[Moved] * 4]


async def test_sequences_of_a_partition_have_no_gap(store):
    by_partition = {}
    for number in range(30):
        outcome = await store.decide(transaction(number, card=f"c{number % 5}"))
        by_partition.setdefault(outcome.partition, []).append(outcome.sequence)
    assert len(by_partition) > 1
    assert all(sequences == list(range(1, len(sequences) + 1)) for sequences in by_partition.values())


async def test_a_logged_decision_is_counted_once(store):
    t = transaction()
    assert await store.writer.count([LoggedDecision(3, 7, t)]) == 1
    assert await store.writer.count([LoggedDecision(3, 7, t), LoggedDecision(3, 6, t)]) == 0
    assert await store.writer.count([LoggedDecision(3, 8, t)]) == 1
    assert await store.writer.count([LoggedDecision(4, 1, t)]) == 1  # another partition has numbers of its own
    assert (await store.decisions.read(transaction(1))).histories[1].decisions == {3: 8, 4: 1}


async def test_a_batch_that_comes_again_adds_what_is_new(store):
    batch = [LoggedDecision(3, n, transaction(n, merchant=f"m{n % 2}")) for n in range(1, 11)]
    assert await store.writer.count(batch[:3]) == 3
    assert await store.writer.count(batch) == 7
    assert await store.writer.count(batch) == 0
    later = transaction(99, second=LEAP_DAY + DAYS)
    assert named(later, await store.decisions.read(later))["merchant_count_7d"] == 5


async def test_more_merchants_than_a_script_writes_are_counted(store):
    batch = [LoggedDecision(0, n, transaction(n, merchant=f"m{n}")) for n in range(1, 2_501)]
    assert await store.writer.count(batch) == 2_500
    assert await store.writer.count(batch) == 0


async def test_what_is_read_says_its_part_of_the_log(store):
    t, other, foreign = transaction(1), transaction(2, merchant="m1"), transaction(3, card="c1")
    for decided in (t, other, foreign):
        await store.decide_and_count(decided)
    places = [(3, 11, t), (5, 2, foreign), (3, 12, other)]
    await store.writer.label([LoggedLabel(partition, offset, label(of)) for partition, offset, of in places])
    await store.writer.label([LoggedLabel(3, 40, label(other))])  # a repetition has no effect: it is no part
    place, foreign_place = KEYS.partition("c0"), KEYS.partition("c1")
    assert (await store.decisions.read(transaction(4))).held == {
        "card": Held(decisions={place: 2}, labels={3: 12}),
        "merchant": Held(decisions={place: 1, foreign_place: 1}, labels={3: 11, 5: 2}),
    }


async def test_what_was_read_stays_as_it_was(store):
    await store.decide_and_count(transaction(1))
    seen = await store.decisions.read(transaction(2))
    before = copy.deepcopy(seen.held), seen.reads(LEAP_DAY)
    await store.decide_and_count(transaction(2))
    await store.writer.label([LoggedLabel(0, 0, label(transaction(1)))])
    assert (seen.held, seen.reads(LEAP_DAY)) == before
    await store.commit(transaction(3), seen)  # counts in the card as seen
    assert seen.held == before[0]


async def test_a_merchant_is_counted_by_the_updater_alone(store):
    later = transaction(1, second=LEAP_DAY + 3_600)
    committed = await store.decide(transaction())
    assert named(later, await store.decisions.read(later))["merchant_count_1d"] == 0
    await store.writer.count([LoggedDecision(committed.partition, committed.sequence, transaction())])
    assert named(later, await store.decisions.read(later))["merchant_count_1d"] == 1
