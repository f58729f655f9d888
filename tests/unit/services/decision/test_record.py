"""The wire forms of a decision come back as they were, and a log of another version is not guessed at."""

import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logged import decided, paid, published

from services.decision.policy import Action
from services.decision.record import (
    BEFORE_COMMIT,
    DIGEST,
    VERSION,
    Answer,
    Record,
    RecordVersionError,
    Stored,
    decode_record,
    digest,
    features_of,
    placed,
)
from services.decision.stopwatch import Stopwatch

TEXT = st.text(max_size=5)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
MILLISECONDS = st.integers(0, 10**9).map(lambda us: us / 1_000)
STAGES = st.tuples(*[MILLISECONDS] * len(BEFORE_COMMIT)).map(lambda took: dict(zip(BEFORE_COMMIT, took, strict=True)))
ANSWERS = st.builds(
    Answer, transaction_id=TEXT, action=st.sampled_from(Action), score=st.none() | st.floats(0, 1), reasons=TEXTS,
    model=TEXT, policy=TEXT, features_version=TEXT, degraded=TEXTS, stage_ms=STAGES,
)  # fmt: skip


@given(answer=ANSWERS)
def test_a_stored_answer_encodes_to_the_bytes_sent_first(answer):
    again = Stored.from_bytes(Stored.of(paid(), answer).to_bytes()).answer(answer.transaction_id)
    assert msgspec.json.encode(again) == msgspec.json.encode(answer)


def test_stages_are_measured_to_the_microsecond_and_add_up():
    stopwatch = Stopwatch()
    for stage in ("read", "score", "read"):
        stopwatch.lap(stage)
    assert list(stopwatch.seconds) == ["read", "score"]
    for stage, ms in stopwatch.milliseconds(stopwatch.seconds).items():
        assert ms == round(stopwatch.seconds[stage] * 1_000_000) / 1_000


def test_a_body_is_told_from_another_by_each_of_its_fields():
    body = paid(channel="pos", country="DE", mcc="5411", device_id="d1")
    others = [
        msgspec.structs.replace(body, **{name: value})
        for name, value in (
            ("transaction_id", "t2"), ("card_id", "c2"), ("merchant_id", "m2"), ("amount", 1_001), ("currency", "USD"),
            ("event_time", body.event_time.replace(microsecond=1)), ("channel", None), ("country", None), ("mcc", None),
            ("device_id", None),
        )
    ]  # fmt: skip
    assert len(others) == len(body.__struct_fields__)
    assert len({digest(each) for each in (body, *others)}) == 11
    assert len(digest(body)) == DIGEST == len(digest(msgspec.structs.replace(body)))


def test_a_record_gets_its_epoch_and_its_place_in_front():
    assert placed(b'{"note":1}', 17, 3, 9) == b'{"epoch":17,"partition":3,"sequence":9,"note":1}'


def test_a_record_is_read_with_its_place():
    record = decode_record(published(paid(), 9, epoch=17, partition=3))
    assert (record.epoch, record.partition, record.sequence, record.version) == (17, 3, 9, VERSION)
    assert record.transaction == paid()
    assert msgspec.json.decode(msgspec.json.encode(record), type=Record) == record


def changed(**fields):
    return json.dumps(json.loads(published(paid(), 9)) | fields).encode()


@pytest.mark.parametrize("version", [1, 3, 99])
def test_a_record_of_another_version_is_refused_by_both_numbers(version):
    with pytest.raises(RecordVersionError, match=f"version {version}, this code reads version {VERSION}"):
        decode_record(changed(version=version))
    with pytest.raises(RecordVersionError, match=f"version {version}"):
        decode_record(changed(version=version, held="of another form"))


def test_a_record_that_names_no_version_is_of_the_first():
    first = json.loads(published(paid(), 9))
    del first["version"], first["held"]
    with pytest.raises(RecordVersionError, match="version 1"):
        decode_record(json.dumps(first).encode())


@pytest.mark.parametrize("raw", [b"{", b"null", b"[]", b"7", b"{}", b'{"epoch": 0}', b"\xff", decided(paid())])
def test_what_is_no_record_is_not_taken_for_one_of_another_version(raw):
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        decode_record(raw)


def test_a_record_damaged_in_a_field_is_not_of_another_version():
    with pytest.raises(msgspec.ValidationError, match=r"\$\.held"):
        decode_record(changed(held="of another form"))


def test_fields_that_later_code_adds_are_passed_over():
    assert decode_record(changed(colour="blue")).transaction == paid()


@given(st.lists(st.one_of(st.just(math.nan), st.floats(width=32, allow_infinity=False, allow_nan=False)), max_size=5))
def test_features_come_back_from_json_to_the_last_bit(values):
    row = np.array(values, np.float32)
    read = msgspec.json.decode(msgspec.json.encode(features_of(row.tolist())), type=tuple[float | None, ...])
    again = np.array([math.nan if value is None else value for value in read], np.float32)
    assert again.tobytes() == row.tobytes()
