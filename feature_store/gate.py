"""The gate of each partition: open only while the state behind it is known to hold all that the log holds.

Redis may come back with less than it had: its file lost the tail, it was flushed. Nobody could look in time, so every
script that writes state looks itself, at one key and at the run of its server: a server that was started again, or
a key that is gone, closes the gate. A recovery brings state up to the log and opens it (services/recovery.py).

There are two looks (lua/gate.lua). Who reads asks whether the gate is open. Who writes, `commit` too, brings the text
of the gate as it was found, and writes only while it is still that, word for word: so a recovery writes behind the
gates it has closed itself, and whoever closes them after it changes their text and locks it out.

Each recovery begins a new epoch in every partition of topic decisions, numbered by the offset of an empty record. What
a relay of an earlier epoch still publishes after that record does not count, and that relay cannot trim.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from feature_store.keys import Keys
from feature_store.redis_client import Client
from feature_store.scripts import ClosedError, load, run_all


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate as it was found, open or closed: "epochs@run", or "epochs!token@run" when a recovery has closed it."""

    text: str

    @property
    def epochs(self) -> tuple[int, ...]:
        """Every epoch of the partition that state knows of, oldest first."""
        known, _, _ = self.text.partition("@")[0].partition("!")
        return tuple(int(epoch) for epoch in known.split())

    @property
    def epoch(self) -> int:
        """The current one; only an open gate surely has one."""
        return self.epochs[-1]


def is_open(text: bytes | None) -> bool:
    """Whether a gate's text is of an open one. Whether its server was started again since, only a script can tell."""
    return text is not None and b"!" not in text


class Gates:
    """The gates of all partitions. They open and close together: an event touches two of them."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._names = [keys.gate(partition) for partition in range(keys.partitions)]
        self._read = load("read_gate")
        self._close = load("close_gate")
        self._open = load("open_gate")

    async def all_open(self) -> list[Gate]:
        """Give the gate of each partition.

        Raises:
            ClosedError: not all are open.
        """
        texts = await run_all(self._client, [(self._read, (name,), ()) for name in self._names])
        closed = [str(partition) for partition, text in enumerate(texts) if text is None]
        if closed:
            raise ClosedError(f"not open: partitions {', '.join(closed)}")
        return [Gate(text.decode()) for text in texts]

    async def close(self, token: str) -> list[Gate]:
        """Close all, also those another recovery has closed, which then cannot open them any more."""
        texts = await run_all(self._client, [(self._close, (name,), (token,)) for name in self._names])
        return [Gate(text.decode()) for text in texts]

    async def open(self, closed: Sequence[Gate], epochs: Sequence[Iterable[int]]) -> None:
        """Open all, each with the epochs of its partition.

        Raises:
            ClosedError: another recovery has begun, or a server was started again, since they were `closed`.
        """
        calls = [
            (self._open, (name,), (gate.text, " ".join(map(str, sorted(known)))))
            for name, gate, known in zip(self._names, closed, epochs, strict=True)
        ]
        await run_all(self._client, calls)
