"""State without a server: what Redis and its scripts do, in a dictionary, under the same store and writer."""

import re
from collections.abc import Sequence
from typing import Any

from feature_store.codec import HEAD, stamp
from feature_store.decision_store import RedisDecisionStore
from feature_store.entity_writer import LoggedDecision, LoggedLabel, RedisEntityWriter
from feature_store.feature_set import FeatureSet
from feature_store.features import SHIPPED
from feature_store.gate import Gate
from feature_store.keys import Keys
from feature_store.round_trips import RoundTrips
from feature_store.scripts import Argument, Script, load

GATE = Gate("0@memory")


class _Dictionary(RoundTrips):
    """Gets keys, and runs the two scripts that write state, one at a time."""

    def __init__(self, keys: Keys) -> None:
        self.on_cluster = False
        self.values: dict[str, bytes] = {keys.gate(p): GATE.text.encode() for p in range(keys.partitions)}
        self.log: list[tuple[int, int, bytes]] = []
        self._scripts = {load("commit").digest: self._commit, load("write").digest: self._write}

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self.values.get(key) for key in keys]

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        return self._scripts[script.digest](keys, [a if isinstance(a, bytes) else str(a).encode() for a in arguments])

    def _moved(self, key: str, expected: bytes) -> bool:
        return self.values.get(key, b"")[:HEAD] != expected

    def _commit(self, keys: Sequence[str], arguments: Sequence[bytes]) -> list[Any]:
        _, card, decided, sequence_key, outbox, *_ = keys
        _, expected, raw, _, stored, _, record, _ = arguments
        if decided in self.values:
            return [b"decided", self.values[decided]]
        if self._moved(card, expected):
            return [b"moved", self.values.get(card)]
        sequence = int(self.values.get(sequence_key, 0)) + 1
        self.values |= {sequence_key: b"%d" % sequence, card: raw + stamp(sequence), decided: stored}
        self.log.append((int(re.sub(r"\D", "", outbox)), sequence, record))
        return [b"committed", sequence]

    def _write(self, keys: Sequence[str], arguments: Sequence[bytes]) -> list[int]:
        written, names, rest = [], list(keys[1:]), list(arguments[1:])
        while names:
            expected, raw, _, beside = rest[:4]
            ours, names = names[: int(beside) + 1], names[int(beside) + 1 :]
            values, rest = [raw, *rest[4 : 4 + 2 * int(beside) : 2]], rest[4 + 2 * int(beside) :]
            moved = self._moved(ours[0], expected)
            if not moved:
                self.values |= dict(zip(ours, values, strict=True))
            written.append(int(not moved))
        return written


class MemoryStore(RedisDecisionStore):
    """A `DecisionStore` and an `EntityWriter` in one, with its log: (partition, sequence, record)."""

    def __init__(self, keys: Keys, features: FeatureSet = SHIPPED) -> None:
        self.state = _Dictionary(keys)
        self.writer = RedisEntityWriter(self.state, keys, features, [GATE] * keys.partitions)
        super().__init__(self.state, keys, features, keep_seconds=1)

    @property
    def log(self) -> list[tuple[int, int, bytes]]:
        """What the outbox was given, in order."""
        return self.state.log

    async def count(self, decisions: Sequence[LoggedDecision]) -> int:
        """See `EntityWriter.count`."""
        return await self.writer.count(decisions)

    async def label(self, labels: Sequence[LoggedLabel]) -> list[bool | None]:
        """See `EntityWriter.label`."""
        return await self.writer.label(labels)
