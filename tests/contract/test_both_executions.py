"""Features are computed twice: in Python (`tiles.py`, for training) and in Lua (`lua/tiles.lua`, for serving).

Driven with the same events, in any order, both give the same outcome, feature and tile at every step, bit for bit.
What a test of single cases cannot have in all combinations: repetitions, late and out-of-order events, labels before
and after their transactions and their delays, decisions made on a card that moved, an updater that lags by any part of
the log, month ends, leap days, and one card and merchant that get most of it.
"""

import asyncio
import itertools
from collections import defaultdict
from datetime import UTC, datetime

from feature_store.entity_state import LabelConflictError, RedisEntityState
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, multiple, rule, run_state_machine_as_test

from feature_store.decision_store import Committed, Decided, RedisDecisionStore, Write
from feature_store.definitions import DAYS, HOURS, MINUTES, Measure, Tile
from feature_store.formulas import counted, feature_vector
from feature_store.keys import Keys
from feature_store.memory import MemoryStore
from feature_store.transaction import MAX_AMOUNT, Label, Transaction

KEYS = Keys(12)
CARDS, MERCHANTS = ("hot", "c1", "c2"), ("hot", "m1")
TURNS = [
    int(datetime(*day, 23, 59, 30, tzinfo=UTC).timestamp())
    for day in [(2024, 2, 28), (2024, 2, 29), (2024, 3, 31), (2024, 12, 31), (2027, 2, 28), (2028, 2, 29)]
]
"""Half a minute before a month ends, or a leap day begins or ends."""
LATEST_KEPT = [tile.kept * tile.seconds for tile in Tile]
"""So late, in seconds, is what falls into the oldest tile that is kept, of each kind."""

cards = st.sampled_from((*CARDS[:1] * 4, *CARDS))
merchants = st.sampled_from((*MERCHANTS[:1] * 3, *MERCHANTS))
amounts = st.one_of(st.integers(0, 10_000), st.integers(0, MAX_AMOUNT))
pauses = st.sampled_from([0, 1, 59, MINUTES, HOURS, 90 * MINUTES, 36 * HOURS, DAYS - 1, 8 * DAYS, 37 * DAYS, 45 * DAYS])
delays = st.sampled_from([0, 0, 0, 0, 2 * MINUTES, 90 * MINUTES, 2 * HOURS, 3 * DAYS, 60 * DAYS, *LATEST_KEPT])

places = st.integers(0, len(CARDS) - 1)
"""Which of the partitions that have events."""


class BothExecutions(RuleBasedStateMachine):
    """A memory store and a Redis store, and the log that their events make. Rules also call each other."""

    new, decided, read = Bundle("new"), Bundle("decided"), Bundle("read")

    def __init__(self, server, opened):
        super().__init__()
        self.runner = asyncio.Runner()
        self.client = server.connect()
        self.do(self.client.flushdb())
        gates = self.do(opened(self.client, KEYS))
        self.python = MemoryStore(KEYS)
        self.lua = RedisDecisionStore(self.client, KEYS, keep_seconds=3_600)
        self.entities = RedisEntityState(self.client, KEYS, gates)
        self.second = TURNS[0]
        self.ids, self.offsets = itertools.count(), itertools.count()
        self.log = defaultdict(list)
        self.applied = defaultdict(int)

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
        return Transaction(
            transaction_id=f"t{next(self.ids)}",
            card_id=card,
            merchant_id=merchant,
            amount=amount,
            currency="EUR",
            event_time=datetime.fromtimestamp(self.second - late, UTC),
        )

    @rule(target=read, t=st.one_of(new, decided))
    def read_state(self, t):
        """The transaction, and what each store says of it: what `commit` takes."""
        python, lua = self.do(self.python.read(t)), self.do(self.lua.read(t))
        if isinstance(python, Decided):
            assert lua == python
        else:
            self.assert_same_state(t, python, lua)
        return t, python, lua

    @rule(target=decided, seen=consumes(read), force=st.booleans())
    def commit(self, seen, force):
        """Also on a state that is not that of the card any more, or of a transaction decided meanwhile."""
        t, python, lua = seen
        if isinstance(python, Decided):
            return t
        write = Write(counted(t, python.aggregates), t.transaction_id.encode(), b"{}")
        python = self.do(self.python.commit(t, python, write, force=force))
        lua = self.do(self.lua.commit(t, lua, write, force=force))
        if isinstance(python, Committed | Decided):
            assert lua == python
            self.note(t, python)
            return t
        self.assert_same_state(t, python.seen, lua.seen)
        return self.commit((t, python.seen, lua.seen), force)

    @rule(target=decided, t=st.one_of(new, decided))
    def decide(self, t):
        return self.commit(self.read_state(t), force=False)

    @rule(target=decided, card=cards, merchant=merchants, sums=st.lists(amounts, min_size=1, max_size=3), late=delays)
    def at_once(self, card, merchant, sums, late):
        """All are read, one of them twice, before the first is committed."""
        transactions = [self.transaction(card, merchant, amount, late) for amount in sums]
        seen = [self.read_state(t) for t in (*transactions, transactions[0])]
        return multiple(*[self.commit(each, force=False) for each in seen])

    @rule(which=places, most=st.integers(1, 5))
    def updater_goes_on(self, which, most):
        """For one of the partitions in which it lags, if there is any."""
        behind = sorted(place for place, log in self.log.items() if self.applied[place] < len(log))
        if behind:
            place = behind[which % len(behind)]
            self.count(place, self.log[place][self.applied[place] :][:most])

    @rule(which=places, overlap=st.integers(1, 5))
    def updater_does_it_again(self, which, overlap):
        """As after a kill: a batch of which some was counted before."""
        if self.log:
            place = sorted(self.log)[which % len(self.log)]
            self.count(place, self.log[place][max(0, self.applied[place] - overlap) :][: overlap + 1])

    @rule(of=st.one_of(new, decided), is_fraud=st.booleans())
    def label(self, of, is_fraud):
        """Before the transaction or after it, once more, or another than the one that stands."""
        shared = {name: getattr(of, name) for name in ("transaction_id", "card_id", "merchant_id", "event_time")}
        label, place = Label(**shared, is_fraud=is_fraud), (KEYS.partition(of.card_id), next(self.offsets))
        assert self.effect(self.python, label, place) == self.effect(self.entities, label, place)

    def teardown(self):
        try:
            for card, merchant in itertools.product(CARDS, MERCHANTS):
                self.read_state(self.transaction(card, merchant, 1, 0))
            for entity, histories in self.python.histories.of.items():
                for name, history in histories.items():
                    stored = self.do(self.client.hgetall(KEYS.history_of(entity, name)))
                    assert stored_tiles(stored) == held_tiles(history)
        finally:
            self.do(self.client.aclose())
            self.runner.close()

    def note(self, t, outcome):
        if isinstance(outcome, Committed):
            assert outcome.sequence == len(self.log[outcome.partition]) + 1
            self.log[outcome.partition].append((outcome.sequence, t))

    def count(self, place, batch):
        assert self.do(self.python.count(place, batch)) == self.do(self.entities.count(place, batch))
        self.applied[place] = max(self.applied[place], batch[-1][0])

    def effect(self, store, label, place):
        try:
            return self.do(store.label(label, place))
        except LabelConflictError:
            return LabelConflictError

    def assert_same_state(self, t, python, lua):
        """All but what is pending, which the memory store does not keep."""
        assert lua.aggregates == python.aggregates
        assert lua.held == python.held
        assert feature_vector(t, lua.aggregates).tobytes() == feature_vector(t, python.aggregates).tobytes()


def stored_tiles(fields):
    """The tiles of a Redis hash, as text."""
    return {name.decode(): text.decode() for name, text in fields.items() if name[1:].isdigit()}


def held_tiles(history):
    """The tiles of a history, written as Redis holds them."""
    return {
        f"{tile}{number}": " ".join(f"{measure}{counts[measure]}" for measure in Measure if measure in counts)
        for tile, numbered in history.tiles.items()
        for number, counts in numbered.items()
    }


def test_both_serve_the_same_features_bit_for_bit_whatever_happens_in_whatever_order(server, opened):
    run_state_machine_as_test(
        lambda: BothExecutions(server, opened),
        settings=settings(max_examples=40 if server.cluster else 150, stateful_step_count=50, deadline=None),
    )
