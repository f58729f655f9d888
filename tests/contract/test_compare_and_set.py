"""Several writers of one entity at the same moment: nothing is lost, nothing counts twice, and each gets on."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from contract.events import KEYS, LEAP_DAY, Interrupted, in_redis, label, transaction
from redis import Redis

from feature_store.decision_store import Committed, Decided, Moved
from feature_store.definitions import DAYS
from feature_store.entity_writer import LoggedDecision, LoggedLabel
from feature_store.feature_set import counted_anywhere
from feature_store.features import MERCHANT, SHIPPED
from feature_store.history import History
from feature_store.pending import Pending
from services.audit.state import parts

HOT = "hot"
BATCHES, RECORDS = 15, 20


@pytest.fixture
async def three(server, opened):
    """Stores of three processes: a client each."""
    async with AsyncExitStack() as stack:
        clients = [server.connect() for _ in range(3)]
        for client in clients:
            stack.push_async_callback(client.aclose)
        gates = await opened(clients[0], KEYS)
        yield [(client, in_redis(client, gates)) for client in clients]


def logged(partition, batch):
    """The records of one fetch: half of them of the hot merchant."""
    for n in range(batch * RECORDS, (batch + 1) * RECORDS):
        merchant = HOT if n % 2 else f"m{n % 7}"
        yield LoggedDecision(partition, n + 1, transaction(n, merchant=merchant, second=LEAP_DAY + 7 * n + partition))


def counted(decisions, merchant):
    """What a merchant must hold, counted one partition after the other."""
    history = History(SHIPPED.plans[MERCHANT])
    for decision in decisions:
        if decision.transaction.merchant_id == merchant:
            history.count(decision.transaction.second, counted_anywhere(decision.transaction))
            history.decisions[decision.partition] = decision.sequence
    return parts(history)


async def test_three_writers_of_a_hot_merchant_lose_nothing(three):
    done = []

    async def updater(place):
        client, store = three[place]
        new, mine = 0, range(place, KEYS.partitions, 3)
        for batch in range(BATCHES):
            decisions = {partition: list(logged(partition, batch)) for partition in mine}
            new += await store.writer.count([decision for several in decisions.values() for decision in several])
            settled = {partition: [d.sequence for d in several] for partition, several in decisions.items()}
            await Pending(client, KEYS).settle(settled)
            done.append(place)
        return new

    assert await asyncio.gather(*map(updater, range(3))) == [4 * BATCHES * RECORDS] * 3
    every = [
        each for partition in range(KEYS.partitions) for batch in range(BATCHES) for each in logged(partition, batch)
    ]
    for merchant in (HOT, "m0", "m6"):
        seen = await three[0][1].decisions.read(transaction(merchant=merchant))
        assert parts(seen.histories[1]) == counted(every, merchant)
    first_at_its_end = next(n for n in range(len(done)) if done[: n + 1].count(done[n]) == BATCHES)
    assert set(done[:first_at_its_end]) == {0, 1, 2}  # nobody had to wait for another's last batch


async def test_three_writers_of_the_same_log_count_it_once(three):
    """As for a moment after a rebalance, when more than one believes that a partition is theirs."""
    batches = [list(logged(3, batch)) for batch in range(5)]

    async def updater(store):
        return sum([await store.writer.count(batch) for batch in batches])

    told = await asyncio.gather(*(updater(store) for _, store in three))
    seen = await three[0][1].decisions.read(transaction(merchant=HOT))
    assert parts(seen.histories[1]) == counted([each for batch in batches for each in batch], HOT)
    assert sum(told) == 5 * RECORDS


async def test_what_another_counted_meanwhile_is_not_new(client, opened):
    gates, told = await opened(client, KEYS), []
    batch = [LoggedDecision(3, n + 1, transaction(n, merchant=HOT)) for n in range(10)]

    async def another():
        told.append(await in_redis(client, gates).writer.count(batch[:6]))

    overtaken = in_redis(client, gates, trips=Interrupted(client, another))
    assert (await overtaken.writer.count(batch), told) == (4, [6])


async def test_labels_and_commits_of_one_card_at_once_all_count(three):
    transactions = [transaction(number, merchant=f"m{number % 5}") for number in range(60)]
    stores = [store for _, store in three]

    async def decide(store, several):
        for t in several:
            outcome = Moved(await store.decisions.read(t))
            while isinstance(outcome, Moved):
                outcome = await store.commit(t, outcome.seen)
            assert isinstance(outcome, Committed)

    async def apply(store):
        for first in range(0, 60, 3):
            batch = [LoggedLabel(1, first + n, label(t)) for n, t in enumerate(transactions[first : first + 3])]
            assert await store.writer.label(batch) == [True] * 3

    await asyncio.gather(decide(stores[0], transactions[::2]), decide(stores[1], transactions[1::2]), apply(stores[2]))
    later = transaction(99, second=LEAP_DAY + 8 * DAYS)
    seen = await stores[0].decisions.read(later)
    served = dict(zip(SHIPPED.names, SHIPPED.row(later, seen.reads(later.second)), strict=True))
    assert (served["card_count_30d"], served["card_frauds_30d"]) == (60, 60)
    assert seen.histories[0].decisions == {KEYS.partition("c0"): 60}
    assert seen.histories[0].revision == 60 + 20


async def test_one_label_that_three_apply_at_once_counts_once(three):
    once = LoggedLabel(4, 2, label(transaction()))
    outcomes = await asyncio.gather(*(store.writer.label([once]) for _, store in three))
    assert [True] in outcomes
    assert [None] not in outcomes
    later = transaction(99, second=LEAP_DAY + 8 * DAYS)
    card, merchant = (await three[0][1].decisions.read(later)).histories
    for history in (card, merchant):
        assert (history.labels, history.revision) == ({4: 2}, 1)


async def test_of_labels_that_contradict_at_once_one_stands(three):
    t = transaction()
    says = [label(t), label(t, is_fraud=False), label(t, merchant="m1")]
    applying = zip(three, says, strict=True)
    outcomes = await asyncio.gather(
        *(store.writer.label([LoggedLabel(4, n, each)]) for n, ((_, store), each) in enumerate(applying))
    )
    assert sorted(outcomes, key=str) == [[None], [None], [True]]
    stands = outcomes.index([True])
    for merchant in ("m0", "m1"):
        card, of_merchant = (await three[0][1].decisions.read(transaction(99, merchant=merchant))).histories
        assert card.labels == {4: stands}
        assert of_merchant.labels == ({4: stands} if merchant == says[stands].merchant_id else {})


async def test_one_transaction_decided_by_three_at_once_is_one(three):
    t = transaction()
    seen = [await store.decisions.read(t) for _, store in three]
    commits = (
        store.commit(t, each, stored=b"%d" % n) for n, ((_, store), each) in enumerate(zip(three, seen, strict=True))
    )
    outcomes = await asyncio.gather(*commits)
    (committed,) = [outcome for outcome in outcomes if isinstance(outcome, Committed)]
    stored = await three[0][1].decisions.decided(t.card_id, t.transaction_id)
    assert outcomes.count(Decided(stored)) == 2
    assert committed.sequence == 1


# What a batch costs


def commands(url):
    with Redis.from_url(url) as direct:
        found = direct.info("commandstats")
    return {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in found.items()}


@pytest.fixture
async def costs(on_one, opened):
    """`await costs(lambda writer: ...)`: what Redis was asked to do, scripts included, when it knew them."""
    async with AsyncExitStack() as stack:
        client = on_one.connect()
        stack.push_async_callback(client.aclose)
        store = in_redis(client, await opened(client, KEYS))
        await store.decide_and_count(transaction(0, card="warm", merchant="warm"))

        async def measure(call):
            with Redis.from_url(on_one.url) as direct:
                direct.config_resetstat()
            await call(store.writer)
            return commands(on_one.url)

        yield measure


async def test_a_batch_of_labels_reads_and_writes_an_entity_once(costs):
    labels = [LoggedLabel(0, n, label(transaction(n, card=f"c{n % 5}", merchant=f"m{n % 3}"))) for n in range(60)]
    asked = await costs(lambda writer: writer.label(labels))
    assert asked["mget"] == 2  # cards, then merchants
    assert asked["getrange"] == 5 + 3  # one compare an entity
    assert asked["set"] == (5 + 3) + (60 + 60)  # the entity, and each label beside it
    homes = {KEYS.partition(f"c{n}") for n in range(5)}, {KEYS.partition(f"m{n}") for n in range(3)}
    assert asked["evalsha"] == sum(map(len, homes))


async def test_a_batch_of_decisions_reads_and_writes_a_merchant_once(costs):
    batch = [LoggedDecision(n % 4, n + 1, transaction(n, merchant=f"m{n % 3}")) for n in range(200)]
    asked = await costs(lambda writer: writer.count(batch))
    assert (asked["mget"], asked["getrange"], asked["set"]) == (1, 3, 3)
    assert asked["evalsha"] == len({KEYS.partition(f"m{n}") for n in range(3)})


async def test_what_is_not_new_is_not_written(costs):
    async def twice(writer):
        batch = [LoggedDecision(0, n + 1, transaction(n)) for n in range(10)]
        labels = [LoggedLabel(0, n, label(transaction(n))) for n in range(10)]
        for _ in range(2):
            await writer.count(batch)
            await writer.label(labels)

    asked = await costs(twice)
    assert (asked["getrange"], asked["set"]) == (1 + 2, 1 + 2 + 20)
