"""A history comes back from its bytes as it was; bytes that are not its own are refused, whatever is wrong."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.codec import HEAD, CorruptStateError, decode, encode, encode_stamped, head, stamp
from feature_store.definitions import DAYS, Measure, Tile
from feature_store.features import CARD, MERCHANT, SHIPPED
from feature_store.history import History
from feature_store.keys import Keys
from feature_store.transaction import MAX_AMOUNT

NOON = 20_758 * DAYS + DAYS // 2
LAYOUT = SHIPPED.layout
KEYS = {CARD: "{5}card:c1", MERCHANT: "{5}merchant:m1"}
BOTH = pytest.mark.parametrize("entity", [CARD, MERCHANT], ids=["card", "merchant"])


def counted(amount=100):
    ordered = {Measure.LARGEST_RATIO: 1_000, Measure.HIGH_RATIOS: 1}
    return {Measure.COUNT: 1, Measure.AMOUNT: amount, Measure.SQUARES: amount * amount} | ordered


def told(entity, seconds, *, label=True):
    """A history of the transactions at these seconds, and a label of the first."""
    made = History(SHIPPED.plans[entity])
    for sequence, second in enumerate(seconds, 1):
        made.count(second, counted())
        made.decisions = {5: sequence}
    if label and seconds:
        made.add(seconds[0], {Measure.FRAUDS: 1})
        made.labels = {5: 0}
    return made


def bytes_of(history, revision=7, *, key=None):
    return encode_stamped(history, key or KEYS[history.plan.entity], LAYOUT, revision)


def read(raw, entity, *, key=None, layout=LAYOUT):
    return decode(raw, key or KEYS[entity], SHIPPED.plans[entity], layout, 5)


def content(history):
    return history.newest, history.decisions, history.labels, history.tables


# --- round trips

EDGES = [value + off for value in (2**7, 2**8, 2**16, 2**32, 2**63, 2**64, 2**128) for off in (-1, 0, 1)][:-2]
VALUES = st.one_of(st.sampled_from(EDGES), st.integers(0, 300), st.integers(0, 2**128 - 1))
OFFSETS = st.dictionaries(st.integers(0, 300), st.integers(0, 2**64 - 1), max_size=4)
SEQUENCES = st.integers(1, 2**64 - 1)
NEWEST = st.one_of(st.none(), st.integers(-(2**62), 2**62))
ROWS = st.dictionaries(st.integers(0, 2**33), st.lists(VALUES, min_size=6, max_size=6), max_size=5)


@BOTH
@given(st.data(), NEWEST, OFFSETS, st.integers(1, 2**64 - 1))
def test_a_history_comes_back_as_it_was(entity, data, newest, labels, revision):
    made = History(SHIPPED.plans[entity])
    made.newest, made.labels = newest, labels
    made.decisions = {5: data.draw(SEQUENCES)} if entity is CARD else data.draw(OFFSETS)
    for table in made.tables:
        rows = data.draw(ROWS)
        table[:] = [sorted(rows), *([rows[n][column] for n in sorted(rows)] for column in range(len(table) - 1))]
    found = read(bytes_of(made, revision), entity)
    assert content(found) == content(made)
    assert found.revision == revision


@pytest.mark.parametrize("value", EDGES)
def test_a_history_read_can_be_counted_into(value):
    made = told(CARD, [NOON])
    made.tables[-1][3][0] = value
    found = read(bytes_of(made), CARD)
    found.count(NOON, counted())
    made.count(NOON, counted())
    assert content(read(bytes_of(found), CARD)) == content(made)


@pytest.mark.parametrize(
    ("largest", "width"),
    [(0, 1), (127, 1), (128, 2), (2**8, 3), (2**16, 5), (2**32, 9), (2**64 - 1, 9), (2**64, 21), (2**128 - 1, 41)],
)
def test_an_integer_takes_as_few_bytes_as_its_value_needs(largest, width):
    made = told(MERCHANT, [NOON])
    made.tables[-1][1][0] = 0
    without = len(bytes_of(made))
    made.tables[-1][1][0] = largest
    assert len(bytes_of(made)) == without - 1 + width


@BOTH
def test_nothing_under_a_key_is_a_history_never_written(entity):
    found = read(None, entity)
    assert content(found) == (None, {}, {}, [[[] for _ in table] for table in found.tables])
    assert (found.revision, head(LAYOUT, found.revision)) == (0, b"")


@BOTH
def test_equal_histories_make_equal_bytes(entity):
    seconds = [NOON, NOON + 61, NOON + 3_700, NOON + DAYS]
    one, other = told(entity, seconds), told(entity, seconds[::-1], label=False)
    other.add(NOON, {Measure.FRAUDS: 1})
    one.labels, other.labels = {3: 1, 1: 2}, {1: 2, 3: 1}
    assert bytes_of(one) == bytes_of(other)


@BOTH
def test_a_revision_shows_in_the_first_bytes_and_nowhere_else(entity):
    made = told(entity, [NOON])
    for revision in (1, 2, 2**63):
        raw = bytes_of(made, revision)
        assert raw[:HEAD] == head(LAYOUT, revision)
        assert content(read(raw, entity)) == content(made)


def test_a_cards_sequence_is_the_stamp_that_commit_gives():
    made = told(CARD, [NOON, NOON + 1])
    unstamped = encode(made, KEYS[CARD], LAYOUT, 7)
    assert bytes_of(made) == unstamped + stamp(2)
    assert read(unstamped + stamp(99), CARD).decisions == {5: 99}
    assert read(unstamped + stamp(0), CARD).decisions == {}


# --- what is refused


def refused(raw, entity, **wishes):
    """Decoding fails by name of the key, and in no other way."""
    key = wishes.get("key", KEYS[entity])
    with pytest.raises(CorruptStateError, match=re.escape(key)) as error:
        read(raw, entity, **wishes)
    return error.value.key == key


@BOTH
def test_every_flipped_bit_is_found(entity):
    made = told(entity, [NOON, NOON + 61, NOON + DAYS])
    made.tables[-1][2][0] = 2**70
    raw = bytearray(bytes_of(made))
    for bit in range(8 * len(raw)):
        raw[bit // 8] ^= 1 << bit % 8
        assert refused(bytes(raw), entity)
        raw[bit // 8] ^= 1 << bit % 8
    assert read(bytes(raw), entity)


@BOTH
def test_every_cut_and_every_byte_too_many_is_found(entity):
    raw = bytes_of(told(entity, [NOON, NOON + 61, NOON + DAYS]))
    assert all(refused(raw[:length], entity) for length in range(len(raw)))
    assert all(refused(raw + more, entity) for more in (b"\x00", b"\xff" * 16, raw))


@BOTH
def test_bytes_of_another_key_are_refused(entity):
    raw = bytes_of(told(entity, [NOON]), key=KEYS[entity] + "2")
    assert refused(raw, entity)


def test_bytes_of_another_entity_are_refused():
    for entity, other in ((CARD, MERCHANT), (MERCHANT, CARD)):
        assert refused(bytes_of(told(entity, [NOON])), other)
        assert refused(bytes_of(told(entity, [NOON]), key=KEYS[other]), other)


@BOTH
def test_bytes_of_another_layout_are_refused(entity):
    raw = bytes_of(told(entity, [NOON]))
    assert refused(raw, entity, layout=b"\x00\x01\x02\x03")
    with pytest.raises(CorruptStateError, match="another layout"):
        read(b"\x00\x01\x02\x03" + raw[4:], entity)


@BOTH
@given(raw=st.binary(max_size=300))
def test_foreign_bytes_are_refused(entity, raw):
    assert refused(raw, entity)
    assert refused(LAYOUT + raw, entity)


@BOTH
@given(cut=st.integers(1, 200), graft=st.binary(min_size=1, max_size=40))
def test_bytes_written_over_are_refused(entity, cut, graft):
    raw = bytes_of(told(entity, [NOON, NOON + 61]))
    changed = raw[:cut] + graft + raw[cut + len(graft) :]
    assert changed == raw or refused(changed, entity)


def test_the_error_names_the_remedy_and_not_the_content():
    with pytest.raises(CorruptStateError, match="fraud rebuild") as error:
        read(b"secret", CARD)
    assert "secret" not in str(error.value)


# --- size


def size(history, entity):
    return len(encode_stamped(history, Keys(12).history(entity, "x" * 64), LAYOUT, 2**63))


def test_a_typical_card_takes_1_5_kilobytes_at_most():
    made = History(SHIPPED.plans[CARD])
    for number in range(30):
        made.count(NOON + number * 40 * DAYS // 30, counted(5_000 + number))
    made.labels = {11: 123_456}
    assert size(made, CARD) <= 1_536


@BOTH
def test_the_busiest_entity_takes_6_kilobytes_at_most(entity):
    """Every tile that is kept is full, of the largest amounts, for years; labels and decisions of every partition."""
    made = History(SHIPPED.plans[entity])
    largest = {measure: value * 10**9 for measure, value in counted(2 * MAX_AMOUNT).items()}
    for tile in Tile:
        for number in range(tile.kept + 1):
            made.count(NOON - number * tile.seconds, largest | {Measure.FRAUDS: 10**9})
    made.labels = dict.fromkeys(range(48), 10**12)
    made.decisions = made.labels if entity is MERCHANT else {5: 10**12}
    assert [len(table[0]) for table in made.tables] == [91, 37, 42]
    assert size(made, entity) <= 6 * 1_024
