"""An entity's state at a position is what the events up to it make, whatever was asked for before."""

from itertools import accumulate

import pytest
from feature_store.tiles import History
from hypothesis import given
from hypothesis import strategies as st

from feature_store.definitions import DAYS, STORED, Entity, Measure
from services.audit.timeline import Timeline

NOON = 20_000 * DAYS + 12 * 3_600
SOURCES = [("decisions", 0), ("decisions", 1), ("labels", 1)]

EVENTS = st.lists(
    st.tuples(
        st.integers(1, 4),  # numbers of a source ascend, with gaps
        st.sampled_from([0, 30, 3_600, 2 * DAYS, -2 * DAYS, 60 * DAYS]),  # seconds after noon
        st.fixed_dictionaries({measure: st.integers(0, 9) for measure in (Measure.COUNT, Measure.FRAUDS)}),
    ),
    max_size=6,
)
POSITION = st.dictionaries(st.sampled_from(SOURCES), st.integers(0, 20))


def numbered(events):
    numbers = accumulate(gap for gap, _, _ in events)
    return [(number, NOON + later, values) for number, (_, later, values) in zip(numbers, events, strict=True)]


def from_scratch(entity, by_source, position):
    made = History()
    for source, events in by_source.items():
        for number, second, values in numbered(events):
            if number <= position.get(source, 0):
                made.add(second, values, STORED[entity])
    return made


def timeline_of(entity, by_source):
    made = Timeline(entity)
    for source, events in by_source.items():
        for number, second, values in numbered(events):
            made.add(source, number, second, values)
    return made


@given(
    entity=st.sampled_from(Entity),
    by_source=st.fixed_dictionaries(dict.fromkeys(SOURCES, EVENTS)),
    positions=st.lists(POSITION, min_size=1, max_size=8),
)
def test_state_at_any_position_is_that_of_the_events_up_to_it_forwards_and_backwards(entity, by_source, positions):
    timeline = timeline_of(entity, by_source)
    for position in positions:
        assert timeline.at(position) == from_scratch(entity, by_source, position)


@pytest.fixture
def timeline():
    """Two decisions of one partition, and a label."""
    one = {Measure.COUNT: 1}
    events = {SOURCES[0]: [(3, 0, one), (4, 0, one)], SOURCES[2]: [(5, 0, {Measure.FRAUDS: 1})]}
    return timeline_of(Entity.MERCHANT, events)


def minutes(timeline, **position):
    by_source = {SOURCES[0]: position.get("decision", 0), SOURCES[2]: position.get("label", -1)}
    return sum(counts[Measure.COUNT] for counts in timeline.at(by_source).tiles["m"].values())


def test_a_position_includes_the_event_of_its_number(timeline):
    assert [minutes(timeline, decision=number) for number in (2, 3, 6, 7, 99, 3)] == [0, 1, 1, 2, 2, 1]


def test_a_source_that_a_position_does_not_name_has_not_been_followed(timeline):
    assert timeline.at({SOURCES[2]: 5}).tiles["d"] == {20_000: {Measure.FRAUDS: 1}}
    assert minutes(timeline, decision=7) == 2
    assert timeline.at({}) == History()


def test_a_source_of_which_the_entity_has_no_event_adds_nothing(timeline):
    assert timeline.at({("decisions", 9): 1_000}) == History()


def test_positions_in_the_order_in_which_they_were_reached_count_each_event_once(timeline, monkeypatch):
    seconds = []
    monkeypatch.setattr(History, "add", lambda _self, second, *_: seconds.append(second))
    for number in (0, 3, 3, 5, 7):
        timeline.at({SOURCES[0]: number})
    assert len(seconds) == 2
