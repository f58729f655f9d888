"""The Lua scripts: rendered with the features as their plan, and run on one Redis or on a cluster alike.

The text, and so the digest, changes with the features: a process never runs another version's script.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from feature_store.definitions import AGGREGATES, STORED, Aggregate, Entity, Measure, Tile
from feature_store.redis_client import Client

EXPIRE_SECONDS = 45 * 86_400
"""How long an entity without traffic is kept. Longer than any window reaches back, so its going is never seen."""

Argument = str | bytes | int
_ATTEMPTS = 3


class ClosedError(ResponseError):
    """The partition is not open: its state may lack what the log has, and nothing was written. See `gate.py`."""


@dataclass(frozen=True, slots=True)
class Script:
    """One script and its SHA-1, which is how Redis knows it."""

    text: str
    digest: str

    def command(self, keys: Sequence[str], arguments: Sequence[Argument]) -> tuple[Argument, ...]:
        """Give the EVALSHA command that runs it."""
        return ("EVALSHA", self.digest, len(keys), *keys, *arguments)

    async def run(self, client: Client, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run it; a server that does not have it yet is given its text.

        Raises:
            ClosedError: the gate of the partition is not as the script needs it.
        """
        try:
            try:
                return await client.execute_command(*self.command(keys, arguments))
            except NoScriptError:  # nothing ran, so running it now is no repetition
                return await client.execute_command("EVAL", self.text, len(keys), *keys, *arguments)
        except ResponseError as error:
            raise _named(error) from None


def _named(error: Exception) -> Exception:
    return ClosedError(str(error)) if str(error).startswith("CLOSED") else error


Call = tuple[Script, Sequence[str], Sequence[Argument]]


async def read_all(client: Client, calls: Sequence[Call]) -> list[Any]:
    """Run several scripts that only read, in one round trip and in their order; on a cluster in no order.

    Raises:
        redis.exceptions.RedisError: as `run_all`.
    """
    for _ in range(_ATTEMPTS):
        pipeline = client.pipeline(transaction=False)
        for script, keys, arguments in calls:
            pipeline.execute_command(*script.command(keys, arguments))
        replies = await pipeline.execute(raise_on_error=False)
        unknown = [call for call, reply in zip(calls, replies, strict=True) if isinstance(reply, NoScriptError)]
        if not unknown:
            break
        await run_all(client, unknown)  # which makes them known; then all again, in their order
    for reply in replies:
        if isinstance(reply, Exception):
            raise _named(reply)
    return replies


async def run_all(client: Client, calls: Sequence[Call]) -> list[Any]:
    """Run several scripts in one round trip (one a node on a cluster) and give their replies in order.

    Raises:
        redis.exceptions.RedisError: the first error among the replies; calls after it may have run, and a call that
            Redis did not know runs after the others. Calls must therefore not depend on each other.
    """
    pipeline = client.pipeline(transaction=False)
    for script, keys, arguments in calls:
        pipeline.execute_command(*script.command(keys, arguments))
    replies = await pipeline.execute(raise_on_error=False)
    for index, (script, keys, arguments) in enumerate(calls):
        if isinstance(replies[index], NoScriptError):
            replies[index] = await script.run(client, keys, arguments)
        elif isinstance(replies[index], Exception):
            raise _named(replies[index])
    return replies


def load(name: str) -> Script:
    """Load `lua/NAME.lua`, with the plan, `lua/gate.lua` and `lua/tiles.lua` before it."""
    folder = files("feature_store") / "lua"
    text = "\n".join((_plan(), *((folder / f"{part}.lua").read_text() for part in ("gate", "tiles", name))))
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def flat(values: Mapping[Measure, int]) -> list[Argument]:
    """Give values as the scripts take them: measure, integer, measure, ..."""
    return [part for pair in values.items() for part in pair]


def _plan() -> str:
    """Render the definitions as the Lua table PLAN."""
    tiles = _table({tile: f"{{seconds={tile.seconds}, kept={tile.kept}}}" for tile in Tile})
    stored = _table({entity: _table({t: _list(m) for t, m in STORED[entity].items()}) for entity in Entity})
    aggregates = _table({entity: "{" + ", ".join(map(_aggregate, AGGREGATES[entity])) + "}" for entity in Entity})
    return (
        f"local PLAN = {{tiles={tiles}, stored={stored}, aggregates={aggregates}, expire={EXPIRE_SECONDS},"
        f" count='{Measure.COUNT}', frauds='{Measure.FRAUDS}', genuine='{Measure.GENUINE}',"
        f" largest='{Measure.LARGEST_RATIO}'}}"
    )


def _aggregate(a: Aggregate) -> str:
    return f"{{op='{a.op}', measure='{a.measure}', tile='{a.tile}', window={a.window}, delay={a.delay}}}"


def _table(entries: dict[Any, str]) -> str:
    return "{" + ", ".join(f"{key}={value}" for key, value in entries.items()) + "}"


def _list(names: Sequence[str]) -> str:
    return "{" + ", ".join(f"'{name}'" for name in names) + "}"
