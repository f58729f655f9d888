"""The Lua scripts: they store and compare, on one Redis and on a cluster alike. None knows what a tile is."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from feature_store.codec import HEAD
from feature_store.redis_client import Client

Argument = str | bytes | int


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
            raise named(error) from None


class WrongTypeError(ResponseError):
    """A key holds something of another kind than it must."""


def named(error: Exception) -> Exception:
    """Give a reply's error as what it is: a closed gate, a key of another kind, or as it came."""
    text = str(error)
    if text.startswith("CLOSED"):
        return ClosedError(text)
    return WrongTypeError(text) if "WRONGTYPE" in text else error


Call = tuple[Script, Sequence[str], Sequence[Argument]]


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
            raise named(replies[index])
    return replies


def load(name: str) -> Script:
    """Load `lua/NAME.lua`, with `lua/gate.lua` before it."""
    folder = files("feature_store") / "lua"
    parts = (f"local LAST_OF_HEAD = {HEAD - 1}", *((folder / f"{part}.lua").read_text() for part in ("gate", name)))
    text = "\n".join(parts)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
