"""Which records of topic decisions count: those of the epoch in force where they stand."""

from types import SimpleNamespace
from typing import NamedTuple

import msgspec
import pytest
from logged import paid, published

from services.log import FOLLOWS, NONE, Epochs

BEGIN = b""
"""An empty record that follows the epoch in force where it stands."""


class Beginning(NamedTuple):
    """An empty record that follows another epoch."""

    follows: int


def decision(epoch, sequence):
    """A decision as a relay of `epoch` publishes it."""
    return published(paid(), sequence, epoch=epoch, partition=5)


def counting(epochs, first_offset, *values):
    """The sequences of the decisions that count."""
    counted = []
    for offset, value in enumerate(values, first_offset):
        headers = []
        if not value:
            headers = [(FOLLOWS, epochs.beginning())]
        elif isinstance(value, Beginning):
            headers, value = [(FOLLOWS, b"%d" % value.follows)], BEGIN  # noqa: PLW2901
        decision = epochs.decision(SimpleNamespace(offset=offset, value=value, headers=tuple(headers)))
        counted += [decision.sequence] if decision else []
    return counted


@pytest.mark.parametrize("empty", [b"", None])
def test_an_empty_record_begins_an_epoch_named_by_its_offset(empty):
    epochs = Epochs((), 0)
    assert counting(epochs, 0, empty, decision(0, 1), decision(0, 2)) == [1, 2]
    assert counting(epochs, 3, empty, decision(3, 3)) == [3]
    assert epochs.begun == [0, 3]


def test_records_of_a_fenced_relay_are_ignored():
    epochs = Epochs((), 0)
    values = [BEGIN, decision(0, 1), BEGIN, decision(0, 2), decision(2, 7), decision(0, 3), decision(2, 8)]
    assert counting(epochs, 0, *values) == [1, 7, 8]


def test_records_before_a_later_epoch_count_also_if_it_is_known():
    epochs = Epochs([0, 3], 1)
    assert counting(epochs, 1, decision(0, 1), decision(0, 2), BEGIN, decision(3, 3)) == [1, 2, 3]
    assert epochs.begun == [0, 3]


def test_a_record_of_an_epoch_yet_to_begin_does_not_count():
    assert counting(Epochs((), 0), 0, BEGIN, decision(2, 1), BEGIN) == []


def test_before_the_first_epoch_of_a_whole_log_nothing_counts():
    epochs = Epochs((), 0)
    assert counting(epochs, 0, decision(0, 1)) == []
    assert (epochs.begun, epochs.current) == ([], NONE)


def test_the_first_epoch_follows_none_and_begins_the_log():
    epochs = Epochs((), 0)
    assert epochs.beginning() == b"-1"
    assert counting(epochs, 0, Beginning(follows=NONE), decision(0, 1)) == [1]
    assert (epochs.begun, epochs.current, epochs.beginning()) == ([0], 0, b"0")


@pytest.mark.parametrize("follows", [NONE, 0, 9])
def test_a_beginning_after_an_epoch_not_in_force_is_void(follows):
    epochs = Epochs((), 0)
    assert counting(epochs, 0, BEGIN, decision(0, 1), BEGIN, decision(2, 2)) == [1, 2]
    assert counting(epochs, 4, Beginning(follows), decision(2, 3), decision(4, 3), decision(2, 4)) == [3, 4]
    assert (epochs.begun, epochs.current) == ([0, 2], 2)
    assert counting(epochs, 8, Beginning(follows=2), decision(2, 5), decision(8, 5)) == [5]
    assert epochs.begun == [0, 2, 8]


def test_a_beginning_at_offset_0_that_follows_an_epoch_is_void():
    epochs = Epochs((), 0)
    assert counting(epochs, 0, Beginning(follows=7)) == []
    assert (epochs.begun, epochs.beginning()) == ([], b"-1")


def test_a_beginning_that_does_not_say_what_it_follows_is_void():
    epochs = Epochs([0], 5)
    assert epochs.decision(SimpleNamespace(offset=5, value=b"", headers=())) is None
    assert counting(epochs, 6, decision(5, 1), decision(0, 1)) == [1]


def test_in_a_log_cut_short_the_first_decision_names_the_epoch():
    epochs = Epochs((), 50)
    assert counting(epochs, 50, decision(7, 1), decision(0, 2), decision(7, 3)) == [1, 3]
    assert epochs.begun == [7]
    assert counting(epochs, 53, Beginning(follows=0), decision(7, 4), Beginning(follows=7), decision(55, 5)) == [4, 5]
    assert epochs.begun == [7, 55]


def test_in_a_log_cut_short_the_first_beginning_is_in_force():
    epochs = Epochs((), 50)
    assert counting(epochs, 50, Beginning(follows=7), decision(7, 1), decision(50, 2)) == [2]
    assert epochs.begun == [50]
    assert counting(epochs, 53, Beginning(follows=7), decision(53, 3), decision(50, 3)) == [3]
    assert epochs.begun == [50]


def test_a_log_whose_epochs_are_known_is_not_entered_anew():
    epochs = Epochs([0], 50)
    assert counting(epochs, 50, decision(7, 1), Beginning(follows=7), decision(51, 1), decision(0, 1)) == [1]
    assert epochs.begun == [0]


def test_a_reader_in_the_middle_knows_the_epoch_in_force():
    known = {20, 0, 7}  # in no order
    assert counting(Epochs(known, 9), 9, decision(0, 1), decision(7, 2), decision(20, 3)) == [2]
    at_a_beginning = Epochs(known, 7)
    assert counting(at_a_beginning, 7, BEGIN, decision(7, 1)) == [1]
    assert at_a_beginning.begun == [0, 7]
    assert counting(Epochs(known, 8), 8, decision(7, 1)) == [1]
    assert counting(Epochs(known, 21), 21, decision(7, 1), decision(20, 2)) == [2]


@pytest.mark.parametrize("garbage", [b"{", b'{"epoch": 0}', b"null", b'"\xff"'])
def test_what_is_neither_empty_nor_a_decision_changes_nothing(garbage):
    epochs = Epochs([0], 1)
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        counting(epochs, 1, garbage)
    assert counting(epochs, 2, decision(0, 1)) == [1]
