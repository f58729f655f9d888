"""A third entity is lines of data: served, trained on, verified and made again from the log like the shipped ones.

The device of `with_device.py` goes through everything here, without a line of code that knows it.
"""

from datetime import timedelta

import numpy as np
import pytest
from naive_oracle import Paid, read
from story import NOON, Story
from with_device import DEVICE, DEVICE_FEATURES, WITH_DEVICE

from feature_store.definitions import DAYS, HOURS, MINUTES
from feature_store.tables import Row
from model.dataset import build
from services.audit.state import actual, differences, expected
from services.audit.verify import verify
from services.decision.record import features_of

CHARGED_BACK = timedelta(days=7)


def steps():
    """When, whose, by which device: 90 transactions of three weeks, of a third of which no device is known."""
    rng = np.random.default_rng(11)
    seconds = np.sort(np.append(rng.integers(0, 21 * DAYS, 60), rng.integers(20 * DAYS, 20 * DAYS + 2 * HOURS, 30)))
    for second in seconds:
        device = [None, "d0", "d1"][rng.integers(3)]
        yield {
            "after": int(second),
            "card": f"c{rng.integers(4)}",
            "merchant": f"m{rng.integers(2)}",
            "amount": int(rng.integers(100, 50_000)),
            "device_id": device,
        }


@pytest.fixture(scope="module")
def served():
    """A story of decisions on current state, with a chargeback for every fifth when it is due; and its rows."""
    story, rows, on_their_way = Story(WITH_DEVICE), [], []
    for number, step in enumerate(steps()):
        now = NOON + timedelta(seconds=step["after"])
        while on_their_way and on_their_way[0].event_time + CHARGED_BACK <= now:
            story.label(on_their_way.pop(0))
        transaction = story.decide(**step)
        story.follow_all()
        rows.append(Row(transaction, is_fraud=number % 5 == 0))
        if number % 5 == 0:
            on_their_way.append(transaction)
    return story, rows


def by_time(story):
    return sorted(story.log(), key=lambda record: record.decided_at)


def test_its_features_are_served_as_a_naive_look_gives_them(served):
    story, rows = served
    paid = {"d0": [], "d1": []}
    for row, record in zip(rows, by_time(story), strict=True):
        t, device = row.transaction, row.transaction.device_id
        count, week_count, week_amount = (
            read(aggregate, paid.get(device, []), t.event_time)
            for feature in DEVICE_FEATURES
            for aggregate in feature.of
        )
        over_mean = np.float32(t.cents * week_count / week_amount) if week_amount else None
        assert record.features[-2:] == (float(count), over_mean)
        if device:
            paid[device].append(Paid(t.event_time, t.cents))


def test_its_features_are_not_all_of_one_value(served):
    story, _ = served
    counts = {record.features[WITH_DEVICE.names.index("device_count_1h")] for record in story.log()}
    over_means = {record.features[WITH_DEVICE.names.index("amount_over_device_mean_7d")] for record in story.log()}
    assert len(counts) > 3
    assert None in over_means
    assert len(over_means) > 20


def test_training_computes_what_was_served(served):
    story, rows = served
    data = build(rows, features=WITH_DEVICE)
    assert data.features.shape == (len(rows), len(WITH_DEVICE.names))
    for row, record in zip(data.features, by_time(story), strict=True):
        assert features_of(row) == record.features


def test_every_decision_is_recomputed_from_the_log(served):
    story, rows = served
    verdict = verify(story.log(), story.model, story.policy, features=WITH_DEVICE)
    assert verdict.differences == []
    assert (verdict.holds, verdict.verified) == (True, len(rows))


def test_a_decision_that_saw_another_device_is_found(served):
    story, _ = served
    log = story.log()
    record = next(record for record in by_time(story)[::-1] if record.transaction.device_id)
    for each in log:
        if (each.partition, each.sequence) == (record.partition, record.sequence):
            del each.held["device"]
    found = verify(log, story.model, story.policy, features=WITH_DEVICE).differences
    assert [(each.partition, each.sequence, each.what) for each in found] == [
        (record.partition, record.sequence, "features")
    ]


def test_its_state_is_the_one_the_log_makes(served):
    story, _ = served
    wanted = expected(story.log(), story.keys, WITH_DEVICE)
    devices = {key for key in wanted if "}device:" in key}
    assert devices == {story.keys.history(DEVICE, name) for name in ("d0", "d1")}
    assert differences(wanted, actual(story.client, WITH_DEVICE)) == []


def test_labels_leave_it_alone(served):
    story, _ = served
    assert not any("}label:device" in key for key in story.store.state.values)
    found = actual(story.client, WITH_DEVICE)
    assert all(value["labels"] == {} for key, value in found.items() if "}device:" in key)


def test_where_no_device_is_named_nothing_is_held_of_it(served):
    story, _ = served
    log = list(story.log())
    assert all(("device" in record.held) == bool(record.transaction.device_id) for record in log)
    assert any(record.transaction.device_id is None for record in log)


def test_a_late_updater_is_verified_all_the_same():
    story = Story(WITH_DEVICE)
    for number, step in enumerate(steps()):
        story.decide(**step | {"after": step["after"] % (3 * MINUTES)})
        if number % 7 == 0:
            story.follow(number % story.keys.partitions, 4)
    verdict = verify(story.log(), story.model, story.policy, features=WITH_DEVICE)
    assert verdict.differences == []
    story.follow_all()
    assert differences(expected(story.log(), story.keys, WITH_DEVICE), actual(story.client, WITH_DEVICE)) == []
