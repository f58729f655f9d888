from collections import Counter
from datetime import UTC, datetime

from aiokafka.partitioner import DefaultPartitioner

from feature_store.definitions import Entity
from feature_store.keys import Keys
from feature_store.transaction import Event

KEYS = Keys(12)
EVENT = Event(transaction_id="t1", card_id="c1", merchant_id="m1", event_time=datetime(2026, 1, 1, tzinfo=UTC))


def test_a_cards_partition_is_the_one_kafkas_own_partitioner_gives_its_key():
    partitions = list(range(12))
    for number in range(500):
        card = f"card-{number}"
        assert KEYS.partition(card) == DefaultPartitioner()(card.encode(), partitions, partitions)


def test_cards_spread_over_all_partitions():
    counts = Counter(KEYS.partition(f"c{number}") for number in range(12_000))
    assert len(counts) == 12
    assert max(counts.values()) < 1_300


def test_all_keys_of_a_commit_carry_the_partition_as_their_hash_tag():
    partition = KEYS.partition("c1")
    tag = f"{{{partition}}}"
    keys = (
        KEYS.history(Entity.CARD, EVENT),
        KEYS.decided("c1", "t1"),
        KEYS.sequence(partition),
        KEYS.outbox(partition),
        KEYS.pending(partition),
        KEYS.gate(partition),
    )
    assert all(key.startswith(tag) for key in keys)


def test_what_is_noted_of_a_partition_of_state_is_beside_its_gate():
    names = (KEYS.gate(3), KEYS.progress(3), KEYS.outbox(3), KEYS.relay_lease(3))
    assert {name.partition("}")[0] for name in names} == {"{3"}
    assert len(set(names)) == len(names)


def test_identifiers_cannot_be_confused_across_the_boundary_between_them():
    assert KEYS.decided("a:b", "c") != KEYS.decided("a", "b:c")
