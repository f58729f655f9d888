"""The first label of a transaction stands, and has one effect on its card and one on its merchant."""

import pytest
from contract.events import LEAP_DAY, label, transaction

from feature_store.definitions import DAYS
from feature_store.entity_writer import LoggedLabel
from feature_store.features import SHIPPED


async def frauds(store, *, merchant="m0", days=9):
    """Known frauds of card c0 and of a merchant, so many days later."""
    t = transaction(99, merchant=merchant, second=LEAP_DAY + days * DAYS)
    served = dict(zip(SHIPPED.names, SHIPPED.row(t, (await store.decisions.read(t)).reads(t.second)), strict=True))
    return served["card_frauds_30d"], served["merchant_frauds_7d"]


async def test_a_label_is_known_when_its_delay_is_over(store):
    await store.decide_and_count(transaction())
    assert await store.writer.label([LoggedLabel(0, 0, label(transaction()))]) == [True]
    assert await frauds(store, days=7) == (0, 0)
    assert await frauds(store, days=9) == (1, 1)


async def test_a_label_before_its_transaction_counts(store):
    assert await store.writer.label([LoggedLabel(0, 0, label(transaction()))]) == [True]
    await store.decide_and_count(transaction())
    assert await frauds(store) == (1, 1)


async def test_a_label_that_comes_again_has_no_effect(store):
    once = LoggedLabel(0, 0, label(transaction()))
    again = LoggedLabel(0, 7, label(transaction()))
    assert await store.writer.label([once]) == [True]
    assert await store.writer.label([once]) == [False]
    assert await store.writer.label([again]) == [False]
    assert await frauds(store) == (1, 1)
    assert (await store.decisions.read(transaction(1))).histories[0].labels == {0: 0}


async def test_a_label_twice_in_a_batch_counts_once(store):
    batch = [LoggedLabel(0, offset, label(transaction(number))) for offset, number in enumerate([1, 2, 1, 1])]
    assert await store.writer.label(batch) == [True, True, False, False]
    assert await frauds(store) == (2, 2)


@pytest.mark.parametrize("batches", ["one", "two"])
async def test_a_contradicting_label_has_no_effect(store, batches):
    t = transaction()
    others = [label(t, is_fraud=False), label(t, merchant="m1"), label(transaction(second=LEAP_DAY + 1))]
    logged = [LoggedLabel(0, offset, each) for offset, each in enumerate([label(t), *others])]
    if batches == "one":
        assert await store.writer.label(logged) == [True, None, None, None]
    else:
        assert await store.writer.label(logged[:1]) == [True]
        assert await store.writer.label(logged[1:]) == [None, None, None]
    assert await frauds(store) == (1, 1)
    assert await frauds(store, merchant="m1") == (1, 0)
    assert (await store.decisions.read(transaction(1))).histories[0].labels == {0: 0}


async def test_labels_of_many_cards_reach_their_merchants(store):
    transactions = [transaction(number, card=f"c{number}", merchant=f"m{number % 3}") for number in range(40)]
    batch = [LoggedLabel(n % 12, n, label(t, is_fraud=n % 2 == 0)) for n, t in enumerate(transactions)]
    assert await store.writer.label(batch) == [True] * 40
    known = [await frauds(store, merchant=f"m{number}") for number in range(3)]
    assert known == [(1, 7), (1, 6), (1, 7)]
