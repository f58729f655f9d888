"""Bytes that nobody of ours wrote are not read as a history: the error names the key, and nothing is written."""

import re

import pytest
from contract.events import KEYS, LEAP_DAY, in_redis, label, transaction

from feature_store.codec import CorruptStateError
from feature_store.definitions import DAYS, LABELLED
from feature_store.entity_writer import LoggedDecision, LoggedLabel, RestoredDecision
from feature_store.feature_set import FeatureSet
from feature_store.features import CARD, CARD_MEAN, ENTITIES, FEATURES, MERCHANT

CARD_KEY, MERCHANT_KEY = KEYS.history(CARD, "c0"), KEYS.history(MERCHANT, "m0")
OTHERS = {CARD_KEY: KEYS.history(CARD, "c1"), MERCHANT_KEY: KEYS.history(MERCHANT, "m1")}
BOTH = pytest.mark.parametrize("key", [CARD_KEY, MERCHANT_KEY], ids=["card", "merchant"])
ANOTHER_SET = FeatureSet(
    ENTITIES, [feature for feature in FEATURES if not LABELLED & {a.measure for a in feature.of}], own_mean=CARD_MEAN
)
"""Its tiles do not hold frauds."""
NEXT, ANOTHER = transaction(99, second=LEAP_DAY + DAYS), transaction(98, merchant="m7")


@pytest.fixture
async def store(client, opened):
    """With some state of two cards and two merchants."""
    made = in_redis(client, await opened(client, KEYS))
    for number in range(8):
        t = transaction(number, f"c{number % 2}", f"m{number % 2}", amount=999 * number, second=LEAP_DAY + 997 * number)
        await made.decide_and_count(t)
    await made.writer.label([LoggedLabel(0, 0, label(transaction(0)))])
    return made


def refuses(key):
    return pytest.raises(CorruptStateError, match=f"^the state under {re.escape(key)} ")


DAMAGES = {
    "cut_at_its_end": lambda raw: raw[:-1],
    "cut_in_its_middle": lambda raw: raw[: len(raw) // 2],
    "cut_in_its_head": lambda raw: raw[:7],
    "empty": lambda _: b"",
    "a_few_bytes_gone": lambda raw: raw[:30] + raw[33:],
    "longer": lambda raw: raw + b"\0",
    "foreign": lambda _: b"a value of something else that uses the same Redis, long enough",
    "foreign_behind_our_layout": lambda raw: raw[:4] + b"a value of something else, long enough",
    "zeros_behind_our_layout": lambda raw: raw[:4] + bytes(len(raw) - 4),
    "of_another_revision": lambda raw: raw[:4] + b"\0\0\0\0\0\0\1\0" + raw[12:],
    "of_another_layout": lambda raw: ANOTHER_SET.layout + raw[4:],
}


@BOTH
@pytest.mark.parametrize("damage", DAMAGES)
async def test_damaged_state_is_refused_and_left_alone(client, store, contents, key, damage):
    await client.set(key, DAMAGES[damage](await client.get(key)))
    before = await contents(client)
    with refuses(key) as error:
        await store.decisions.read(NEXT)
    assert error.value.key == key
    assert await contents(client) == before


@pytest.mark.parametrize(
    ("key", "change"),
    [
        (CARD_KEY, lambda writer: writer.label([LoggedLabel(7, 1, label(NEXT))])),
        (CARD_KEY, lambda writer: writer.restore(KEYS.partition("c0"), [RestoredDecision(9, NEXT, {}, b"answer", 60)])),
        (MERCHANT_KEY, lambda writer: writer.count([LoggedDecision(7, 1, NEXT), LoggedDecision(7, 2, ANOTHER)])),
    ],
    ids=["label", "restore", "count"],
)
async def test_nothing_is_counted_into_damaged_state(client, store, contents, key, change):
    await client.set(key, (await client.get(key))[:-1])
    before = await contents(client)
    with refuses(key):
        await change(store.writer)
    assert await contents(client) == before


@BOTH
async def test_the_bytes_of_another_key_are_refused(client, store, contents, key):
    await client.set(key, await client.get(OTHERS[key]))
    before = await contents(client)
    with refuses(key):
        await store.decisions.read(NEXT)
    assert await contents(client) == before


@BOTH
async def test_what_other_features_wrote_is_refused(client, store, opened, contents, key):
    ours = {each: await client.get(each) for each in (CARD_KEY, MERCHANT_KEY)}
    for each in ours:
        await client.delete(each)
    await in_redis(client, await opened(client, KEYS), ANOTHER_SET).decide_and_count(transaction(50))
    for each in ours.keys() - {key}:
        await client.set(each, ours[each])
    before = await contents(client)
    with refuses(key):
        await store.decisions.read(NEXT)
    assert await contents(client) == before


@BOTH
async def test_any_flipped_bit_is_noticed(client, store, key):
    raw = await client.get(key)
    for bit in range(0, 8 * len(raw), 11):  # each place within a byte in turn
        byte = bit // 8
        await client.set(key, raw[:byte] + bytes([raw[byte] ^ 1 << bit % 8]) + raw[byte + 1 :])
        with refuses(key):
            await store.decisions.read(NEXT)
    await client.set(key, raw)
    await store.decisions.read(NEXT)


async def test_a_card_damaged_after_its_read_is_not_written(client, store, contents):
    seen = await store.decisions.read(NEXT)
    await client.set(CARD_KEY, b"foreign")
    before = await contents(client)
    with refuses(CARD_KEY):
        await store.commit(NEXT, seen)
    assert await contents(client) == before
