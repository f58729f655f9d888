from collections import Counter
from datetime import UTC, datetime

from aiokafka.partitioner import DefaultPartitioner
from with_device import DEVICE

from feature_store.features import CARD, ENTITIES, MERCHANT
from feature_store.keys import Keys
from feature_store.transaction import Event

KEYS = Keys(12)
EVENT = Event(transaction_id="t1", card_id="c1", merchant_id="m1", event_time=datetime(2026, 1, 1, tzinfo=UTC))


def tag(key):
    return key.partition("}")[0] + "}"


def test_a_partition_is_the_one_kafkas_own_partitioner_gives():
    partitions = list(range(12))
    for number in range(500):
        card = f"card-{number}"
        assert KEYS.partition(card) == DefaultPartitioner()(card.encode(), partitions, partitions)


def test_cards_spread_over_all_partitions():
    counts = Counter(KEYS.partition(f"c{number}") for number in range(12_000))
    assert len(counts) == 12
    assert max(counts.values()) < 1_300


def test_all_keys_of_a_commit_share_a_slot():
    partition = KEYS.partition("c1")
    keys = (
        KEYS.history(CARD, "c1"),
        KEYS.decided("c1", "t1"),
        KEYS.sequence(partition),
        KEYS.outbox(partition),
        KEYS.pending(partition),
        KEYS.pending_since(partition),
        KEYS.gate(partition),
    )
    assert {tag(key) for key in keys} == {f"{{{partition}}}"}
    assert len(set(keys)) == len(keys)


def test_what_is_written_with_an_entity_shares_its_slot():
    for entity, value in ((CARD, "c1"), (MERCHANT, "m1"), (DEVICE, "d1")):
        partition = KEYS.partition(value)
        names = (KEYS.history(entity, value), KEYS.label(entity, value, EVENT), KEYS.gate(partition))
        assert {tag(name) for name in names} == {f"{{{partition}}}"}


def test_what_is_noted_of_a_partition_of_state_is_beside_its_gate():
    names = (KEYS.gate(3), KEYS.progress(3), KEYS.outbox(3), KEYS.relay_lease(3))
    assert {tag(name) for name in names} == {"{3}"}
    assert len(set(names)) == len(names)


def test_entities_of_one_value_have_keys_of_their_own():
    histories = {KEYS.history(entity, "x") for entity in (*ENTITIES, DEVICE)}
    labels = {KEYS.label(entity, "x", EVENT) for entity in (*ENTITIES, DEVICE)}
    assert len(histories | labels) == 6


def test_identifiers_are_not_confused_across_their_boundary():
    assert KEYS.decided("a:b", "c") != KEYS.decided("a", "b:c")
    other = Event(transaction_id="1", card_id="c1:t", merchant_id="m1", event_time=EVENT.event_time)
    same = Event(transaction_id="t:1", card_id="c1", merchant_id="m1", event_time=EVENT.event_time)
    assert KEYS.label(CARD, "c1", other) != KEYS.label(CARD, "c1", same)
