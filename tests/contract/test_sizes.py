"""What state costs: bytes of memory that Redis says it uses, and bytes appended to its file."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from contract.events import KEYS, in_redis

from feature_store.codec import encode_stamped
from feature_store.definitions import DAYS, HOURS, MINUTES, Measure
from feature_store.features import CARD, MERCHANT, SHIPPED
from feature_store.history import History
from feature_store.pending import Pending
from feature_store.transaction import Transaction
from services.decision.decide import Decide
from services.decision.policy import Action, Policy
from services.decision.record import Stored
from services.metrics import Metrics

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
CARD_ID, MERCHANT_ID = "tok_4f1c2a9be8d04d7c", "mrc_000182736455"
TYPICAL, WITHIN = 30, timedelta(days=40)
"""A typical card's transactions, and in which time."""


class Model:
    """Approves; its version and its score are as long as those of the shipped one."""

    version = "e7d63f566a38"

    def score(self, row):
        return 0.012345679104328156


def purchase(number, at):
    seeded = random.Random(number)
    return Transaction(
        transaction_id=f"0b0f5c2e-7d0c-4b8e-9d55-2f6f3b1e{number:04}",
        card_id=CARD_ID,
        merchant_id=MERCHANT_ID,
        amount=seeded.randint(500, 250_000),
        currency="EUR",
        event_time=at,
        channel="ecommerce",
        country="DE",
        mcc="5411",
        device_id="dev_9a8b7c6d5e4f3a21",
    )


@pytest.fixture
async def client(on_one):
    made = on_one.connect()
    yield made
    await made.aclose()


@pytest.fixture
async def typical_card(client, opened):
    """A card of a month and more, as decided; and the next decision of it, to be made."""
    decide = Decide(
        store=in_redis(client, await opened(client, KEYS)).decisions,
        model=Model(),
        policy=Policy(review=0.5, decline=0.8),
        metrics=Metrics(),
        now=lambda: NOON,
    )
    seeded = random.Random(7)
    ages = sorted((seeded.random() for _ in range(TYPICAL)), reverse=True)
    for number, age in enumerate(ages):
        await decide(purchase(number, NOON - age * WITHIN))
    await Pending(client, KEYS).settle_to(KEYS.partition(CARD_ID), TYPICAL)  # no lag, so no word of it in the answer
    return lambda: decide(purchase(TYPICAL, NOON))


async def test_a_stored_decision_takes_250_bytes(client, typical_card):
    outcome = await typical_card()
    assert (outcome.answer.action, outcome.answer.degraded) == (Action.APPROVE, ())
    key = KEYS.decided(CARD_ID, outcome.answer.transaction_id)
    assert await client.memory_usage(key) <= 250
    assert Stored.from_bytes(await client.get(key)).answer(outcome.answer.transaction_id) == outcome.answer


async def test_a_typical_card_takes_one_and_a_half_kilobytes(client, typical_card):
    assert await client.memory_usage(KEYS.history(CARD, CARD_ID)) <= 1_500


@pytest.mark.parametrize("entity", [CARD, MERCHANT], ids=["card", "merchant"])
async def test_the_busiest_entity_takes_six_kilobytes(client, entity):
    """A hundred transactions a second for ever, from all partitions, a tenth of them fraud."""
    history, now = History(SHIPPED.plans[entity]), int(NOON.timestamp())
    for length, tiles in ((DAYS, 42), (HOURS, 37), (MINUTES, 91)):
        count, cents = 100 * length, 10_000_00
        values = {Measure.COUNT: count, Measure.AMOUNT: count * cents, Measure.SQUARES: count * cents * cents}
        values |= {Measure.LARGEST_RATIO: 10**9, Measure.HIGH_RATIOS: count // 3, Measure.FRAUDS: count // 10}
        for age in reversed(range(tiles)):
            history.count(now - age * length, values)
    history.labels = {partition: 10**7 + partition for partition in range(12)}
    history.decisions = {1: 10**9} if entity is CARD else {partition: 10**9 + partition for partition in range(12)}
    assert [len(table[0]) for table in history.tables] == [91, 37, 42]
    await client.set("{1}busiest", encode_stamped(history, "{1}busiest", SHIPPED.layout, 10**9))
    assert await client.memory_usage("{1}busiest") <= 6_000


async def test_a_decision_appends_two_and_a_half_kilobytes(client, on_one, typical_card, written):
    async def appended():
        await written(on_one.url)
        return (await client.info("persistence"))["aof_current_size"]

    before = await appended()
    await typical_card()
    assert 1_000 < await appended() - before <= 2_500
