"""The updater: each decision and each label has one effect, whatever comes again, is missing or is none."""

from types import SimpleNamespace

import msgspec
import pytest
from aiokafka import TopicPartition
from logged import NOW, label_of, paid, published
from memory_store import MemoryStore

from feature_store.entity_writer import LoggedDecision
from feature_store.features import CARD, MERCHANT
from feature_store.gate import Gate
from feature_store.held import Held
from feature_store.keys import Keys
from feature_store.progress import Reached
from services.decision.record import RecordVersionError
from services.following import Following, SkippedError
from services.log import FOLLOWS
from services.metrics import Metrics
from services.topics import DECISIONS, LABELS
from services.updater import Decisions, Labels, Updater

FIVE, SIX = TopicPartition(DECISIONS, 5), TopicPartition(DECISIONS, 6)
LABELS_FIVE, LABELS_SIX = TopicPartition(LABELS, 5), TopicPartition(LABELS, 6)
GATES = [Gate("0@abc")] * 12


class Pending:
    """Sequences 1 to 19 of each partition."""

    def __init__(self):
        self.open = {5: set(range(1, 20)), 6: set(range(1, 20))}

    async def settle(self, counted):
        for partition, sequences in counted.items():
            self.open[partition] -= set(sequences)


class DeadLetters:
    def __init__(self):
        self.letters = []

    async def send(self, _record, *, cause, field, message):
        self.letters.append((cause, field, message))


class Consumer:
    """Its topics begin at `oldest`."""

    oldest = 0

    async def beginning_offsets(self, partitions):
        return dict.fromkeys(partitions, self.oldest)

    def seek(self, partition, offset):
        pass


class Progress:
    """State has been given the record that began the first epoch, at offset 0, and no label."""

    def __init__(self):
        self.places = {("decisions", 5): Reached(1), ("decisions", 6): Reached(1)}

    async def reached(self, topic, partition):
        return self.places.get((topic, partition), Reached(0))

    async def note(self, topic, partition, reached):
        self.places[topic, partition] = reached


class World:
    """An updater over the store in memory, and everything beside it."""

    def __init__(self):
        self.store = MemoryStore(Keys(12))
        self.pending, self.letters, self.progress, self.consumer = Pending(), DeadLetters(), Progress(), Consumer()
        self.metrics = Metrics()
        self.following = Following(self.consumer, self.progress, GATES)
        decisions = Decisions(self.store, self.pending, self.following, self.letters, self.metrics)
        self.updater = Updater(
            {DECISIONS: decisions, LABELS: Labels(self.store, self.following, self.letters, self.metrics)}
        )

    async def assign(self):
        await self.following.on_partitions_assigned([FIVE, SIX, LABELS_FIVE, LABELS_SIX])

    async def apply(self, partition, records):
        await self.updater({partition: records})

    async def history(self, entity, value):
        seen = await self.store.read(paid("look", **{entity.key: value}))
        return seen.histories[(CARD, MERCHANT).index(entity)]

    async def held(self):
        """What the merchant m1 has of the log."""
        return (await self.store.read(paid("look"))).held["merchant"]

    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(f"fraud_{name}_total", labels)


@pytest.fixture
async def world():
    made = World()
    await made.assign()
    return made


def at(first_offset, *values, partition=5):
    """Records; an empty one follows the first epoch."""
    return [
        SimpleNamespace(
            offset=offset,
            partition=partition,
            timestamp=NOW.timestamp() * 1_000,
            value=value,
            headers=() if value else ((FOLLOWS, b"0"),),
        )
        for offset, value in enumerate(values, first_offset)
    ]


def decision(sequence, *, epoch=0, name=None, partition=5, **changes):
    return published(paid(name or f"t{sequence}", **changes), sequence, epoch=epoch, partition=partition)


def decisions(first_offset, *sequences):
    return at(first_offset, *map(decision, sequences))


def label(number, *, is_fraud=True, **changes):
    return msgspec.json.encode(label_of(paid(f"t{number}", **changes), is_fraud=is_fraud))


# --- decisions


async def test_what_was_counted_is_no_longer_pending(world):
    await world.apply(FIVE, decisions(1, 1, 2, 3))
    await world.apply(FIVE, decisions(4, 4))
    assert world.pending.open[5] == set(range(5, 20))
    assert await world.held() == Held(decisions={5: 4})
    assert world.value("sequence_gaps") == 0


async def test_records_of_all_partitions_are_counted_at_one_go(world):
    six = at(1, *(decision(n, partition=6) for n in (1, 2)), partition=6)
    before = world.store.state.calls
    await world.updater({FIVE: decisions(1, 1, 2, 3), SIX: six})
    assert world.store.state.calls - before == 2  # a read and a write of the merchant
    assert await world.held() == Held(decisions={5: 3, 6: 2})
    assert (world.pending.open[5], world.pending.open[6]) == (set(range(4, 20)), set(range(3, 20)))
    merchant = await world.history(MERCHANT, "m1")
    assert merchant.tables[0][1] == [5]


async def test_only_entities_that_follow_the_log_are_counted(world):
    await world.apply(FIVE, decisions(1, 1))
    assert (await world.history(CARD, "c1")).newest is None


async def test_records_that_come_again_are_repetitions_and_no_gap(world):
    await world.apply(FIVE, decisions(1, 1, 2, 3))
    await world.apply(FIVE, decisions(4, 2, 3, 4))  # a relay published again after a crash
    await world.apply(FIVE, decisions(2, 2, 3, 4))  # offsets were not committed before a rebalance
    assert (world.value("repeats", what="count"), world.value("sequence_gaps")) == (5, 0)
    assert (await world.history(MERCHANT, "m1")).tables[0][1] == [4]


async def test_a_sequence_that_never_came_is_not_waited_for(world):
    await world.apply(FIVE, decisions(1, 1, 2))
    await world.apply(FIVE, decisions(3, 5))
    assert world.value("sequence_gaps") == 2
    assert world.pending.open[5] == set(range(6, 20))


async def test_what_the_log_forgot_is_counted_and_not_waited_for(world):
    world.consumer.oldest = 100
    await world.assign()
    await world.apply(FIVE, decisions(100, 7))
    assert world.pending.open[5] == set(range(8, 20))
    assert world.value("sequence_gaps") == 6


async def test_a_partition_that_was_elsewhere_has_no_gap(world):
    await world.apply(FIVE, decisions(1, 1))
    world.pending.open[5] -= {2, 3, 4}  # another member counted these
    world.progress.places["decisions", 5] = Reached(5, 4)
    await world.assign()
    await world.apply(FIVE, decisions(5, 5))
    assert world.value("sequence_gaps") == 0


async def test_a_record_that_is_no_decision_is_set_aside(world):
    await world.apply(FIVE, at(1, decision(1), b'{"partition": 5}', b"\xff", decision(2)))
    assert world.letters.letters == [("invalid", "body", "is not a decision record")] * 2
    assert world.pending.open[5] == set(range(3, 20))
    assert world.value("sequence_gaps") == 0


async def test_a_record_of_another_version_stops_the_updater(world):
    of_later = decision(1).replace(b'"version":2', b'"version":3')
    with pytest.raises(RecordVersionError):
        await world.apply(FIVE, at(1, of_later))
    assert (world.letters.letters, world.pending.open[5]) == ([], set(range(1, 20)))


async def test_what_a_fenced_relay_publishes_late_is_not_counted(world):
    late, real = decision(3, name="t33"), decision(3, epoch=3)
    await world.apply(FIVE, at(1, decision(1), decision(2), b"", late))
    assert world.pending.open[5] == set(range(3, 20))
    assert await world.held() == Held(decisions={5: 2})
    await world.apply(FIVE, at(5, real))
    assert world.pending.open[5] == set(range(4, 20))
    assert await world.held() == Held(decisions={5: 3})
    assert (world.value("repeats", what="count"), world.value("sequence_gaps")) == (0, 0)


async def test_records_without_a_decision_are_passed_all_the_same(world):
    await world.apply(FIVE, at(1, b"", b"no decision"))
    await world.following.note_all()
    assert world.progress.places["decisions", 5] == Reached(3, 0)


async def test_behind_records_that_did_not_come_nothing_is_counted(world):
    with pytest.raises(SkippedError):
        await world.updater({SIX: at(1, decision(1, partition=6), partition=6), FIVE: decisions(2, 1)})
    assert world.pending.open == {5: set(range(1, 20)), 6: set(range(1, 20))}


async def test_its_place_is_noted_with_the_last_sequence(world):
    await world.apply(FIVE, decisions(1, 1, 2, 3))
    await world.apply(FIVE, decisions(4, 2))  # a repetition at the end does not take it back
    await world.following.note_all()
    assert world.progress.places["decisions", 5] == Reached(5, 3)


async def test_what_is_not_counted_stays_pending(world):
    async def fail(_):
        raise TimeoutError

    world.store.count = fail
    made = Decisions(world.store, world.pending, world.following, world.letters, world.metrics)
    with pytest.raises(TimeoutError):
        await made({FIVE: decisions(1, 1)})
    assert world.pending.open[5] == set(range(1, 20))
    await world.following.note_all()
    assert world.progress.places["decisions", 5] == Reached(1)


# --- labels


async def test_labels_are_applied_once_with_their_place(world):
    await world.apply(LABELS_FIVE, at(0, label(1), label(2), label(1)))
    assert (world.value("labels", outcome="applied"), world.value("labels", outcome="repeated")) == (2, 1)
    for entity, value in ((CARD, "c1"), (MERCHANT, "m1")):
        history = await world.history(entity, value)
        assert history.labels == {5: 1}
        assert history.tables[-1][-1] == [2]
    await world.following.note_all()
    assert world.progress.places["labels", 5] == Reached(3)


async def test_labels_that_come_again_in_a_later_batch_have_no_effect(world):
    for _ in range(2):
        await world.apply(LABELS_FIVE, at(0, label(1), label(2)))
    assert (world.value("labels", outcome="applied"), world.value("labels", outcome="repeated")) == (2, 2)
    assert (await world.history(MERCHANT, "m1")).tables[-1][-1] == [2]


async def test_labels_of_all_partitions_are_applied_at_one_go(world):
    await world.updater({LABELS_FIVE: at(0, label(1)), LABELS_SIX: at(0, label(2, card_id="c2"), partition=6)})
    assert (await world.history(MERCHANT, "m1")).labels == {5: 0, 6: 0}
    assert (await world.history(CARD, "c2")).labels == {6: 0}


@pytest.mark.parametrize("changes", [{"is_fraud": False}, {"merchant_id": "m2"}, {"event_time": NOW.replace(hour=11)}])
async def test_a_label_that_contradicts_the_first_is_set_aside(world, changes):
    await world.apply(LABELS_FIVE, at(0, label(1), label(1, **changes)))
    assert world.letters.letters == [("conflict", "is_fraud", "another label stands for transaction t1")]
    for entity, value, frauds in ((CARD, "c1", [1]), (MERCHANT, "m1", [1]), (MERCHANT, "m2", [])):
        assert (await world.history(entity, value)).tables[-1][-1] == frauds


async def test_a_label_that_says_genuine_counts_no_fraud(world):
    await world.apply(LABELS_FIVE, at(0, label(1, is_fraud=False)))
    card = await world.history(CARD, "c1")
    assert (card.labels, card.tables[-1][-1]) == ({5: 0}, [])


async def test_labels_that_cannot_be_applied_never_block_a_partition(world):
    contradiction, of_the_future = label(1, is_fraud=False), label(2, event_time=NOW.replace(year=2027))
    await world.apply(LABELS_FIVE, at(0, label(1), contradiction, b"", of_the_future, label(3)))
    assert [letter[:2] for letter in world.letters.letters] == [
        ("invalid", "body"),
        ("invalid", "event_time"),
        ("conflict", "is_fraud"),
    ]
    assert world.value("labels", outcome="applied") == 2
    await world.following.note_all()
    assert world.progress.places["labels", 5] == Reached(5)


async def test_a_label_the_card_has_and_the_merchant_lacks_is_completed(world):
    """A crash between the two writes."""
    key = Keys(12).history(MERCHANT, "m1")
    await world.apply(LABELS_FIVE, at(0, label(1)))
    del world.store.state.values[key]
    del world.store.state.values[Keys(12).label(MERCHANT, "m1", label_of(paid("t1")))]
    await world.apply(LABELS_FIVE, at(0, label(1)))
    assert (await world.history(MERCHANT, "m1")).tables[-1][-1] == [1]
    assert (await world.history(CARD, "c1")).tables[-1][-1] == [1]


async def test_behind_labels_that_did_not_come_none_is_applied(world):
    with pytest.raises(SkippedError):
        await world.apply(LABELS_FIVE, at(1, label(1)))
    assert world.value("labels", outcome="applied") == 0


# --- both


async def test_what_was_fetched_together_goes_to_each_topics_handler(world):
    await world.updater({LABELS_FIVE: at(0, label(1)), FIVE: decisions(1, 1)})
    merchant = await world.history(MERCHANT, "m1")
    assert (merchant.decisions, merchant.labels) == ({5: 1}, {5: 0})
    assert merchant.tables[-1][1:] == [[1], [1_000], [1]]


async def test_the_writer_counts_what_is_new_of_several_partitions(world):
    batch = [LoggedDecision(partition, n, paid(f"{partition}-{n}")) for partition in (5, 6) for n in (1, 2)]
    assert await world.store.count(batch[:3]) == 3
    assert await world.store.count(batch) == 1
    assert await world.held() == Held(decisions={5: 2, 6: 2})


async def test_what_moves_to_another_member_meanwhile_is_left_to_it():
    """Its rebalance comes while decisions are applied; the labels that were fetched with them are no longer ours."""
    ours, applied = {FIVE, LABELS_FIVE}, []

    async def decide(batches):
        applied.extend(batches)
        ours.remove(LABELS_FIVE)

    async def apply_labels(batches):
        applied.extend(batches)

    updater = Updater({DECISIONS: decide, LABELS: apply_labels}, ours.__contains__)
    await updater({FIVE: decisions(1, 1), LABELS_FIVE: []})
    assert applied == [FIVE]
