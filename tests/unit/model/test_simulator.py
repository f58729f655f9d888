from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from feature_store.tables import read_table
from feature_store.transaction import Transaction, parse
from model import simulator
from model.fraud_patterns import Pattern, Rates
from model.simulator import Parameters, simulate

NO_FRAUD = Rates(large_amount=10**10, merchants=0, cards=0, lists=0)
WITHOUT = Parameters(cards=300, merchants=100, days=60, rates=NO_FRAUD)
DAY = 86_400


def only(**rates) -> Parameters:
    return replace(WITHOUT, rates=replace(NO_FRAUD, **rates))


def frauds(parameters: Parameters) -> list:
    return [row for row in simulate(parameters) if row.is_fraud]


def test_equal_seeds_make_equal_rows_and_others_do_not(small):
    assert list(simulate(small.parameters)) == list(small)
    assert list(simulate(replace(small.parameters, seed=8))) != list(small)


def test_rows_are_valid_transactions_in_order_of_event_time(small):
    rows = list(small)
    assert len(rows) == len(small) > 4_000
    for row in rows:
        assert (
            parse(Transaction, msgspec.json.encode(row.transaction), now=datetime(2027, 1, 1, tzinfo=UTC))
            == row.transaction
        )
    times = [row.transaction.event_time for row in rows]
    assert times == sorted(times)
    assert times[0].date() == small.parameters.start.date()
    assert (times[-1] - small.parameters.start).days == small.parameters.days - 1


def test_ids_are_unique_and_never_digits_only(small):
    transactions = [row.transaction for row in small]
    assert len({t.transaction_id for t in transactions}) == len(transactions)
    assert (transactions[7].transaction_id, len(transactions[7].card_id), transactions[7].merchant_id[0]) == (
        "t00000007",
        7,
        "m",
    )
    assert {t.card_id[0] for t in transactions} == {"c"}


def test_a_row_is_fraud_if_and_only_if_it_has_a_pattern(small):
    assert all(row.is_fraud == bool(row.pattern) for row in small)


def test_every_pattern_appears_and_without_rates_none_does(small):
    assert {row.pattern for row in small} == set(Pattern)
    assert frauds(WITHOUT) == []


def test_by_default_about_one_transaction_in_a_hundred_is_fraud():
    pattern = simulate(Parameters()).traffic.pattern
    assert 0.008 < np.count_nonzero(pattern) / len(pattern) < 0.012


def test_an_amount_is_fraud_above_220_and_not_below():
    rows = list(simulate(only(large_amount=220_00)))
    assert all(row.is_fraud == (row.transaction.amount > 220_00) for row in rows)
    assert any(row.is_fraud for row in rows)


def test_all_of_a_compromised_merchant_is_fraud_for_28_days():
    rows = list(simulate(only(merchants=1e-9)))  # so rare that it happens once
    hit = [row.transaction for row in rows if row.is_fraud]
    (merchant,) = {t.merchant_id for t in hit}
    first, last = hit[0].second, hit[-1].second
    assert last - first < 28 * DAY
    theirs = [
        row for row in rows if row.transaction.merchant_id == merchant and first <= row.transaction.second <= last
    ]
    assert all(row.is_fraud for row in theirs)
    assert len(theirs) == len(hit) > 5


def test_a_compromised_merchant_is_never_one_of_the_busiest():
    rows = list(simulate(only(merchants=20)))
    traffic = Counter(row.transaction.merchant_id for row in rows)
    busiest = {merchant for merchant, _ in traffic.most_common(3)}
    assert not busiest & {row.transaction.merchant_id for row in rows if row.is_fraud}


def test_a_third_of_a_compromised_card_costs_five_times_as_much():
    honest = {row.transaction.transaction_id: row.transaction for row in simulate(WITHOUT)}
    changed = list(simulate(only(cards=1.0)))
    hit = [row.transaction for row in changed if row.is_fraud]
    assert len(changed) == len(honest)
    assert all(t.amount == 5 * honest[t.transaction_id].amount for t in hit)
    assert all(row.transaction == honest[row.transaction.transaction_id] for row in changed if not row.is_fraud)
    seconds = defaultdict(list)
    for t in hit:
        seconds[t.card_id].append(t.second)
    assert len(seconds) > 5
    assert any(len(times) > 3 for times in seconds.values())


def test_a_compromised_card_is_hit_for_14_days():
    rows = list(simulate(replace(only(cards=1e-9), cards=5, transactions_a_day=20)))
    hit = [row.transaction for row in rows if row.is_fraud]
    (card,) = {t.card_id for t in hit}
    assert hit[-1].second - hit[0].second < 14 * DAY
    between = [
        row
        for row in rows
        if row.transaction.card_id == card and hit[0].second <= row.transaction.second <= hit[-1].second
    ]
    assert len(hit) > 20
    assert len(hit) / len(between) == pytest.approx(1 / 3, abs=0.05)


def test_a_stolen_list_is_tried_with_tiny_amounts_then_used():
    hit = [row.transaction for row in frauds(only(lists=1e-9))]
    cards = defaultdict(list)
    for t in hit:
        cards[t.card_id].append(t)
    assert 6 <= len(cards) <= 12
    assert hit[-1].second - hit[0].second < 65 * 60
    assert len({t.merchant_id for t in hit}) <= 4
    assert {t.channel for t in hit} == {"ecommerce"}
    for *tests, use in cards.values():
        assert 3 <= len(tests) <= 6
        assert tests[-1].second - tests[0].second < 5 * 60
        assert max(t.amount for t in tests) < 2_00
        assert use.amount >= 120_00


def test_few_merchants_have_most_of_the_traffic_and_cards_differ():
    t = simulate(WITHOUT).traffic
    merchants = np.sort(np.bincount(t.merchant, minlength=100))[::-1]
    assert merchants[0] / len(t) > 0.1
    assert merchants[:10].sum() > len(t) / 2
    cards = np.bincount(t.card, minlength=300)
    assert np.quantile(cards, 0.9) > 3 * np.quantile(cards, 0.1)
    means = np.bincount(t.card, weights=t.amount)[cards > 20] / cards[cards > 20]
    assert np.quantile(means, 0.9) > 3 * np.quantile(means, 0.1)


def test_the_smallest_world_is_one_card_one_merchant_one_day():
    rows = list(simulate(Parameters(cards=1, merchants=1, days=1)))
    assert {row.transaction.card_id for row in rows} == {"c000000"}


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_the_command_writes_the_simulation(tmp_path, name):
    app = Typer()
    app.command()(simulator.main)
    path = tmp_path / "new" / name
    result = CliRunner().invoke(
        app, ["--out", str(path), "--cards", "20", "--merchants", "10", "--days", "5", "--seed", "3"]
    )
    assert result.exit_code == 0, result.output
    expected = simulate(Parameters(cards=20, merchants=10, days=5, seed=3))
    assert list(read_table(path)) == list(expected)
    assert f"{len(expected):,} transactions" in result.output
