"""An entity's state at a position is what the events up to it make, whatever was asked for before."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.definitions import DAYS, Measure
from feature_store.features import CARD, MERCHANT, SHIPPED
from feature_store.held import Held
from feature_store.history import History
from services.audit.timeline import Event, Timeline, position

NOON = 20_000 * DAYS + 12 * 3_600
SOURCES = [("decisions", 0), ("decisions", 1), ("labels", 1)]
ONE, FRAUD = {Measure.COUNT: 1}, {Measure.FRAUDS: 1}

EVENTS = st.lists(
    st.tuples(
        st.integers(1, 4),  # numbers of a source ascend, with gaps
        st.sampled_from([0, 30, 3_600, 2 * DAYS, -2 * DAYS, 60 * DAYS]),  # seconds after noon
        st.integers(1, 9),
    ),
    max_size=6,
)
POSITION = st.dictionaries(st.sampled_from(SOURCES), st.integers(0, 20))


def numbered(source, events):
    """The events of a source, each with its number."""
    is_label = source[0] == "labels"
    numbers = accumulate(gap for gap, _, _ in events)
    for number, (_, later, many) in zip(numbers, events, strict=True):
        values = {Measure.FRAUDS if is_label else Measure.COUNT: many}
        yield number, Event(NOON + later, values, is_label=is_label)


def from_scratch(entity, by_source, at):
    made = History(SHIPPED.plans[entity])
    for source, events in by_source.items():
        for number, event in numbered(source, events):
            if number <= at.get(source, 0):
                (made.add if event.is_label else made.count)(event.second, event.values)
    return made


def timeline_of(entity, by_source):
    made = Timeline(SHIPPED.plans[entity])
    for source, events in by_source.items():
        for number, event in numbered(source, events):
            made.add(source, number, event)
    return made


def content(history):
    return history.newest, history.tables


@given(
    entity=st.sampled_from([CARD, MERCHANT]),
    by_source=st.fixed_dictionaries(dict.fromkeys(SOURCES, EVENTS)),
    positions=st.lists(POSITION, min_size=1, max_size=8),
)
def test_state_at_a_position_is_that_of_the_events_up_to_it(entity, by_source, positions):
    timeline = timeline_of(entity, by_source)
    for at in positions:
        assert content(timeline.at(at)) == content(from_scratch(entity, by_source, at))


@pytest.fixture
def timeline():
    """Two decisions of one partition, numbers 3 and 7, and a label, number 5."""
    return timeline_of(MERCHANT, {SOURCES[0]: [(3, 0, 1), (4, 0, 1)], SOURCES[2]: [(5, 0, 1)]})


def minutes(timeline, *, decision):
    return sum(timeline.at({SOURCES[0]: decision}).tables[0][1])


def test_a_position_includes_the_event_of_its_number(timeline):
    assert [minutes(timeline, decision=number) for number in (2, 3, 6, 7, 99, 3)] == [0, 1, 1, 2, 2, 1]


def test_a_source_that_a_position_does_not_name_was_not_followed(timeline):
    of_labels = timeline.at({SOURCES[2]: 5})
    assert (of_labels.newest, of_labels.tables[-1]) == (None, [[20_000], [0], [0], [1]])
    assert minutes(timeline, decision=7) == 2
    assert content(timeline.at({})) == content(History(SHIPPED.plans[MERCHANT]))


def test_a_source_without_events_of_the_entity_adds_nothing(timeline):
    assert content(timeline.at({("decisions", 9): 1_000})) == content(History(SHIPPED.plans[MERCHANT]))


def test_a_label_does_not_move_the_newest_transaction():
    made = Timeline(SHIPPED.plans[MERCHANT])
    made.add(SOURCES[0], 1, Event(NOON, ONE))
    made.add(SOURCES[2], 1, Event(NOON + 90 * DAYS, FRAUD, is_label=True))
    history = made.at({SOURCES[0]: 1, SOURCES[2]: 1})
    assert (history.newest, history.tables[0][1]) == (NOON, [1])


def test_positions_in_their_order_count_each_event_once(timeline, monkeypatch):
    seconds = []
    monkeypatch.setattr(History, "count", lambda _self, second, _: seconds.append(second))
    for number in (0, 3, 3, 5, 7):
        timeline.at({SOURCES[0]: number})
    assert len(seconds) == 2


def test_the_position_of_a_decision_names_both_topics():
    held = Held(decisions={0: 7, 3: 1}, labels={0: 4})
    assert position(held, "decisions", "labels") == {("decisions", 0): 7, ("decisions", 3): 1, ("labels", 0): 4}
    assert position(Held(), "decisions", "labels") == {}
