"""What others rely on: the schemas in the repository are those of the types, and only ever extended."""

import copy
import json
from datetime import UTC, datetime

import msgspec
import pytest
from jsonschema import Draft202012Validator

from feature_store.definitions import Measure
from feature_store.held import Held
from feature_store.transaction import Transaction
from services.decision.policy import Action
from services.decision.record import VERSION, Answer, Decision, RecordVersionError, decode_record, placed
from services.schema import FOLDER, TYPES, IncompatibleError, current, incompatibilities, write_schemas

NOW = datetime(2026, 11, 1, tzinfo=UTC)
DECISION = msgspec.json.encode(
    Decision(
        version=VERSION,
        decided_at=NOW,
        transaction=Transaction(
            transaction_id="t", card_id="c", merchant_id="m", amount=1, currency="EUR", event_time=NOW
        ),
        features=(1.0, None),
        held={"card": Held(), "merchant": Held(decisions={3: 9}, labels={0: 0})},
        counted={Measure.COUNT: 1},
        answer=Answer(
            transaction_id="t", action=Action.APPROVE, score=0.1, reasons=(), model="m", policy="p",
            features_version="f", degraded=(), stage_ms={},
        ),
    )
)  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
def test_the_schema_in_the_repository_is_current(name):
    written = json.loads((FOLDER / f"{name}.json").read_text())
    assert list(incompatibilities(written, current(name))) == []
    assert written == current(name), "an extension: write it with `fraud schemas`"
    Draft202012Validator.check_schema(written)


def test_no_schema_is_left_over():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(TYPES)


def changed(change):
    before = current("decisions")
    now = copy.deepcopy(before)
    change(now["$defs"])
    return list(incompatibilities(before, now))


def test_a_new_optional_field_is_an_extension():
    assert changed(lambda types: types["Record"]["properties"].update(note={"type": "string"})) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda types: types["Record"]["properties"].pop("sequence"), ["Record.sequence is gone"]),
        (lambda types: types.pop("Answer"), ["Answer is gone"]),
        (lambda types: types["Record"]["required"].append("note"), ["Record.note would be required"]),
        (
            lambda types: types["Transaction"]["properties"]["amount"].update(type="string"),
            ["Transaction.amount was integer and would be string"],
        ),
        (
            lambda types: types["Transaction"]["properties"]["amount"].update(maximum=5),
            ["Transaction.amount would have maximum 5 instead of 10000000000"],
        ),
        (lambda types: types["Action"]["enum"].remove("review"), ["Action would not allow review"]),
        (
            lambda types: types["Record"]["properties"]["features"]["items"]["anyOf"].pop(),
            ["Record.features[] was null or number and would be number"],
        ),
    ],
)
def test_what_would_break_a_producer_or_consumer_is_found(change, found):
    assert changed(change) == found


def test_an_incompatible_change_is_not_written(tmp_path):
    write_schemas(tmp_path)
    old = json.loads((tmp_path / "labels.json").read_text())
    old["$defs"]["Label"]["properties"]["reason"] = {"type": "string"}
    (tmp_path / "labels.json").write_text(json.dumps(old))
    with pytest.raises(IncompatibleError, match=r"labels.json: Label.reason is gone"):
        write_schemas(tmp_path)
    assert "reason" in (tmp_path / "labels.json").read_text()


def test_a_reader_of_the_log_lets_newer_fields_pass():
    """In a rolling deployment the writer may be newer. At the doors a misspelt field is refused all the same."""
    record = json.loads(placed(DECISION, 0, 1, 1))
    record["transaction"]["loyalty_tier"] = record["note"] = record["held"]["merchant"]["disputes"] = "gold"
    assert decode_record(json.dumps(record).encode()) == decode_record(placed(DECISION, 0, 1, 1))


def test_a_published_record_has_its_place_and_is_valid():
    record = decode_record(placed(DECISION, 5, 1, 2))
    assert (record.epoch, record.partition, record.sequence) == (5, 1, 2)
    Draft202012Validator(current("decisions")).validate(json.loads(placed(DECISION, 5, 1, 2)))


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1])
def test_a_record_of_another_version_is_refused(version):
    raw = placed(DECISION.replace(b'"version":%d' % VERSION, b'"version":%d' % version), 5, 1, 2)
    with pytest.raises(RecordVersionError, match=f"version {version}"):
        decode_record(raw)


def test_a_record_that_names_no_version_is_of_the_first():
    with pytest.raises(RecordVersionError, match="version 1"):
        decode_record(b'{"sequence": 7, "held": {"card_decisions": 3}}')
