"""State as the audit computes it from the log is what Redis holds, key for key."""

import asyncio
from collections import defaultdict
from contextlib import aclosing
from datetime import UTC, datetime

from contract.events import LEAP_DAY, in_redis, label, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store.definitions import DAYS
from feature_store.entity_writer import LoggedDecision, LoggedLabel
from feature_store.features import CARD, SHIPPED
from feature_store.keys import Keys
from feature_store.outbox import Outbox
from feature_store.pending import Pending
from feature_store.progress import Progress, Reached
from services.audit.state import actual, differences, expected
from services.audit.whole_log import Log
from services.decision.decide import Decide
from services.decision.policy import Policy
from services.decision.record import decode_record, placed
from services.metrics import Metrics

KEYS = Keys(3)

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
        return float(row[SHIPPED.names.index("card_count_10m")]) / 100


class System:
    """What doors, relay and updater do, one step after the other; the log it writes is kept here."""

    def __init__(self, client, gates):
        self.log = Log([[] for _ in range(KEYS.partitions)])
        self._store = in_redis(client, gates, keys=KEYS)
        self.decide = Decide(
            store=self._store.decisions,
            model=Model(),
            policy=Policy(review=0.5, decline=0.8, rules=()),
            metrics=Metrics(),
            now=lambda: datetime(2026, 11, 1, 12, tzinfo=UTC),
        )
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
                decided.append(paid(len(decided), *what))
                await self.decide(decided[-1])
            elif kind == "count":
                await self.count(*what)
            elif what[0] < len(decided):
                await self.label(decided[what[0]], is_fraud=what[1])
        for partition in range(KEYS.partitions):
            await self.count(partition, len(decided))

    async def publish(self, partition):
        """Move what the outbox holds into the log."""
        for entry in (await self._outbox.read([partition], 100)).get(partition, ()):
            record = decode_record(placed(entry.record, 0, partition, entry.sequence))
            self.log.decisions[partition].append(record)
            await self._outbox.trim({partition: entry.sequence})

    async def count(self, partition, most):
        """Count the next decisions of the log for their merchants."""
        await self.publish(partition)
        records = self.log.decisions[partition][self._counted[partition] :][:most]
        if records:
            decisions = [LoggedDecision(partition, record.sequence, record.transaction) for record in records]
            assert await self._store.writer.count(decisions) == len(records)
            await self._pending.settle({partition: [record.sequence for record in records]})
            self._counted[partition] += len(records)
            await self._progress.note("decisions", partition, Reached(1 + self._counted[partition]))

    async def label(self, of, *, is_fraud):
        """Apply a label, as the log has it: its first one stands."""
        partition = KEYS.partition(of.card_id)
        logged = LoggedLabel(partition, self._offsets[partition], label(of, is_fraud=is_fraud))
        self._offsets[partition] += 1
        first = self.log.labels.setdefault((of.card_id, of.transaction_id), logged)
        outcome = True if first is logged else False if first.label == logged.label else None
        assert await self._store.writer.label([logged]) == [outcome]


def paid(number, card, merchant, amount, after):
    return transaction(number, card, merchant, amount=amount, second=LEAP_DAY + after)


@given(steps=STEPS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_redis_holds_what_the_log_makes_of_every_key(steps, server, reader, opened):
    async def compare():
        async with aclosing(server.connect()) as client:
            await client.flushdb()
            system = System(client, await opened(client, KEYS))
            await system.play(steps)
            return system.log

    log = asyncio.run(compare())
    assert log.missing == []
    assert len(log) == sum(kind == "decide" for kind, *_ in steps)
    assert differences(expected(log, KEYS), actual(reader)) == []


async def test_what_is_on_its_way_is_there_only_while_it_is(client, reader, opened):
    system = System(client, await opened(client, KEYS))
    partition = KEYS.partition("c0")
    outbox, pending = {KEYS.outbox(partition)}, {KEYS.pending(partition), KEYS.pending_since(partition)}
    await system.decide(paid(0, "c0", "m0", 5, 0))
    assert actual(reader).keys() & (outbox | pending) == outbox | pending
    await system.publish(partition)
    assert actual(reader).keys() & (outbox | pending) == pending
    await system.count(partition, 1)
    assert differences(expected(system.log, KEYS), actual(reader)) == []


async def test_damaged_bytes_are_a_difference(client, reader, opened):
    system = System(client, await opened(client, KEYS))
    await system.play([("decide", "c0", "m0", 5, 0), ("decide", "c1", "m0", 5, 0)])
    await client.set(KEYS.history(CARD, "c0"), b"foreign")
    assert differences(expected(system.log, KEYS), actual(reader)) == [f"{KEYS.history(CARD, 'c0')} is damaged"]


async def test_how_processes_work_together_is_not_state(client, reader, opened):
    await opened(client, KEYS)
    await client.set("layout", "a layout")
    await client.set("recovery", "a relay")
    await client.set(KEYS.relay_lease(2), "a relay")
    await client.hset(KEYS.progress(0), "labels:1", "7 0")
    assert actual(reader) == {}
    await client.set("{3}decided:x", "stray")
    assert actual(reader) == {"{3}decided:x": b"stray"}
