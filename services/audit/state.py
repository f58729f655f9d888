"""State as a function of the log, in plain Python: what Redis must hold once its readers have caught up.

Nothing here looks at what a decision recorded of its features: only which transactions were decided, in which order,
and which labels came.
"""

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any

from feature_store.codec import CorruptStateError, decode
from feature_store.definitions import Entity, Measure
from feature_store.feature_set import FeatureSet, counted_anywhere
from feature_store.features import SHIPPED
from feature_store.history import History
from feature_store.keys import Keys
from services.audit.whole_log import Log
from services.decision.record import Stored

Value = bytes | Mapping[str, object] | CorruptStateError
"""What is under a key: bytes, or the parts of an entity's history, or why they cannot be told."""
State = dict[str, Value]


def expected(log: Log, keys: Keys, features: FeatureSet = SHIPPED) -> State:
    """Compute every key of entities, decisions and labels."""
    histories: dict[Entity, defaultdict[str, History]] = {
        entity: defaultdict(partial(History, features.plans[entity])) for entity in features.entities
    }
    state: State = {}
    for record in log:
        t = record.transaction
        for entity, value in zip(features.entities, features.keys_of(t), strict=True):
            if value:
                history = histories[entity][value]
                committed = entity is features.committed
                history.count(
                    t.second, features.counted(t, history.read(t.second)) if committed else counted_anywhere(t)
                )
                history.decisions[record.partition] = record.sequence
        state[keys.decided(t.card_id, t.transaction_id)] = Stored.of(t, record.answer).to_bytes()
        state[keys.sequence(record.partition)] = b"%d" % record.sequence
    for logged in sorted(log.labels.values(), key=lambda each: (each.partition, each.offset)):
        label = logged.label
        for entity in features.labelled:
            value = getattr(label, entity.key)
            history = histories[entity][value]
            history.add(label.second, {Measure.FRAUDS: int(label.is_fraud)})
            history.labels[logged.partition] = logged.offset
            state[keys.label(entity, value, label)] = logged.content
    for entity, by_value in histories.items():
        state |= {keys.history(entity, value): parts(history) for value, history in by_value.items()}
    return state


def parts(history: History) -> dict[str, object]:
    """Give all of a history that the log determines; how often it was written, it does not."""
    tables = {f"{tile.tile} tiles": table for tile, table in zip(history.plan.tiles, history.tables, strict=True)}
    return {"newest": history.newest, "decisions": history.decisions, "labels": history.labels, **tables}


HOUSEKEEPING = ("}gate", "}progress", "}relay")
"""Keys of how processes work together: not state."""


def actual(client: Any, features: FeatureSet = SHIPPED) -> State:
    """Read every key of state with a synchronous client, of one Redis or of a cluster.

    What is on its way (outbox, pending) is there only while it is.
    """
    readers: dict[bytes, Any] = {
        b"hash": client.hgetall,
        b"string": client.get,
        b"stream": lambda key: dict(client.xrange(key)),
        b"zset": lambda key: dict(client.zrange(key, 0, -1, withscores=True)),
    }
    entities = {entity.name: entity for entity in features.entities}
    found: State = {}
    for key in client.scan_iter(count=1_000):
        name = key.decode()
        if name.startswith("{") and not name.endswith(HOUSEKEEPING):
            reader = readers.get(client.type(key))  # none: gone since the scan
            if reader and (value := reader(key)):  # a stream stays when it is empty
                entity = entities.get(name.partition("}")[2].partition(":")[0])
                found[name] = _parts(value, name, features, entity) if entity else value
    return found


def _parts(raw: bytes, key: str, features: FeatureSet, entity: Entity) -> Value:
    partition = int(key[1 : key.index("}")])
    try:
        return parts(decode(raw, key, features.plans[entity], features.layout, partition))
    except CorruptStateError as error:
        return error


def differences(wanted: State, found: State) -> list[str]:
    """Name every key and field that is not as it must be; never its content, which names cards."""
    wrong = [f"{key} is missing" for key in wanted.keys() - found.keys()]
    wrong += [f"{key} should not be there" for key in found.keys() - wanted.keys()]
    for key in wanted.keys() & found.keys():
        want, have = wanted[key], found[key]
        if isinstance(have, CorruptStateError):
            wrong.append(f"{key} is damaged")
        elif not isinstance(want, Mapping) or not isinstance(have, Mapping):
            wrong += [f"{key} differs"] if want != have else []
        else:
            fields = sorted(f for f in want.keys() | have.keys() if want.get(f) != have.get(f))
            wrong += [f"{key} differs in {', '.join(fields)}"] if fields else []
    return sorted(wrong)
