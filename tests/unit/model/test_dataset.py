from collections import defaultdict, deque
from datetime import UTC, datetime, timedelta

import naive_oracle
import numpy as np
import pytest

from feature_store.features import ENTITIES, SHIPPED
from feature_store.tables import Row
from feature_store.transaction import Transaction
from model.dataset import build

START = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday
MINUTE, DAY = 60, 86_400
DELAY = 7 * DAY


def a_row(number, at, *, card="c1", merchant="m1", amount=1000, is_fraud=False) -> Row:
    return Row(
        Transaction(
            transaction_id=f"t{number}",
            card_id=card,
            merchant_id=merchant,
            event_time=START + timedelta(seconds=at),
            amount=amount,
            currency="EUR",
        ),
        is_fraud=is_fraud,
    )


def column(data, name):
    return data.features[:, SHIPPED.names.index(name)]


def random_rows(count: int) -> list[Row]:
    rng = np.random.default_rng(3)
    seconds = np.sort(rng.integers(0, 45 * DAY, count))
    return [
        a_row(
            number,
            int(second),
            card=f"c{rng.integers(4)}",
            merchant=f"m{rng.integers(3)}",
            amount=int(rng.integers(100, 50_000)),
            is_fraud=bool(rng.random() < 0.2),
        )
        for number, second in enumerate(seconds)
    ]


def naive(rows: list[Row], at: int, owner: str, tile: int, window: int, delay: int = 0) -> list[Row]:
    """The earlier rows of the same card or merchant whose tile lies in the window, by looking at each of them."""
    now = rows[at].transaction
    last = now.second // tile if delay == 0 else (now.second - delay) // tile - 1
    return [
        row
        for row in rows[:at]
        if getattr(row.transaction, owner) == getattr(now, owner)
        and last - window < row.transaction.second // tile <= last
    ]


def test_features_equal_a_naive_look_at_all_earlier_rows():
    rows = random_rows(600)
    data = build(rows)
    expected = {
        name: [] for name in ("10m", "1d", "mean_30d", "merchant_1d", "merchant_frauds", "share", "card_frauds")
    }
    for at in range(len(rows)):
        expected["10m"].append(len(naive(rows, at, "card_id", MINUTE, 10)))
        expected["1d"].append(len(naive(rows, at, "card_id", 3_600, 24)))
        month = [row.transaction.amount for row in naive(rows, at, "card_id", DAY, 30)]
        expected["mean_30d"].append(sum(month) / len(month) / 100 if month else np.nan)
        expected["merchant_1d"].append(len(naive(rows, at, "merchant_id", 3_600, 24, delay=120)))
        week = naive(rows, at, "merchant_id", DAY, 7, delay=DELAY + 120)
        expected["merchant_frauds"].append(sum(row.is_fraud for row in week))
        expected["share"].append(sum(row.is_fraud for row in week) / len(week) if week else np.nan)
        expected["card_frauds"].append(
            sum(row.is_fraud for row in naive(rows, at, "card_id", DAY, 30, delay=DELAY + 120))
        )
    names = (
        "card_count_10m",
        "card_count_1d",
        "card_mean_30d",
        "merchant_count_1d",
        "merchant_frauds_7d",
        "merchant_fraud_share_7d",
        "card_frauds_30d",
    )
    for name, values in zip(names, expected.values(), strict=True):
        assert np.nanmax(values) > 0, f"{name} is never tried"
        np.testing.assert_array_equal(column(data, name), np.float32(values), err_msg=name)


def test_every_feature_is_that_of_a_naive_look_at_its_moment():
    """Online's order: what a label says is known when it arrives, what a transaction says at once."""
    rows = random_rows(200)
    data = build(rows)
    told = defaultdict(list)
    on_their_way = deque()
    for at, row in enumerate(rows):
        t = row.transaction
        while on_their_way and on_their_way[0].event_time + timedelta(seconds=DELAY) <= t.event_time:
            charged_back = on_their_way.popleft()
            for entity in ENTITIES:
                told[entity, getattr(charged_back, entity.key)].append(naive_oracle.Reported(charged_back.event_time))
        events = [told[entity, getattr(t, entity.key)] for entity in ENTITIES]
        reads = [
            [naive_oracle.read(aggregate, of_entity, t.event_time) for aggregate in SHIPPED.plans[entity].aggregates]
            for entity, of_entity in zip(ENTITIES, events, strict=True)
        ]
        assert data.features[at].tobytes() == SHIPPED.row(t, reads).tobytes()
        ratio = naive_oracle.ratio(t.cents, events[0], t.event_time)
        for of_entity in events:
            of_entity.append(naive_oracle.Paid(t.event_time, t.cents, ratio))
        if row.is_fraud:
            on_their_way.append(t)


def test_a_transaction_sees_the_one_before_and_not_itself():
    data = build([a_row(1, 0), a_row(2, 0)])
    assert column(data, "card_count_10m").tolist() == [0, 1]


@pytest.mark.parametrize(("after", "known"), [(10 * DAY - 1, 0), (10 * DAY, 1)])
def test_a_label_counts_from_the_second_it_arrives(after, known):
    at = DAY // 2
    rows = [a_row(1, at, is_fraud=True), a_row(2, at + after, card="c2"), a_row(3, at + after, merchant="m2")]
    data = build(rows, label_delay=timedelta(days=10))
    assert column(data, "merchant_frauds_7d")[1] == known
    assert column(data, "card_frauds_30d")[2] == known


def test_only_frauds_send_a_label():
    rows = [a_row(1, 0), Row(a_row(2, 1).transaction, is_fraud=None), a_row(3, 12 * DAY)]
    data = build(rows)
    assert column(data, "merchant_frauds_7d").tolist() == [0, 0, 0]
    assert data.is_fraud.tolist() == [False, False, False]


def test_columns_beside_the_features_say_whose_when_and_what():
    data = build([a_row(1, 5, card="b"), a_row(2, 6, card="a", is_fraud=True), a_row(3, 7, card="b")])
    assert data.card.tolist() == [0, 1, 0]
    assert (data.second - int(START.timestamp())).tolist() == [5, 6, 7]
    assert data.is_fraud.tolist() == [False, True, False]
    assert (data.features.dtype, data.features.shape) == (np.float32, (3, len(SHIPPED.names)))


def test_a_part_by_time_includes_its_start_and_not_its_end():
    data = build([a_row(number, number) for number in range(5)])
    start = int(START.timestamp())
    assert (data.between(start + 1, start + 3).second - start).tolist() == [1, 2]


def test_no_rows_make_an_empty_dataset():
    assert len(build([])) == 0


def test_rows_in_the_order_of_the_log_see_what_was_decided_before():
    """Two of a card whose order in the log is not that of their times: the earlier one has seen the later one."""
    later, earlier = a_row(1, 10), a_row(2, 9)
    data = build([later, earlier])
    assert data.second.tolist() == sorted(data.second.tolist())
    assert column(data, "card_count_10m").tolist() == [1.0, 0.0]
