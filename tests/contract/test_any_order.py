"""Whatever happens in whatever order, a store holds what its log says: nothing lost, nothing twice.

What tests of single cases cannot have in all combinations: repetitions, late and out-of-order events, labels before and
after their transactions, decisions made on a card that moved, an updater that lags by any part of the log, month ends,
leap days, and one card and one merchant that get most of it. What the log says is worked out here without bytes,
batches or compare-and-set, one partition after the other.
"""

import asyncio
import itertools
from collections import defaultdict
from datetime import UTC, datetime

from contract.events import KEYS, in_memory, in_redis, label, transaction
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, multiple, rule, run_state_machine_as_test

from feature_store.decision_store import Committed, Decided, Moved
from feature_store.definitions import DAYS, HOURS, KEPT, MINUTES, Measure
from feature_store.entity_writer import LoggedDecision, LoggedLabel, RestoredDecision
from feature_store.feature_set import counted_anywhere
from feature_store.features import CARD, MERCHANT, SHIPPED
from feature_store.history import History
from feature_store.transaction import MAX_AMOUNT
from services.audit.state import parts

CARDS, MERCHANTS = ("hot", "c1", "c2"), ("hot", "m1")
TURNS = [
    int(datetime(*day, 23, 59, 30, tzinfo=UTC).timestamp())
    for day in [(2024, 2, 28), (2024, 2, 29), (2024, 3, 31), (2024, 12, 31), (2027, 2, 28), (2028, 2, 29)]
]
"""Half a minute before a month ends, or a leap day begins or ends."""
LATEST_KEPT = [tiles * tile.seconds for tile, tiles in KEPT.items()]
"""So late, in seconds, is what falls into the oldest tile that is kept, of each kind."""

cards = st.sampled_from((*CARDS[:1] * 4, *CARDS))
merchants = st.sampled_from((*MERCHANTS[:1] * 3, *MERCHANTS))
amounts = st.one_of(st.integers(0, 10_000), st.integers(0, MAX_AMOUNT))
pauses = st.sampled_from([0, 1, 59, MINUTES, HOURS, 90 * MINUTES, 36 * HOURS, DAYS - 1, 8 * DAYS, 37 * DAYS, 45 * DAYS])
delays = st.sampled_from([0, 0, 0, 0, 2 * MINUTES, 90 * MINUTES, 2 * HOURS, 3 * DAYS, 60 * DAYS, *LATEST_KEPT])
places = st.integers(0, len(CARDS) - 1)
"""Which of the partitions that have events."""


class Said:
    """The log: what was decided, how far the updater is in each partition, and the labels that stand."""

    def __init__(self):
        self.decisions = defaultdict(list)
        self.counted = defaultdict(int)
        self.labels = {}

    def of_card(self, name):
        history, partition = History(SHIPPED.plans[CARD]), KEYS.partition(name)
        for sequence, t in enumerate(self.decisions[partition], start=1):
            if t.card_id == name:
                history.count(t.second, SHIPPED.counted(t, history.read(t.second)))
                history.decisions = {partition: sequence}
        return self._labelled(history, name)

    def of_merchant(self, name):
        history = History(SHIPPED.plans[MERCHANT])
        for partition, last in self.counted.items():
            for sequence, t in enumerate(self.decisions[partition][:last], start=1):
                if t.merchant_id == name:
                    history.count(t.second, counted_anywhere(t))
                    history.decisions[partition] = sequence
        return self._labelled(history, name)

    def _labelled(self, history, name):
        for logged in self.labels.values():
            if getattr(logged.label, history.plan.entity.key) == name:
                history.add(logged.label.second, {Measure.FRAUDS: int(logged.label.is_fraud)})
                history.labels[logged.partition] = logged.offset
        return parts(history)

    def decided(self, t):
        return t in self.decisions[KEYS.partition(t.card_id)]


class AnyOrder(RuleBasedStateMachine):
    """A store, and the log that its events make. Rules also call each other."""

    new, decided, read = Bundle("new"), Bundle("decided"), Bundle("read")

    def __init__(self, server, opened):
        super().__init__()
        self.runner = asyncio.Runner()
        self.client = server and server.connect()
        if server:
            self.do(self.client.flushdb())
            self.store = in_redis(self.client, self.do(opened(self.client, KEYS)))
        else:
            self.store = in_memory()
        self.second = TURNS[0]
        self.ids, self.offsets = itertools.count(), itertools.count()
        self.log = Said()

    def do(self, call):
        return self.runner.run(call)

    @rule(seconds=pauses)
    def time_passes(self, seconds):
        self.second += seconds

    @rule(turn=st.sampled_from(TURNS))
    def a_month_or_leap_day_begins(self, turn):
        self.second = max(self.second, turn)

    @rule(target=new, card=cards, merchant=merchants, amount=amounts, late=delays)
    def transaction(self, card, merchant, amount, late):
        return transaction(next(self.ids), card, merchant, amount=amount, second=self.second - late)

    @rule(target=read, t=st.one_of(new, decided))
    def read_state(self, t):
        """The transaction, what was read for it, and what the log said of its card and merchant then."""
        seen = self.do(self.store.decisions.read(t))
        if self.log.decided(t):
            assert seen == Decided(t.transaction_id.encode())
            return t, seen, None
        said = self.log.of_card(t.card_id), self.log.of_merchant(t.merchant_id)
        assert (parts(seen.histories[0]), parts(seen.histories[1])) == said
        assert seen.held["card"].decisions == said[0]["decisions"]
        return t, seen, said

    @rule(target=decided, seen=consumes(read))
    def commit(self, seen):
        """Also on a state that is not that of the card any more, or of a transaction decided meanwhile."""
        t, seen, said = seen
        if isinstance(seen, Decided):
            return t
        outcome = self.do(self.store.commit(t, seen, stored=t.transaction_id.encode()))
        partition = KEYS.partition(t.card_id)
        log, now = self.log.decisions[partition], self.log.of_card(t.card_id)
        if t in log:
            assert outcome == Decided(t.transaction_id.encode())
        elif now == said[0]:
            log.append(t)
            assert outcome == Committed(partition, len(log))
        else:
            assert isinstance(outcome, Moved)
            assert (parts(outcome.seen.histories[0]), parts(outcome.seen.histories[1])) == (now, said[1])
            return self.commit((t, outcome.seen, (now, said[1])))
        return t

    @rule(target=decided, t=st.one_of(new, decided))
    def decide(self, t):
        return self.commit(self.read_state(t))

    @rule(target=decided, card=cards, merchant=merchants, sums=st.lists(amounts, min_size=1, max_size=3), late=delays)
    def at_once(self, card, merchant, sums, late):
        """All are read, one of them twice, before the first is committed."""
        transactions = [self.transaction(card, merchant, amount, late) for amount in sums]
        seen = [self.read_state(t) for t in (*transactions, transactions[0])]
        return multiple(*[self.commit(each) for each in seen])

    @rule(which=st.lists(places, min_size=1, max_size=3), most=st.integers(1, 5), overlap=st.integers(0, 5))
    def updater_goes_on(self, which, most, overlap):
        """In one or more partitions; an overlap was counted before, as after a kill."""
        batch, new, log = [], 0, self.log.decisions
        for partition in {sorted(log)[place % len(log)] for place in which} if log else ():
            done = self.log.counted[partition]
            first, end = max(0, done - overlap), min(done + most, len(log[partition]))
            batch += [LoggedDecision(partition, n + 1, log[partition][n]) for n in range(first, end)]
            new += end - done
            self.log.counted[partition] = end
        assert self.do(self.store.writer.count(batch)) == new

    @rule(of=st.lists(st.one_of(new, decided), min_size=1, max_size=4), is_fraud=st.booleans())
    def label(self, of, is_fraud):
        """Before the transaction or after it, once more, or another than the one that stands."""
        batch = [LoggedLabel(KEYS.partition(t.card_id), next(self.offsets), label(t, is_fraud=is_fraud)) for t in of]
        stands = [self.log.labels.setdefault((each.label.card_id, each.label.transaction_id), each) for each in batch]
        expected = [
            True if first is each else False if first.label == each.label else None
            for first, each in zip(stands, batch, strict=True)
        ]
        assert self.do(self.store.writer.label(batch)) == expected

    @rule(which=places, last=st.integers(1, 5))
    def recovery_does_it_again(self, which, last):
        """What a card has is not put into it once more."""
        if self.log.decisions:
            partition = sorted(self.log.decisions)[which % len(self.log.decisions)]
            logged = list(enumerate(self.log.decisions[partition], start=1))[-last:]
            batch = [RestoredDecision(n, t, {Measure.COUNT: 99}, b"another answer", 60) for n, t in logged]
            self.do(self.store.writer.restore(partition, batch))

    def teardown(self):
        try:
            for card, merchant in itertools.product(CARDS, MERCHANTS):
                self.read_state(self.transaction(card, merchant, 1, 0))
        finally:
            if self.client:
                self.do(self.client.aclose())
            self.runner.close()


def test_a_store_holds_what_its_log_says(place, opened):
    examples = 150 if place is None else 25 if place.cluster else 75
    run_state_machine_as_test(
        lambda: AnyOrder(place, opened), settings=settings(max_examples=examples, stateful_step_count=50, deadline=None)
    )


STEPS = st.lists(st.tuples(cards, merchants, amounts, pauses, delays), min_size=1, max_size=40)


@given(steps=STEPS, data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_merchant_is_the_same_whatever_came_first(steps, data):
    events, second = [], TURNS[0]
    for number, (card, merchant, amount, later, late) in enumerate(steps):
        second += later
        events.append((number, transaction(number, card, merchant, amount=amount, second=second - late)))

    async def read(order):
        store = in_memory()
        for partition, t in order:  # a partition each: any order is one that the log can have
            await store.writer.count([LoggedDecision(partition, 1, t)])
            await store.writer.label([LoggedLabel(partition, 0, label(t))])
        return parts((await store.decisions.read(transaction(999, merchant="hot", second=second))).histories[1])

    assert asyncio.run(read(events)) == asyncio.run(read(data.draw(st.permutations(events))))
