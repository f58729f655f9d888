"""A set of features refuses what cannot be meant, names itself by its meaning, and takes one more entity as data."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from with_device import DEVICE, WITH_DEVICE

from feature_store import feature_set, rates
from feature_store.definitions import KEPT, Aggregate, Entity, Feature, Measure, Op, Tile, Writer
from feature_store.feature_set import FeatureSet, counted_anywhere
from feature_store.features import CARD, CARD_MEAN, ENTITIES, FEATURES, LABEL_DELAY, MERCHANT, MERCHANT_DELAY, SHIPPED
from feature_store.history import History
from feature_store.transaction import Label, Transaction

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def a_set(*more, entities=ENTITIES, features=FEATURES, own_mean=CARD_MEAN):
    return FeatureSet(entities, (*features, *more), own_mean=own_mean)


def total(entity=MERCHANT, measure=Measure.COUNT, tile=Tile.MINUTE, window=60, delay=MERCHANT_DELAY, op=Op.TOTAL):
    return Aggregate(entity, op, measure, tile, window, delay)


def paid(**changes):
    ids = {"transaction_id": "t", "card_id": "c", "merchant_id": "m"}
    return Transaction(**(ids | {"amount": 1_250, "currency": "EUR", "event_time": NOON} | changes))


# --- what is refused

REFUSED = {
    "its entity device is not among those of the set": total(DEVICE),
    "it reaches back 91 minute tiles, and 90 are kept": total(CARD, window=91, delay=0),
    "it reaches back 91 minute tiles": total(window=88),
    "it reaches back 42 day tiles": total(tile=Tile.DAY, measure=Measure.FRAUDS, window=33, delay=LABEL_DELAY),
    "it reaches back 60 day tiles": total(CARD, op=Op.ELAPSED, tile=Tile.DAY, delay=0),
    "what the updater writes needs a delay": total(delay=0),
    "labels are written by the updater": total(CARD, measure=Measure.FRAUDS, tile=Tile.DAY, window=7, delay=0),
    "genuine ones are a difference": total(measure=Measure.GENUINE, tile=Tile.DAY, window=7, delay=LABEL_DELAY),
    "a window has one tile or more": total(window=0),
    "largest_ratio needs the card's order": total(measure=Measure.LARGEST_RATIO),
    "high_ratios needs the card's order": total(measure=Measure.HIGH_RATIOS),
    "elapsed time has no delay": total(op=Op.ELAPSED, tile=Tile.DAY, window=7),
}


@pytest.mark.parametrize("rule", REFUSED)
def test_an_aggregate_that_cannot_be_meant_is_refused_by_name(rule):
    with pytest.raises(ValueError, match=f"^odd_one: {rule}"):
        a_set(Feature("odd_one", "value", (CARD_MEAN[0], REFUSED[rule])))


def test_an_aggregate_at_the_edge_of_what_is_kept_is_taken():
    assert a_set(Feature("edge", "value", (total(CARD, window=90, delay=0),)))
    assert a_set(Feature("edge", "value", (total(window=87),)))


def test_labels_of_an_entity_they_do_not_name_are_refused():
    for measure, op in ((Measure.FRAUDS, Op.TOTAL), (Measure.GENUINE, Op.SINCE), (Measure.COUNT, Op.RUN)):
        odd = Feature("odd_one", "value", (total(DEVICE, measure, Tile.DAY, 7, LABEL_DELAY, op),))
        with pytest.raises(ValueError, match=r"^odd_one: labels do not name device_id"):
            a_set(odd, entities=(*ENTITIES, DEVICE))


def test_two_features_of_one_name_are_refused_by_it():
    with pytest.raises(ValueError, match="card_count_1h"):
        a_set(Feature("card_count_1h", "amount"))


def test_a_formula_of_another_number_of_aggregates_is_refused():
    with pytest.raises(ValueError, match="odd_one: formula mean is of 2 aggregates, not 1"):
        a_set(Feature("odd_one", "mean", CARD_MEAN[:1]))


@pytest.mark.parametrize(
    ("entity", "why"),
    [
        (Entity("card", "device_id", Writer.UPDATER), "two entities are named card"),
        (Entity("outbox", "device_id", Writer.UPDATER), "no entity can be named outbox"),
        (Entity("a:b", "device_id", Writer.UPDATER), "no entity can be named a:b"),
        (Entity("sum", "amount", Writer.UPDATER), "a transaction has no field amount of text"),
        (Entity("ip", "ip", Writer.UPDATER), "a transaction has no field ip of text"),
        (Entity("device", "device_id", Writer.COMMIT), "commit writes exactly one entity"),
    ],
)
def test_an_entity_that_cannot_be_meant_is_refused_by_name(entity, why):
    with pytest.raises(ValueError, match=why):
        a_set(entities=(*ENTITIES, entity))


def test_without_entities_that_lag_no_lag_counts():
    assert FeatureSet([CARD], [Feature("n", "mean", CARD_MEAN)], own_mean=CARD_MEAN).least_delay == math.inf


def test_a_formula_that_does_not_exist_is_refused_by_name():
    with pytest.raises(ValueError, match="odd_one"):
        a_set(Feature("odd_one", "amuont"))


@pytest.mark.parametrize("name", ["decided", "label"])
def test_an_entity_may_not_be_named_like_another_key(name):
    with pytest.raises(ValueError, match=name):
        a_set(entities=(*ENTITIES, replace(DEVICE, name=name)))


def test_an_entitys_key_must_be_a_field_of_transactions():
    with pytest.raises(ValueError, match="no field iban"):
        a_set(entities=(*ENTITIES, replace(DEVICE, key="iban")))


@pytest.mark.parametrize(
    "entities",
    [
        (MERCHANT,),
        (replace(CARD, written_by=Writer.UPDATER), MERCHANT),
        (replace(CARD, key="device_id"), MERCHANT),
        (CARD, replace(MERCHANT, written_by=Writer.COMMIT)),
    ],
)
def test_commit_writes_the_card_and_nothing_else(entities):
    with pytest.raises(ValueError, match="commit writes exactly one entity, keyed by card_id"):
        a_set(entities=entities, features=(), own_mean=())


# --- how a set is named


def test_the_fingerprint_is_pinned_so_that_a_change_is_noticed():
    """If this fails you changed a feature: train again (`make train`) and put the new fingerprint here."""
    assert SHIPPED.fingerprint == "593c21a21b8e8e83"


def test_a_set_of_the_same_definitions_has_the_same_names():
    again = a_set()
    assert (again.fingerprint, again.layout) == (SHIPPED.fingerprint, SHIPPED.layout)
    assert len(SHIPPED.layout) == 4


WEEK = tuple(total(CARD, measure, Tile.DAY, 7, 0) for measure in (Measure.COUNT, Measure.AMOUNT))
OF_OTHER_MEANING = {
    "a feature more": lambda: a_set(Feature("again", "amount")),
    "a feature less": lambda: a_set(features=FEATURES[:-1]),
    "another order": lambda: a_set(features=FEATURES[::-1]),
    "another name": lambda: a_set(features=(replace(FEATURES[0], name="money"), *FEATURES[1:])),
    "another formula": lambda: a_set(features=(replace(FEATURES[0], formula="hour_of_day"), *FEATURES[1:])),
    "another window": lambda: a_set(features=(*FEATURES[:-1], replace(FEATURES[-1], of=(total(),)))),
    "another mean to compare with": lambda: a_set(own_mean=WEEK),
}


@pytest.mark.parametrize("change", OF_OTHER_MEANING)
def test_another_meaning_has_another_fingerprint(change):
    assert OF_OTHER_MEANING[change]().fingerprint != SHIPPED.fingerprint


KEPT_OTHERWISE = {
    "a measure more": lambda: a_set(Feature("sum", "money", (total(CARD, Measure.AMOUNT, delay=0),))),
    "a measure less": lambda: a_set(features=[f for f in FEATURES if f.name != "card_high_ratios_7d"]),
    "an entity more": lambda: WITH_DEVICE,
    "another mean to compare with": lambda: a_set(own_mean=WEEK),
}


@pytest.mark.parametrize("change", KEPT_OTHERWISE)
def test_what_is_kept_otherwise_has_another_layout(change):
    assert KEPT_OTHERWISE[change]().layout != SHIPPED.layout


def test_the_layout_changes_with_an_entitys_name_and_key():
    def layout(entity):
        features = (Feature("mean", "mean", CARD_MEAN), Feature("count", "value", (total(entity),)))
        return a_set(entities=(CARD, entity), features=features).layout

    assert layout(replace(DEVICE)) == layout(DEVICE)
    assert len({layout(DEVICE), layout(replace(DEVICE, name="phone")), layout(replace(DEVICE, key="country"))}) == 3


def test_a_feature_that_needs_nothing_more_kept_keeps_the_layout():
    more = a_set(Feature("card_count_30m", "value", (total(CARD, window=30, delay=0),)))
    assert more.layout == SHIPPED.layout
    assert more.fingerprint != SHIPPED.fingerprint


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (feature_set, "ARITHMETIC", 99),
        (feature_set, "KEPT", KEPT | {Tile.DAY: 60}),
        (rates, "VERSION", "another day"),
        (rates, "RATES", rates.RATES | {"USD": "1.1173"}),
    ],
)
def test_both_names_change_with_arithmetic_and_rates(monkeypatch, module, name, value):
    monkeypatch.setattr(module, name, value)
    assert a_set().fingerprint != SHIPPED.fingerprint
    assert a_set().layout != SHIPPED.layout


def test_the_layout_changes_with_the_format_of_the_bytes(monkeypatch):
    monkeypatch.setattr(feature_set, "FORMAT", 99)
    assert (a_set().fingerprint, a_set().layout) != (SHIPPED.fingerprint, SHIPPED.layout)
    assert a_set().fingerprint == SHIPPED.fingerprint


# --- what follows from the definitions


def test_tiles_hold_no_more_than_some_feature_asks_for():
    count, amount, frauds = Measure.COUNT, Measure.AMOUNT, Measure.FRAUDS
    ordered = (Measure.LARGEST_RATIO, Measure.HIGH_RATIOS)
    assert SHIPPED.plans[CARD].stored == {
        Tile.MINUTE: (count,),
        Tile.HOUR: (count, amount),
        Tile.DAY: (count, amount, Measure.SQUARES, *ordered, frauds),
    }
    assert SHIPPED.plans[MERCHANT].stored == {
        Tile.MINUTE: (count,),
        Tile.HOUR: (count,),
        Tile.DAY: (count, amount, frauds),
    }


def test_what_two_features_share_is_read_once():
    for plan in SHIPPED.plans.values():
        assert len(set(plan.aggregates)) == len(plan.aggregates)
    assert SHIPPED.plans[CARD].aggregates.count(CARD_MEAN[0]) == 1


def test_the_set_knows_who_writes_and_who_is_labelled():
    assert (SHIPPED.committed, SHIPPED.followers, SHIPPED.labelled) == (CARD, (MERCHANT,), (CARD, MERCHANT))
    assert SHIPPED.least_delay == MERCHANT_DELAY == 120
    assert SHIPPED.names == tuple(feature.name for feature in FEATURES)


def test_counted_is_what_all_entities_count_and_the_cards_ratio():
    of_card = [0] * len(SHIPPED.plans[CARD].aggregates)
    for aggregate, value in zip(CARD_MEAN, (4, 2_000), strict=True):  # a mean of 5 euros
        of_card[SHIPPED.plans[CARD].aggregates.index(aggregate)] = value
    everywhere = {Measure.COUNT: 1, Measure.AMOUNT: 1_250, Measure.SQUARES: 1_562_500}
    assert counted_anywhere(paid()) == everywhere
    assert SHIPPED.counted(paid(), of_card) == everywhere | {Measure.LARGEST_RATIO: 2_500, Measure.HIGH_RATIOS: 0}
    above = SHIPPED.counted(paid(amount=1_251), of_card)
    assert (above[Measure.LARGEST_RATIO], above[Measure.HIGH_RATIOS]) == (2_502, 1)


# --- a third entity beside the shipped ones


def test_a_third_entity_has_its_plan_and_follows_the_log():
    assert WITH_DEVICE.followers == (MERCHANT, DEVICE)
    assert WITH_DEVICE.labelled == (CARD, MERCHANT)
    assert WITH_DEVICE.plans[DEVICE].stored == {
        Tile.MINUTE: (Measure.COUNT,),
        Tile.DAY: (Measure.COUNT, Measure.AMOUNT),
    }
    assert WITH_DEVICE.plans[CARD].stored == SHIPPED.plans[CARD].stored


def test_keys_are_those_the_event_names():
    label = Label(transaction_id="t", card_id="c", merchant_id="m", event_time=NOON, is_fraud=True)
    assert WITH_DEVICE.keys_of(paid(device_id="d")) == ["c", "m", "d"]
    assert WITH_DEVICE.keys_of(paid()) == ["c", "m", None]
    assert WITH_DEVICE.keys_of(label) == ["c", "m", None]


def row_with(device):
    nothing = [History(WITH_DEVICE.plans[entity]).read(paid().second) for entity in ENTITIES]
    return WITH_DEVICE.row(paid(device_id="d"), [*nothing, device.read(paid().second)])


def test_a_third_entitys_features_stand_behind_the_others():
    device = History(WITH_DEVICE.plans[DEVICE])
    for minutes, amount in ((3, 500), (30, 1_000), (24 * 60, 2_000)):
        before = paid(amount=amount, event_time=NOON - timedelta(minutes=minutes))
        device.count(before.second, counted_anywhere(before))
    row = row_with(device)
    assert row[-2:].tolist() == [2.0, np.float32(1_250 / 2_000)]  # today's tile is not over: yesterday's alone
    nothing = [History(SHIPPED.plans[entity]).read(paid().second) for entity in ENTITIES]
    assert row[:-2].tobytes() == SHIPPED.row(paid(), nothing).tobytes()


def test_an_absent_device_reads_as_one_nothing_is_known_of():
    *_, count, over_mean = row_with(History(WITH_DEVICE.plans[DEVICE]))
    assert count == 0.0
    assert math.isnan(over_mean)


def test_an_entity_no_feature_reads_keeps_no_tiles():
    plan = a_set(entities=(*ENTITIES, DEVICE)).plans[DEVICE]
    assert (plan.aggregates, plan.tiles) == ((), ())
