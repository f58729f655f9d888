"""What waits for Redis at the same moment goes there together: one round trip for all, on a cluster one a node.

A call that is alone leaves at once. Calls that come while `MOST_UNDER_WAY` round trips are under way leave with the
next one: the busier the process, the more share a round trip.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoScriptError

from feature_store.redis_client import Client, Line
from feature_store.scripts import Argument, Script, named

MOST_UNDER_WAY = 2
"""Round trips to one server at a time. With a second one, a slow reply delays others once, and not twice."""

_Reply = asyncio.Future[Any]


@dataclass(slots=True)
class _Batch:
    """What leaves together: keys to get, each once, and scripts to run."""

    keys: dict[str, int] = field(default_factory=dict)
    gets: list[tuple[_Reply, list[int]]] = field(default_factory=list)
    scripts: list[tuple[_Reply, Script, Sequence[str], Sequence[Argument]]] = field(default_factory=list)

    def replies(self) -> list[_Reply]:
        """Give everyone who waits for it."""
        return [reply for reply, _ in self.gets] + [reply for reply, *_ in self.scripts]


class RoundTrips:
    """Gets keys and runs scripts over one client.

    Raises, in both methods:
        redis.exceptions.RedisError: Redis did not answer in time or refused. A script may or may not have run.
        ClosedError: the script found a gate that is not as it needs it.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._line = Line(client)
        self.on_cluster = isinstance(client, RedisCluster)
        self._waiting: dict[str, _Batch] = {}
        self._under_way: defaultdict[str, int] = defaultdict(int)
        self._tasks: set[asyncio.Task[None]] = set()

    async def prepare(self, *scripts: Script) -> None:
        """Give Redis some scripts, so that nobody waits for their compilation."""
        for script in scripts:
            await self._client.script_load(script.text)

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Get the values of some keys; on one Redis all of them at one instant."""
        if not self.on_cluster:
            values: list[bytes | None] = await self._get("", keys)
            return values
        by_node: defaultdict[str, list[int]] = defaultdict(list)
        for place, key in enumerate(keys):
            by_node[self._node(key)].append(place)
        found: list[bytes | None] = [None] * len(keys)
        parts = [self._get(node, [keys[place] for place in places]) for node, places in by_node.items()]
        for places, values in zip(by_node.values(), await asyncio.gather(*parts), strict=True):
            for place, value in zip(places, values, strict=True):
                found[place] = value
        return found

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run a script, whose keys share a slot."""
        node = self._node(keys[0]) if self.on_cluster else ""
        reply = asyncio.get_running_loop().create_future()
        self._batch(node).scripts.append((reply, script, keys, arguments))
        return await reply

    def _get(self, node: str, keys: Sequence[str]) -> _Reply:
        reply = asyncio.get_running_loop().create_future()
        batch = self._batch(node)
        places = [batch.keys.setdefault(key, len(batch.keys)) for key in keys]
        batch.gets.append((reply, places))
        return reply

    def _batch(self, node: str) -> _Batch:
        """Give the batch that leaves next; it does so when everyone who is running now has had a turn."""
        batch = self._waiting.get(node)
        if batch is None:
            batch = self._waiting[node] = _Batch()
            asyncio.get_running_loop().call_soon(self._leave, node)
        return batch

    def _leave(self, node: str) -> None:
        if node in self._waiting and self._under_way[node] < MOST_UNDER_WAY:
            self._under_way[node] += 1
            task = asyncio.create_task(self._travel(node, self._waiting.pop(node)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _travel(self, node: str, batch: _Batch) -> None:
        try:
            await self._exchange(batch)
        except BaseException as error:  # told to everyone who waits, of whatever kind it is
            for reply in batch.replies():
                if not reply.done():
                    reply.set_exception(error) if isinstance(error, Exception) else reply.cancel()
            if not isinstance(error, Exception):
                raise
        finally:
            self._under_way[node] -= 1
            self._leave(node)

    async def _exchange(self, batch: _Batch) -> None:
        commands: list[tuple[Argument, ...]] = []
        if self.on_cluster:  # a node has many slots, and MGET is for one
            commands += [("GET", key) for key in batch.keys]
        elif batch.keys:
            commands.append(("MGET", *batch.keys))
        commands += [script.command(keys, arguments) for _, script, keys, arguments in batch.scripts]
        replies = await self._line.send(commands)
        got = len(batch.keys) if self.on_cluster else min(1, len(batch.keys))
        values = replies[:got] if self.on_cluster else (replies[0] if got else [])
        _give_values(batch, values)
        unknown = []
        for call, value in zip(batch.scripts, replies[got:], strict=True):
            if isinstance(value, NoScriptError):
                unknown.append(call)
            else:
                _give(call[0], value)
        if unknown:  # nothing of them ran, so sending their texts is no repetition
            texts = [("EVAL", script.text, len(keys), *keys, *arguments) for _, script, keys, arguments in unknown]
            for (reply, *_), value in zip(unknown, await self._line.send(texts), strict=True):
                _give(reply, value)

    def _node(self, key: str) -> str:
        """Name the node that holds a key; all are one while nobody knows."""
        try:
            return str(self._client.get_node_from_key(key).name)  # type: ignore[union-attr]
        except Exception:  # noqa: BLE001  # slots not read yet, or not covered: the client finds out, or says why not
            return ""


def _give_values(batch: _Batch, values: Any) -> None:
    for reply, places in batch.gets:
        if reply.done():
            continue
        if isinstance(values, Exception):
            reply.set_exception(named(values))
            continue
        found = [values[place] for place in places]
        wrong = [value for value in found if isinstance(value, Exception)]
        if wrong:
            reply.set_exception(named(wrong[0]))
        else:
            reply.set_result(found)


def _give(reply: _Reply, value: Any) -> None:
    if reply.done():  # its caller went away
        return
    if isinstance(value, Exception):
        reply.set_exception(named(value))
    else:
        reply.set_result(value)
