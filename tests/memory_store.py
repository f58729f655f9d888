"""The production store and writer over a dictionary in place of Redis: what the scripts do is done here in Python.

Keys do not expire, and nothing is noted as pending: `Seen.pending_since` is infinity.
"""

import re

from feature_store.codec import HEAD, stamp
from feature_store.decision_store import RedisDecisionStore
from feature_store.entity_writer import RedisEntityWriter
from feature_store.features import SHIPPED
from feature_store.gate import Gate
from feature_store.round_trips import RoundTrips
from feature_store.scripts import ClosedError, load

GATE = Gate("0@memory")


class Dictionary(RoundTrips):
    """Gets keys, and runs the two scripts that write state, one at a time."""

    on_cluster = False

    def __init__(self, keys):
        self.values = {keys.gate(partition): GATE.text.encode() for partition in range(keys.partitions)}
        self.log = []
        self.calls = 0
        """Round trips, if nothing shares one."""
        self._scripts = {load("commit").digest: self._commit, load("write").digest: self._write}

    async def get(self, keys):
        self.calls += 1
        return [self.values.get(key) for key in keys]

    async def run(self, script, keys, arguments):
        self.calls += 1
        texts = [each if isinstance(each, bytes) else str(each).encode() for each in arguments]
        if self.values.get(keys[0]) != texts[0]:
            raise ClosedError("CLOSED")
        return self._scripts[script.digest](keys[1:], texts[1:])

    def _moved(self, key, expected):
        return self.values.get(key, b"")[:HEAD] != expected

    def _commit(self, keys, arguments):
        card, decided, sequence_key, outbox, *_ = keys
        expected, raw, _, stored, _, record, _ = arguments
        if decided in self.values:
            return [b"decided", self.values[decided]]
        if self._moved(card, expected):
            return [b"moved", self.values.get(card)]
        sequence = int(self.values.get(sequence_key, 0)) + 1
        self.values |= {sequence_key: b"%d" % sequence, card: raw + stamp(sequence), decided: stored}
        self.log.append((int(re.sub(r"\D", "", outbox)), sequence, record))
        return [b"committed", sequence]

    def _write(self, keys, arguments):
        written = []
        while keys:
            (expected, raw, _, beside), arguments = arguments[:4], arguments[4:]
            count = int(beside)
            (key, *others), keys = keys[: count + 1], keys[count + 1 :]
            values, arguments = arguments[: 2 * count : 2], arguments[2 * count :]
            moved = self._moved(key, expected)
            if not moved:
                self.values |= {key: raw, **dict(zip(others, values, strict=True))}
            written.append(int(not moved))
        return written


class MemoryStore(RedisDecisionStore):
    """A `DecisionStore` and an `EntityWriter` in one. `log` is what the outbox got: (partition, sequence, record)."""

    def __init__(self, keys, features=SHIPPED):
        self.state = Dictionary(keys)
        self.writer = RedisEntityWriter(self.state, keys, features, [GATE] * keys.partitions)
        self.log = self.state.log
        self.count, self.label, self.restore = self.writer.count, self.writer.label, self.writer.restore
        super().__init__(self.state, keys, features, keep_seconds=1)
