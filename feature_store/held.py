"""Which part of the log a decision's state held: with it anyone can compute what was read once more."""

from collections.abc import Sequence

import msgspec

Offsets = dict[int, int]
"""By partition: the last sequence (decisions) or offset (labels) that had been applied."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What the state of a card and a merchant held of the log when a decision read it."""

    card_decisions: int
    """How many decisions of the card it had counted: its version."""
    card_labels: Offsets
    merchant_decisions: Offsets
    merchant_labels: Offsets


def positions(flat: Sequence[bytes]) -> tuple[Offsets, Offsets]:
    """Read an entity's positions as the scripts give them: decisions and labels."""
    held: dict[bytes, Offsets] = {b"sequence": {}, b"label": {}}
    for field, value in zip(flat[::2], flat[1::2], strict=True):
        kind, _, partition = field.partition(b":")
        held[kind][int(partition)] = int(value)
    return held[b"sequence"], held[b"label"]
