"""What waits for Redis at the same moment shares a round trip, and nobody pays for another's bad luck."""

import asyncio
import hashlib
from collections import Counter
from contextlib import suppress

import pytest
from contract.events import KEYS, in_redis, transaction
from redis import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as Lost
from redis.exceptions import ResponseError

from feature_store.decision_store import Committed
from feature_store.gate import Gate
from feature_store.round_trips import MOST_UNDER_WAY, RoundTrips
from feature_store.scripts import ClosedError, Script

TAGGED = [f"{{{tag}}}key" for tag in range(12)]
"""A key of each partition: on the cluster all nodes have some."""


def script(text):
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


COUNT = script("return redis.call('INCR', KEYS[1])")
FAIL = script("return redis.error_reply('CLOSED')")


@pytest.fixture
def trips(client):
    return RoundTrips(client)


@pytest.fixture
def sent(monkeypatch):
    """How many times something was sent to each server so far, but for what opens a connection."""
    counts = Counter()
    plain = AbstractConnection.send_packed_command

    async def counted(self, command, **options):
        chunks = [command] if isinstance(command, bytes) else list(command)
        if any(name in chunk for chunk in chunks for name in (b"GET\r\n", b"EVALSHA\r\n")):
            counts[self.port] += 1
        return await plain(self, chunks, **options)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", counted)
    return counts


class Asked:
    """What a server was asked to do since `begin`."""

    def __init__(self, url):
        self._url = url

    def begin(self):
        with Redis.from_url(self._url) as direct:
            direct.config_resetstat()

    def commands(self):
        """How often it was given each command of ours."""
        with Redis.from_url(self._url) as direct:
            found = direct.info("commandstats")
        asked = {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in found.items()}
        return {name: calls for name, calls in asked.items() if name in {"get", "mget", "eval", "evalsha"}}

    def keys(self):
        """How many keys were looked up to be read."""
        with Redis.from_url(self._url) as direct:
            stats = direct.info("stats")
        return stats["keyspace_hits"] + stats["keyspace_misses"]


# Reads


async def test_a_lone_read_is_one_command(on_one, opened):
    client = on_one.connect()
    store, asked = in_redis(client, await opened(client, KEYS)), Asked(on_one.url)
    asked.begin()
    await store.decisions.read(transaction())
    assert asked.commands() == {"mget": 1}
    await client.aclose()


async def test_fifty_reads_at_once_share_one_round_trip(on_one, opened):
    client = on_one.connect()
    store, asked = in_redis(client, await opened(client, KEYS)), Asked(on_one.url)
    transactions = [transaction(number, card=f"c{number}", merchant="m0") for number in range(50)]
    asked.begin()
    seen = await asyncio.gather(*(store.decisions.read(t) for t in transactions))
    assert asked.commands() == {"mget": 1}
    gates = {KEYS.partition(value) for t in transactions for value in (t.card_id, t.merchant_id)}
    merchant, of_each = 1, 50 + 50  # card, and what is stored under the id
    assert asked.keys() == of_each + merchant + len(gates) + KEYS.partitions  # pending: once, not once a read
    assert len(seen) == 50
    await client.aclose()


async def test_fifty_reads_share_two_round_trips_a_node(on_cluster, opened, sent):
    client = on_cluster.connect()
    store = in_redis(client, await opened(client, KEYS))
    await store.decisions.read(transaction())
    sent.clear()
    reads = (store.decisions.read(transaction(n, card=f"c{n}", merchant=f"m{n}")) for n in range(50))
    await asyncio.gather(*reads)
    assert list(sent.values()) == [2, 2, 2]  # first what is pending, see test_pending.py
    await client.aclose()


async def test_everyone_gets_the_values_of_their_keys(client, trips):
    for number, key in enumerate(TAGGED[:9]):
        await client.set(key, number)
    asked = [[TAGGED[(first + step * n) % 12] for n in range(5)] for first in range(12) for step in (0, 1, 5, 7)]
    found = await asyncio.gather(*map(trips.get, asked))
    values = {key: b"%d" % number for number, key in enumerate(TAGGED[:9])}
    assert found == [[values.get(key) for key in keys] for keys in asked]


async def test_getting_nothing_gives_nothing(trips):
    assert await trips.get([]) == []


# Commits


async def test_commits_at_once_share_one_round_trip(server, client, opened, sent):
    store = in_redis(client, await opened(client, KEYS))
    transactions = [transaction(number, card=f"c{number}") for number in range(50)]
    seen = [await store.decisions.read(t) for t in transactions]
    await store.decisions.prepare()
    sent.clear()
    outcomes = await asyncio.gather(*map(store.commit, transactions, seen))
    assert {type(outcome) for outcome in outcomes} == {Committed}
    assert list(sent.values()) == [1] * (3 if server.cluster else 1)


# What happens to one and not to the others


async def test_a_failing_call_does_not_harm_the_others(client, trips):
    await client.set(TAGGED[3], "text")  # cannot be counted up
    calls = [trips.run(COUNT, [key], []) for key in TAGGED]
    outcomes = await asyncio.gather(*calls, trips.run(FAIL, [TAGGED[4]], []), return_exceptions=True)
    assert isinstance(outcomes.pop(), ClosedError)
    assert isinstance(outcomes.pop(3), ResponseError)
    assert outcomes == [1] * 11


async def test_a_value_that_is_none_fails_its_own_readers(on_cluster):
    client = on_cluster.connect()
    trips = RoundTrips(client)
    await client.lpush(TAGGED[3], "a list")
    wanted = [TAGGED[:6], [TAGGED[3]], TAGGED[6:], [TAGGED[2]]]
    outcomes = await asyncio.gather(*map(trips.get, wanted), return_exceptions=True)
    assert [isinstance(outcome, ResponseError) for outcome in outcomes] == [True, True, False, False]
    await client.aclose()


async def test_a_closed_gate_fails_only_its_own_commits(client, opened):
    store = in_redis(client, await opened(client, KEYS))
    transactions = [transaction(number, card=f"c{number}") for number in range(30)]
    seen = [await store.decisions.read(t) for t in transactions]
    await client.set(KEYS.gate(5), Gate("0!closed@run").text)
    outcomes = await asyncio.gather(*map(store.commit, transactions, seen), return_exceptions=True)
    refused = [KEYS.partition(t.card_id) == 5 for t in transactions]
    assert [isinstance(outcome, ClosedError) for outcome in outcomes] == refused
    assert any(refused)
    assert sum(isinstance(outcome, Committed) for outcome in outcomes) == refused.count(False)


@pytest.mark.parametrize("turns", range(4))
async def test_a_cancelled_caller_does_not_harm_the_others(client, trips, turns):
    """Cancelled before its call leaves, when it leaves, and while it is under way."""
    await client.set(TAGGED[0], 0)
    counts = [asyncio.create_task(trips.run(COUNT, [key], [])) for key in TAGGED]
    gets = [asyncio.create_task(trips.get([TAGGED[0]])) for _ in range(5)]
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in (counts[3], gets[2]):
        task.cancel()
    outcomes = await asyncio.gather(*counts, *gets, return_exceptions=True)
    assert [place for place, each in enumerate(outcomes) if isinstance(each, BaseException)] == [3, 12 + 2]
    assert await trips.run(COUNT, [TAGGED[1]], []) == 2


async def test_scripts_that_redis_forgot_are_sent_again(client, trips):
    await trips.prepare(COUNT)
    assert await asyncio.gather(*(trips.run(COUNT, [key], []) for key in TAGGED)) == [1] * 12
    await client.script_flush()
    await client.set("{1}other", "value")
    runs = [trips.run(COUNT, [key], []) for key in (*TAGGED, *TAGGED)]
    *outcomes, value = await asyncio.gather(*runs, trips.get(["{1}other"]))
    assert sorted(outcomes) == [2] * 12 + [3] * 12
    assert value == [b"value"]


async def test_a_forgotten_script_that_fails_tells_its_caller(client, trips):
    await client.script_flush()
    failed, counted = await asyncio.gather(
        trips.run(FAIL, [TAGGED[0]], []), trips.run(COUNT, [TAGGED[0]], []), return_exceptions=True
    )
    assert isinstance(failed, ClosedError)
    assert counted == 1


# While others are under way


class Slow(RoundTrips):
    """Round trips that wait until they may go on, or are lost."""

    def __init__(self, client):
        super().__init__(client)
        self.under_way = 0
        self.made = 0
        self.lose = False
        self.go_on = asyncio.Event()

    async def _exchange(self, batch):
        self.under_way, self.made = self.under_way + 1, self.made + 1
        await self.go_on.wait()
        self.under_way -= 1
        if self.lose:
            raise Lost
        await super()._exchange(batch)


@pytest.fixture
async def slow(on_one):
    client = on_one.connect()
    yield Slow(client)
    await client.aclose()


async def send_one_after_the_other(slow, count):
    """That many calls, each with a round trip of its own for as long as there is room."""
    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(slow.run(COUNT, [f"key{number}"], [])))
        for _ in range(5):  # turns of the loop: it is called, it leaves, it is under way
            await asyncio.sleep(0)
        assert slow.under_way == min(number + 1, MOST_UNDER_WAY)
    return tasks


async def test_what_comes_meanwhile_leaves_with_the_next_one(slow):
    tasks = await send_one_after_the_other(slow, 40)
    slow.go_on.set()
    assert await asyncio.gather(*tasks) == [1] * 40
    assert slow.made == MOST_UNDER_WAY + 1


async def test_a_call_that_comes_as_one_comes_back_is_answered(slow):
    """However the turns of the loop fall: nobody is left waiting for a next round trip that does not come."""
    slow.go_on.set()
    async with asyncio.timeout(10):
        for turns in range(30):
            tasks = []
            for number in range(5):
                tasks.append(asyncio.create_task(slow.get([f"key{number}"])))
                for _ in range(turns):
                    await asyncio.sleep(0)
            assert await asyncio.gather(*tasks) == [[None]] * 5


async def test_a_lost_round_trip_is_told_to_all_who_share_it(slow):
    slow.lose = True
    tasks = await send_one_after_the_other(slow, 10)
    tasks += [asyncio.create_task(slow.get(["key0"]))]
    slow.go_on.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Lost}


async def test_after_lost_round_trips_there_is_room_again(slow):
    slow.lose = True
    slow.go_on.set()
    for _ in range(3 * MOST_UNDER_WAY):
        with suppress(Lost):
            await slow.get(["key"])
    slow.lose = False
    async with asyncio.timeout(5):
        assert await slow.run(COUNT, ["key"], []) == 1


async def test_round_trips_of_cancelled_callers_make_room_too(slow):
    tasks = await send_one_after_the_other(slow, 10)
    for task in tasks:
        task.cancel()
    slow.go_on.set()
    async with asyncio.timeout(5):
        assert await slow.get(["key99"]) == [None]
