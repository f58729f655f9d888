"""Which part of the log the state of an entity was from: with it anyone can compute once more what was read."""

import msgspec

Offsets = dict[int, int]
"""By partition: the last sequence (decisions) or offset (labels) that had been counted."""


class Held(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the history of one entity held of the log when a decision read it."""

    decisions: Offsets = {}
    """A card's: the sequence of its last decision, in its own partition."""
    labels: Offsets = {}
