import pytest
from aiokafka import TopicPartition

from feature_store.gate import Gate
from feature_store.progress import Reached
from services import following as module
from services.following import Following, SkippedError

DECISIONS, LABELS = TopicPartition("decisions", 1), TopicPartition("labels", 1)
GATES = [Gate("3@abc"), Gate("0 40@abc")]


class Consumer:
    """Knows what its group committed, which is further than state is."""

    def __init__(self, oldest=0):
        self.oldest = oldest
        self.at = {DECISIONS: 900, LABELS: 900}

    async def beginning_offsets(self, partitions):
        assert partitions, "a question about nothing is an error"
        return dict.fromkeys(partitions, self.oldest)

    def seek(self, partition, offset):
        self.at[partition] = offset


class Progress:
    def __init__(self, **places):
        self.places = places

    async def reached(self, topic, partition):
        assert partition == 1
        return self.places.get(topic, Reached(0))

    async def note(self, topic, partition, reached):
        assert partition == 1
        self.places[topic] = reached


@pytest.fixture
def consumer():
    return Consumer()


@pytest.fixture
def progress():
    return Progress(decisions=Reached(30, 20), labels=Reached(7))


@pytest.fixture
async def following(consumer, progress):
    made = Following(consumer, progress, GATES)
    await made.on_partitions_assigned([DECISIONS, LABELS])
    return made


async def test_it_starts_where_state_stands_and_not_where_its_group_does(following, consumer):
    assert consumer.at == {DECISIONS: 30, LABELS: 7}
    assert following.at(DECISIONS, 30).reached == Reached(30, 20)
    assert following.at(LABELS, 7).reached == Reached(7)


async def test_it_starts_at_the_beginning_of_a_log_cut_short(progress):
    consumer = Consumer(oldest=50)
    following = Following(consumer, progress, GATES)
    await following.on_partitions_assigned([DECISIONS, LABELS])
    assert consumer.at == {DECISIONS: 50, LABELS: 50}
    assert following.at(DECISIONS, 50).reached == Reached(50, 20)
    assert following.at(DECISIONS, 50).epochs.begun == [0, 40]


async def test_it_knows_the_epoch_that_is_in_force_where_it_starts(following):
    assert following.at(DECISIONS, 30).epochs.begun == [0]
    assert following.at(LABELS, 7).epochs.begun == []


async def test_a_batch_behind_records_that_did_not_come_is_refused(following):
    with pytest.raises(SkippedError, match="decisions 1"):
        following.at(DECISIONS, 31)
    place = following.at(DECISIONS, 30)
    await following.reached(DECISIONS, place, Reached(35, 24))
    with pytest.raises(SkippedError):
        following.at(DECISIONS, 36)
    assert following.at(DECISIONS, 35) is place


async def test_a_batch_of_a_revoked_partition_is_refused(following):
    await following.on_partitions_revoked([DECISIONS])
    with pytest.raises(SkippedError, match="decisions 1"):
        following.at(DECISIONS, 30)
    assert following.at(LABELS, 7)


async def test_records_that_come_again_are_not_refused(following):
    assert following.at(DECISIONS, 12)


async def test_a_partition_is_known_while_it_is_assigned(consumer, progress):
    following = Following(consumer, progress, GATES)
    assert not following.knows(DECISIONS)
    await following.on_partitions_assigned([DECISIONS])
    assert following.knows(DECISIONS)
    assert not following.knows(LABELS)
    await following.on_partitions_revoked([DECISIONS])
    assert not following.knows(DECISIONS)


async def test_a_place_that_cannot_be_found_out_is_an_error(consumer, progress):
    async def no_answer(_topic, _partition):
        raise TimeoutError

    progress.reached = no_answer
    following = Following(consumer, progress, GATES)
    with pytest.raises(TimeoutError):  # aiokafka only logs it
        await following.on_partitions_assigned([DECISIONS])
    with pytest.raises(TimeoutError):
        following.knows(DECISIONS)


async def test_an_assignment_of_nothing_is_none(consumer, progress):
    following = Following(consumer, progress, GATES)
    await following.on_partitions_assigned([])
    await following.on_partitions_revoked([])
    assert consumer.at == {DECISIONS: 900, LABELS: 900}


async def test_a_revoked_partition_is_left_with_a_note_of_its_place(following, progress):
    await following.reached(DECISIONS, following.at(DECISIONS, 30), Reached(35, 24))
    await following.reached(LABELS, following.at(LABELS, 7), Reached(8))
    assert progress.places["decisions"] == Reached(30, 20)  # not after every batch
    await following.on_partitions_revoked([DECISIONS, TopicPartition("decisions", 0)])
    assert progress.places == {"decisions": Reached(35, 24), "labels": Reached(7)}


async def test_all_places_are_noted_before_a_stop(following, progress):
    await following.reached(DECISIONS, following.at(DECISIONS, 30), Reached(35, 24))
    await following.reached(LABELS, following.at(LABELS, 7), Reached(8))
    await following.note_all()
    assert progress.places == {"decisions": Reached(35, 24), "labels": Reached(8)}


async def test_a_place_is_noted_now_and_then_while_it_is_followed(following, progress):
    place = following.at(DECISIONS, 30)
    place.noted_at -= module.NOTE_SECONDS
    await following.reached(DECISIONS, place, Reached(35, 24))
    assert progress.places["decisions"] == Reached(35, 24)
    await following.reached(DECISIONS, place, Reached(36, 25))
    assert progress.places["decisions"] == Reached(35, 24)


async def test_a_partition_that_comes_back_goes_on_from_its_note(following, consumer, progress):
    await following.reached(DECISIONS, following.at(DECISIONS, 30), Reached(35, 24))
    await following.on_partitions_revoked([DECISIONS])
    progress.places["decisions"] = Reached(60, 44)
    await following.on_partitions_assigned([DECISIONS])
    assert consumer.at[DECISIONS] == 60
    assert following.at(DECISIONS, 60).reached == Reached(60, 44)
    assert following.at(DECISIONS, 60).epochs.begun == [0, 40]
