import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from feature_store.card_number import contains_card_number
from feature_store.transaction import EARLIEST, MAX_AMOUNT, InvalidError, Label, Transaction, parse

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
VALID = {
    "transaction_id": "t-1",
    "card_id": "card_1",
    "merchant_id": "m:1",
    "amount": 1250,
    "currency": "EUR",
    "event_time": "2026-11-01T12:00:00Z",
}


def parsed(*, oldest=EARLIEST, **changes):
    fields = {name: value for name, value in (VALID | changes).items() if value is not ...}
    return parse(Transaction, json.dumps(fields).encode(), now=NOW, oldest=oldest)


def test_a_valid_transaction_is_read_with_its_optional_fields():
    transaction = parsed(channel="pos", country="DE", mcc="5411", device_id="d1")
    assert (transaction.amount, transaction.channel, transaction.mcc) == (1250, "pos", "5411")
    assert transaction.second == int(NOW.timestamp())


def test_the_same_instant_in_another_zone_is_the_same_transaction():
    assert parsed(event_time="2026-11-01T14:00:00+02:00") == parsed()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("transaction_id", ""),
        ("transaction_id", "a" * 65),
        ("transaction_id", "a/b"),
        ("transaction_id", "a\n"),
        ("transaction_id", "\udcff"),
        ("transaction_id", 7),
        ("card_id", ...),
        ("merchant_id", None),
        ("amount", -1),
        ("amount", MAX_AMOUNT + 1),
        ("amount", 10**40),
        ("amount", 1e308),
        ("amount", 12.5),
        ("amount", "12"),
        ("amount", True),
        ("currency", "eur"),
        ("currency", "XXX"),
        ("currency", "KWD"),
        ("currency", "EUR\n"),
        ("event_time", "2026-11-01T12:00:00"),
        ("event_time", "yesterday"),
        ("event_time", 1_790_000_000),
        ("event_time", "1999-12-31T23:59:59Z"),
        ("event_time", (NOW + timedelta(minutes=6)).isoformat()),
        ("event_time", "9999-12-31T23:59:59-14:00"),
        ("channel", "telepathy"),
        ("country", "Germany"),
        ("mcc", "54"),
        ("chanel", "pos"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_the_name_of_its_field(field, value):
    with pytest.raises(InvalidError) as refused:
        parsed(**{field: value})
    assert refused.value.field == field or (value == "\udcff" and refused.value.field == "body")


@pytest.mark.parametrize("raw", [b"", b"[1]", b'"x"', b"{", b'{"amount": NaN}', b'{"amount": Infinity}', b"\xff\xfe"])
def test_what_is_not_a_json_object_is_refused(raw):
    with pytest.raises(InvalidError, match="body"):
        parse(Transaction, raw, now=NOW)


def test_an_amount_has_cents_at_the_reference_rate():
    assert (parsed().cents, parsed(currency="JPY").cents) == (1_250, 712)


def test_a_currency_without_a_rate_is_refused():
    with pytest.raises(InvalidError, match=r"^currency: has no reference rate$"):
        parsed(currency="KWD")


def test_what_is_older_than_a_door_accepts_is_refused():
    oldest = NOW - timedelta(days=30)
    assert parsed(oldest=oldest, event_time=oldest.isoformat()).event_time == oldest
    just_before = (oldest - timedelta(microseconds=1)).isoformat()
    with pytest.raises(InvalidError, match=r"^event_time: is before 2026-10-02T12:00:00"):
        parsed(oldest=oldest, event_time=just_before)
    assert parsed(event_time=just_before)


CARD_NUMBER = "4111111111111111"


@pytest.mark.parametrize("field", ["transaction_id", "card_id", "merchant_id", "device_id"])
@pytest.mark.parametrize(
    "written",
    [
        *(CARD_NUMBER, f"x{CARD_NUMBER}", "378282246310005"),
        *("PAN-4111-1111-1111-1111", "4111.1111.1111.1111", "4111_1111_1111_1111"),
    ],
)
def test_a_card_number_is_refused_in_every_field(field, written):
    with pytest.raises(InvalidError, match="looks like a card number") as refused:
        parsed(**{field: written})
    assert refused.value.field == field


def test_a_card_number_written_in_escapes_is_refused():
    escaped = "".join(f"\\u{ord(digit):04x}" for digit in CARD_NUMBER)
    raw = json.dumps(VALID | {"card_id": "x"}).replace('"x"', f'"{escaped}"').encode()
    assert CARD_NUMBER.encode() not in raw
    with pytest.raises(InvalidError, match="looks like a card number"):
        parse(Transaction, raw, now=NOW)


@given(st.text(alphabet="0123456789._:-x", min_size=1, max_size=24))
@example("4111-1111-1111-1111")
@example("3782-822463-10005")
@example("4222:2222:2222:2")
def test_whatever_is_a_card_number_is_refused(text):
    if contains_card_number(text):
        with pytest.raises(InvalidError, match="looks like a card number"):
            parsed(card_id=text)
    else:
        assert parsed(card_id=text).card_id == text


@pytest.mark.parametrize("place", ["amount", "channel", "currency", "event_time", CARD_NUMBER])
def test_no_error_repeats_a_card_number(place):
    with pytest.raises(InvalidError) as refused:
        parsed(**{place: CARD_NUMBER})
    assert CARD_NUMBER not in str(refused.value)


def test_a_uuid_is_not_taken_for_a_card_number():
    assert parsed(transaction_id="550e8400-4111-4111-8111-111111111111").transaction_id.startswith("550e")


def test_a_label_is_held_to_the_same_rules():
    fields = {name: VALID[name] for name in ("transaction_id", "card_id", "merchant_id", "event_time")}
    label = parse(Label, json.dumps(fields | {"is_fraud": True}).encode(), now=NOW)
    assert label.is_fraud
    with pytest.raises(InvalidError, match="is_fraud"):
        parse(Label, json.dumps(fields).encode(), now=NOW)
    with pytest.raises(InvalidError, match="amount"):
        parse(Label, json.dumps(fields | {"is_fraud": True, "amount": 1}).encode(), now=NOW)
