"""State as a function of the log, in plain Python: every key Redis must hold once its readers have caught up.

Nothing here runs a script or looks at what a decision recorded of its features: only which transactions were decided,
in which order, and which labels came. (A decision that was forced says itself what it counted.)
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from feature_store.definitions import Entity, Measure
from feature_store.entity_state import said
from feature_store.formulas import counted, counted_at_merchant
from feature_store.histories import Histories
from feature_store.keys import Keys
from feature_store.tiles import History
from services.audit.whole_log import Log
from services.decision.policy import CONTENTION
from services.decision.record import Record, Stored

Value = bytes | Mapping[bytes, bytes]
State = dict[str, Value]


def expected(log: Log, keys: Keys) -> State:
    """Compute every key of cards, merchants, decisions and labels, as Redis holds them."""
    histories = Histories()
    fields: defaultdict[str, dict[str, str]] = defaultdict(dict)
    state: State = {}
    for record in log:
        t = record.transaction
        histories.add(Entity.CARD, t, _counted(record, histories))
        card = fields[keys.history(Entity.CARD, t)]
        card["version"] = str(int(card.get("version", 0)) + 1)
        state[keys.decided(t.card_id, t.transaction_id)] = Stored.of(t, record.answer).to_bytes()
        state[keys.sequence(record.partition)] = b"%d" % record.sequence
    for record in log:
        t = record.transaction
        histories.add(Entity.MERCHANT, t, counted_at_merchant(t))
        fields[keys.history(Entity.MERCHANT, t)][f"sequence:{record.partition}"] = str(record.sequence)
    for (partition, offset), label in sorted(log.labels.values(), key=lambda each: each[0]):
        for entity in Entity:
            histories.add(entity, label, {Measure.FRAUDS: int(label.is_fraud)})
            fields[keys.history(entity, label)][f"label:{partition}"] = str(offset)
            state[keys.label(entity, label)] = said(label).encode()
    for entity, by_name in histories.of.items():
        for name, history in by_name.items():
            fields[keys.history_of(entity, name)] |= tiles(history)
    state |= {
        key: {field.encode(): value.encode() for field, value in several.items()} for key, several in fields.items()
    }
    return state


def _counted(record: Record, histories: Histories) -> dict[Measure, int]:
    """Give what a decision added to its card: computed from those before it, which a forced one had not all seen."""
    if CONTENTION in record.answer.degraded:  # held against what it had seen by `verify`
        return {Measure[name.upper()]: value for name, value in record.counted.items()}
    return counted(record.transaction, histories.read(record.transaction))


def tiles(history: History) -> dict[str, str]:
    """Write a history's tiles and newest second as Redis holds them."""
    written = {
        f"{tile}{number}": " ".join(f"{measure}{counts[measure]}" for measure in Measure if measure in counts)
        for tile, numbered in history.tiles.items()
        for number, counts in numbered.items()
    }
    return written | ({"newest": str(history.newest)} if history.newest is not None else {})


HOUSEKEEPING = ("}gate", "}progress", "}relay")
"""Keys of how processes work together: not state."""


def actual(client: Any) -> State:
    """Read every key of state with a synchronous client, of one Redis or of a cluster.

    What is on its way (outbox, pending) is there only while it is.
    """
    readers: dict[bytes, Any] = {
        b"hash": client.hgetall,
        b"string": client.get,
        b"stream": lambda key: dict(client.xrange(key)),
        b"zset": lambda key: dict(client.zrange(key, 0, -1, withscores=True)),
    }
    found: State = {}
    for key in client.scan_iter(count=1_000):
        name = key.decode()
        if name.startswith("{") and not name.endswith(HOUSEKEEPING):
            reader = readers.get(client.type(key))  # none: gone since the scan
            if reader and (value := reader(key)):  # a stream stays when it is empty
                found[name] = value
    return found


def differences(wanted: State, found: State) -> list[str]:
    """Name every key and field that is not as it must be; never its content, which names cards."""
    wrong = [f"{key} is missing" for key in wanted.keys() - found.keys()]
    wrong += [f"{key} should not be there" for key in found.keys() - wanted.keys()]
    for key in wanted.keys() & found.keys():
        want, have = wanted[key], found[key]
        if isinstance(want, bytes) or isinstance(have, bytes):
            wrong += [f"{key} differs"] if want != have else []
        else:
            fields = sorted(f.decode() for f in want.keys() | have.keys() if want.get(f) != have.get(f))
            wrong += [f"{key} differs in {', '.join(fields)}"] if fields else []
    return sorted(wrong)
