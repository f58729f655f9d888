"""P1: the same transaction gets the same decision and one effect, whichever way and however often it comes."""

import asyncio
from collections import Counter

import aiohttp
import msgspec
import pytest

pytestmark = pytest.mark.timeout(600)


def in_the_log(log, *transactions):
    """The decisions of these transactions."""
    ids = {(transaction["card_id"], transaction["transaction_id"]) for transaction in transactions}
    return [record for record in log if (record.transaction.card_id, record.transaction.transaction_id) in ids]


def counted(crowd, card):
    """How many transactions of these few minutes a card has counted."""
    _, counts = crowd.state()[f"{{{crowd.keys.partition(card)}}}card:{card}"]["minute tiles"]
    return sum(counts)


def everywhere(crowd, post, transactions, times):
    """Each transaction, so many times, over the APIs in turn."""
    return [
        post(crowd.apis[(number + turn) % len(crowd.apis)], transaction)
        for turn in range(times)
        for number, transaction in enumerate(transactions)
    ]


async def test_fifty_at_once_of_one_transaction_over_four_apis_get_one_decision(crowd, post, body):
    transaction = body()
    answers = await asyncio.gather(*everywhere(crowd, post, [transaction], 50))
    assert Counter(answers) == {(200, answers[0][1]): 50}
    log = await crowd.assert_state_is_the_log()
    assert counted(crowd, transaction["card_id"]) == 1
    assert len(in_the_log(log, transaction)) == 1


async def test_the_same_transactions_over_both_doors_at_once_have_one_effect_and_one_answer_each(
    crowd, post, send, body
):
    cards = [body()["card_id"] for _ in range(8)]
    transactions = [body(card_id=cards[number % 8], amount=100 + number) for number in range(40)]
    answers, _ = await asyncio.gather(
        asyncio.gather(*everywhere(crowd, post, transactions, 2)),
        asyncio.gather(*map(send, transactions * 2)),
    )
    assert {status for status, _ in answers} == {200}
    log = await crowd.assert_state_is_the_log()
    assert {counted(crowd, card) for card in cards} == {5}
    logged = {record.transaction.transaction_id: record for record in in_the_log(log, *transactions)}
    assert len(logged) == len(in_the_log(log, *transactions)) == 40
    first, again = answers[:40], answers[40:]
    async with aiohttp.ClientSession() as session:
        for transaction, (_, one), (_, other) in zip(transactions, first, again, strict=True):
            card, name = transaction["card_id"], transaction["transaction_id"]
            record = logged[name]
            assert one == other == msgspec.json.encode(record.answer)
            for api in crowd.apis:
                async with session.get(f"{api}/v1/decisions/{card}/{name}") as found:
                    assert await found.read() == one


async def test_another_body_under_the_same_id_is_refused_at_both_doors_and_changes_nothing(crowd, post, send, body):
    transaction = body()
    await post(crowd.apis[0], transaction)
    await crowd.rest()
    before = crowd.state()
    others = [transaction | change for change in ({"amount": 1}, {"merchant_id": "m-other"}, {"channel": "pos"})]

    answers = await asyncio.gather(*(post(api, other) for api in crowd.apis for other in others))
    assert [status for status, _ in answers] == [409] * len(answers)
    for other in others:
        await send(other)
    await crowd.rest()
    letters = [
        letter for letter in await crowd.dead_letters() if f'"{transaction["transaction_id"]}"' in (letter.value or "")
    ]
    assert [(letter.cause, letter.field) for letter in letters] == [("conflict", "transaction_id")] * len(others)

    assert crowd.state() == before
    assert len(in_the_log(await crowd.assert_state_is_the_log(), transaction)) == 1
