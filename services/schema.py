"""The JSON Schemas of every topic and of the API: written from the types, and only ever extended.

`fraud schemas` writes them to `services/schemas/` and refuses a change that would break a producer or a consumer.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from feature_store.transaction import Label, Transaction
from services.api.labels import LabelAccepted
from services.api.problems import ProblemDocument
from services.dead_letter import DeadLetter
from services.decision.record import Answer, Record

FOLDER = Path(__file__).parent / "schemas"
TYPES: Mapping[str, tuple[type, ...]] = {
    "transactions": (Transaction,),
    "decisions": (Record,),
    "labels": (Label,),
    "dead-letter": (DeadLetter,),
    "api": (Transaction, Answer, Label, LabelAccepted, ProblemDocument),
}
"""File name (a topic, or the API) -> what is in it. All dead-letter topics hold the same type."""

Schema = Mapping[str, Any]


class IncompatibleError(ValueError):
    """A schema would lose or change what someone relies on."""


def current(name: str) -> dict[str, Any]:
    """Give the schema that the types have now."""
    roots, components = msgspec.json.schema_components(TYPES[name], ref_template="#/$defs/{name}")
    root: dict[str, Any] = dict(roots[0]) if len(roots) == 1 else {"anyOf": list(roots)}
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name, **root, "$defs": components}
    ordered: dict[str, Any] = _ordered(schema)
    return ordered


def _ordered(schema: Any) -> Any:
    """Sort enumerated values, which have no order of their own, so that equal types give equal files."""
    if isinstance(schema, Mapping):
        return {key: sorted(value, key=str) if key == "enum" else _ordered(value) for key, value in schema.items()}
    return [_ordered(item) for item in schema] if isinstance(schema, list | tuple) else schema


def write_schemas(folder: Path = FOLDER) -> list[Path]:
    """Write every schema; give the files that changed.

    Raises:
        IncompatibleError: one would break compatibility; nothing was written.
    """
    changed = {}
    for name in TYPES:
        path = folder / f"{name}.json"
        before = json.loads(path.read_text()) if path.exists() else None
        now = current(name)
        broken = list(incompatibilities(before, now)) if before else []
        if broken:
            raise IncompatibleError(f"{path.name}: {'; '.join(broken)}")
        if before != now:
            changed[path] = json.dumps(now, indent=2) + "\n"
    for path, text in changed.items():
        path.write_text(text)
    return list(changed)


def incompatibilities(before: Schema, now: Schema) -> Iterator[str]:
    """Name what `now` lacks or changed: a removed or retyped field, a new required one, a narrower bound."""
    for name, definition in before["$defs"].items():
        if name in now["$defs"]:
            yield from _compare(name, definition, now["$defs"][name])
        else:
            yield f"{name} is gone"


def _compare(place: str, before: Schema, now: Schema) -> Iterator[str]:
    if _kind(before) != _kind(now):
        yield f"{place} was {_kind(before)} and would be {_kind(now)}"
        return
    fields = before.get("properties", {})
    for name, field in fields.items():
        if name in now.get("properties", {}):
            yield from _compare(f"{place}.{name}", field, now["properties"][name])
        else:
            yield f"{place}.{name} is gone"
    for name in set(now.get("required", ())) - set(before.get("required", ())):
        yield f"{place}.{name} would be required"
    for bound, narrower in _NARROWER.items():
        if bound in now and narrower(now[bound], before.get(bound)):
            yield f"{place} would have {bound} {now[bound]} instead of {before.get(bound)}"
    for value in set(map(str, before.get("enum", ()))) - set(map(str, now.get("enum", ()))):
        yield f"{place} would not allow {value}"
    if isinstance(before.get("items"), Mapping):
        yield from _compare(f"{place}[]", before["items"], now["items"])


_NARROWER: Mapping[str, Callable[[Any, Any], bool]] = {
    "maximum": lambda now, before: before is None or now < before,
    "maxLength": lambda now, before: before is None or now < before,
    "minimum": lambda now, before: before is None or now > before,
    "minLength": lambda now, before: before is None or now > before,
    "pattern": lambda now, before: now != before,
}
"""When a bound of today refuses what it let through before."""


def _kind(schema: Schema) -> str:
    """Name the type as far as compatibility goes."""
    if "anyOf" in schema:
        return " or ".join(sorted(_kind(option) for option in schema["anyOf"]))
    return str(schema.get("$ref") or schema.get("type") or ("enum" if "enum" in schema else "anything"))
