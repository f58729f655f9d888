"""State as the audit computes it from the log is what the scripts have written, key for key."""

import asyncio
from collections import defaultdict
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from feature_store.entity_state import LabelConflictError, RedisEntityState
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store.decision_store import RedisDecisionStore
from feature_store.definitions import DAYS, NAMES
from feature_store.keys import Keys
from feature_store.outbox import Outbox
from feature_store.pending import Pending
from feature_store.progress import Progress, Reached
from feature_store.transaction import Label, Transaction
from services.audit.state import actual, differences, expected
from services.audit.whole_log import Log
from services.decision.decide import Decide
from services.decision.policy import Policy
from services.decision.record import decode_record, placed
from services.metrics import Metrics

KEYS = Keys(3)
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)

STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("decide"),
            st.sampled_from(["c0", "c1", "c2"]),
            st.sampled_from(["m0", "m1"]),
            st.one_of(st.integers(0, 9_000), st.integers(0, 10**10)),
            st.sampled_from([0, 1, 60, 5_000, 2 * DAYS, 50 * DAYS, -90 * 60, -3 * DAYS, -45 * DAYS]),
        ),
        st.tuples(st.just("count"), st.integers(0, 2), st.integers(1, 5)),
        st.tuples(st.just("label"), st.integers(0, 20), st.booleans()),
    ),
    max_size=25,
)


class Model:
    version = "model"

    def score(self, row):
        return float(row[NAMES.index("card_count_10m")]) / 100


class System:
    """What doors, relay and updater do, one step after the other; the log it writes is kept here."""

    def __init__(self, client, gates):
        self.log = Log([[] for _ in range(KEYS.partitions)])
        self._decide = Decide(
            store=RedisDecisionStore(client, KEYS, keep_seconds=3_600),
            model=Model(),
            policy=Policy(review=0.5, decline=0.8, rules=()),
            metrics=Metrics(),
            now=lambda: NOON,
        )
        self._entities = RedisEntityState(client, KEYS, gates)
        self._outbox = Outbox(client, KEYS, gates)
        self._pending = Pending(client, KEYS)
        self._progress = Progress(client, KEYS, gates)
        self._offsets = defaultdict(int)
        self._counted = defaultdict(int)

    async def play(self, steps):
        """Take the steps, then publish and count what is left."""
        decided = []
        for kind, *what in steps:
            if kind == "decide":
                decided.append(transaction(len(decided), *what))
                await self._decide(decided[-1])
            elif kind == "count":
                await self.count(*what)
            elif what[0] < len(decided):
                await self.label(decided[what[0]], is_fraud=what[1])
        for partition in range(KEYS.partitions):
            await self.count(partition, len(decided))

    async def publish(self, partition):
        """Move what the outbox holds into the log."""
        for entry in await self._outbox.read(partition, 100):
            record = decode_record(placed(entry.record, 0, partition, entry.sequence))
            self.log.decisions[partition].append(record)
            await self._outbox.trim(partition, entry.sequence)

    async def count(self, partition, most):
        """Count the next decisions of the log for their merchants."""
        await self.publish(partition)
        records = self.log.decisions[partition][self._counted[partition] :][:most]
        if records:
            await self._entities.count(partition, [(record.sequence, record.transaction) for record in records])
            await self._pending.settle(partition, [record.sequence for record in records])
            self._counted[partition] += len(records)
            await self._progress.note("decisions", partition, Reached(1 + self._counted[partition]))

    async def label(self, of, *, is_fraud):
        """Apply a label, as the log has it: its first one stands."""
        label = Label(
            transaction_id=of.transaction_id,
            card_id=of.card_id,
            merchant_id=of.merchant_id,
            event_time=of.event_time,
            is_fraud=is_fraud,
        )
        partition = KEYS.partition(of.card_id)
        place = (partition, self._offsets[partition])
        self._offsets[partition] += 1
        first, _ = self.log.labels.setdefault((of.card_id, of.transaction_id), (place, label))
        try:
            assert await self._entities.label(label, place) == (first == place)
        except LabelConflictError:
            assert first != place


def transaction(number, card, merchant, amount, after):
    return Transaction(
        transaction_id=f"t{number}",
        card_id=card,
        merchant_id=merchant,
        amount=amount,
        currency="EUR",
        event_time=NOON + timedelta(seconds=after),
    )


@given(steps=STEPS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_the_log_makes_of_every_key_is_what_redis_holds_when_all_is_counted(steps, server, opened):
    async def compare():
        async with aclosing(server.connect()) as client:
            await client.flushdb()
            system = System(client, await opened(client, KEYS))
            await system.play(steps)
            return system.log

    log = asyncio.run(compare())
    assert log.missing == []
    assert len(log) == sum(kind == "decide" for kind, *_ in steps)
    with server.reader() as client:
        assert differences(expected(log, KEYS), actual(client)) == []


async def test_what_is_on_its_way_is_there_only_while_it_is(client, server, opened):
    system = System(client, await opened(client, KEYS))
    t = transaction(0, "c0", "m0", 5, 0)
    partition = KEYS.partition("c0")
    with server.reader() as reader:
        await system._decide(t)
        on_its_way = {KEYS.outbox(partition), KEYS.pending(partition)}
        assert actual(reader).keys() & on_its_way == on_its_way
        await system.publish(partition)
        assert actual(reader).keys() & on_its_way == {KEYS.pending(partition)}
        await system.count(partition, 1)
        assert differences(expected(system.log, KEYS), actual(reader)) == []


async def test_how_processes_work_together_is_not_state(client, server, opened):
    await opened(client, KEYS)
    await client.set("layout", "a layout")
    await client.set("recovery", "a relay")
    await client.set(KEYS.relay_lease(2), "a relay")
    await client.hset(KEYS.progress(0), "labels:1", "7 0")
    with server.reader() as reader:
        assert actual(reader) == {}
        await client.set("{3}card:x", "stray")
        assert actual(reader) == {"{3}card:x": b"stray"}
