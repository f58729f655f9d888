"""The replay itself: events in the file's order, labels when their time has come, then a wait for every decision."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import numpy as np
from aiokafka import TopicPartition

from feature_store.tables import Row
from feature_store.transaction import Label, Transaction
from services.decision.policy import MERCHANT_LAG
from services.replay.doors import Door, HttpDoor, Place, RefusedError
from services.replay.pace import STUCK, WAITED_FOR, Pace, PaceName
from services.replay.report import Report
from services.replay.watch import Identity, Watch
from services.topics import LABELS, TRANSACTIONS

LANES = 64
"""Transactions on their way at a time. A card always takes the same lane, so its transactions keep their order."""


class StuckError(Exception):
    """Nothing moved for as long as the replay was willing to wait."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to replay. `rate` in transactions a second, None for as fast as it goes; `patience` in seconds."""

    rate: float | None
    label_delay: timedelta
    pace: PaceName
    patience: float


class Replay:
    """One replay. `watch` must be following the log with this replay's `settled`."""

    def __init__(self, door: Door, options: Options, progress: Callable[[], None]) -> None:
        self.watch = Watch(self.settled, in_log=options.pace == "log")
        self._door = door
        self._options = options
        self._progress = progress
        self._pace = Pace()
        self._sent_at: dict[Identity, float] = {}
        self._sent_to: dict[Place, Identity] = {}
        self._labels_due: deque[tuple[int, Label]] = deque()
        self._count: Counter[str] = Counter()

    def settled(self, key: Hashable) -> None:
        """Note that nothing waits for an event any more; `key` may be its place in topic transactions."""
        self._pace.settled(self._sent_to.get(cast("Place", key), key))

    async def run(self, rows: Iterable[Row]) -> Report:
        """Send every row and wait until each has its decision.

        Raises:
            StuckError: nothing moved for `patience` seconds.
        """
        started = time.perf_counter()
        lanes = [asyncio.Queue[Transaction | Label](maxsize=LANES) for _ in range(LANES)]
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(self._work(lane)) for lane in lanes]
            for index, row in enumerate(rows):
                if self._options.rate:
                    await asyncio.sleep(started + index / self._options.rate - time.perf_counter())
                await self._feed(row, lanes)
                self._progress()
            await asyncio.gather(*(lane.join() for lane in lanes))
            for worker in workers:
                worker.cancel()
        await self._all_decided()
        return self._report(time.perf_counter() - started)

    async def _feed(self, row: Row, lanes: list[asyncio.Queue[Transaction | Label]]) -> None:
        second = row.transaction.second
        while self._labels_due and self._labels_due[0][0] <= second:
            due, label = self._labels_due.popleft()
            await self._put(label, due, ("label", label.card_id, label.transaction_id), lanes)
        identity = (row.transaction.card_id, row.transaction.transaction_id)
        self._count["sent"] += 1
        if identity in self.watch.decisions or identity in self._sent_at:
            self._count["duplicates"] += 1
            await lanes[hash(row.transaction.card_id) % LANES].put(row.transaction)
            return
        self._sent_at[identity] = time.perf_counter()
        await self._put(row.transaction, second, identity, lanes)
        if row.is_fraud:
            due = second + int(self._options.label_delay.total_seconds())
            self._labels_due.append((due, _label(row.transaction)))

    async def _put(
        self, event: Transaction | Label, second: int, key: Hashable, lanes: list[asyncio.Queue[Transaction | Label]]
    ) -> None:
        pace = self._options.pace
        try:
            await self._pace.wait(second, self._options.patience)
        except TimeoutError:
            raise StuckError(STUCK[pace]) from None
        if isinstance(event, WAITED_FOR[pace]):
            self._pace.sent(key, second)
        await lanes[hash(event.card_id) % LANES].put(event)

    async def _work(self, lane: asyncio.Queue[Transaction | Label]) -> None:
        while True:
            event = await lane.get()
            if isinstance(event, Label):
                await self._send_label(event)
            else:
                await self._send(event)
            lane.task_done()

    async def _send_label(self, label: Label) -> None:
        partition, offset = await self._door.label(label)
        self.watch.expect(TopicPartition(LABELS, partition), offset, ("label", label.card_id, label.transaction_id))
        self._count["labels"] += 1

    async def _send(self, transaction: Transaction) -> None:
        identity = (transaction.card_id, transaction.transaction_id)
        try:
            place = await self._door.send(transaction)
        except RefusedError:
            self._count["refused"] += 1
            self._pace.settled(identity)
            self._sent_at.pop(identity, None)
            return
        if place is not None:
            self._sent_to[place] = identity
            if place in self.watch.set_aside:  # it was faster than the acknowledgement
                self._pace.settled(identity)

    def _set_aside(self) -> set[Identity]:
        return {self._sent_to[place] for place in self.watch.set_aside & self._sent_to.keys()}

    async def _all_decided(self) -> None:
        """Wait until every transaction has a decision in the log or is set aside, and no repetition is on its way."""
        undecided, unread = set(self._sent_at), set(self._sent_to)
        moved = time.perf_counter()
        while undecided or unread:
            before = len(undecided) + len(unread)
            undecided -= self.watch.decisions.keys() | self._set_aside()
            unread -= {place for place in unread if self._processed(place)}
            if len(undecided) + len(unread) < before:
                moved = time.perf_counter()
            elif time.perf_counter() - moved > self._options.patience:
                raise StuckError(
                    f"{len(undecided)} transactions have no decision in topic decisions, {len(unread)} were not read"
                )
            await asyncio.sleep(0.02)

    def _processed(self, place: Place) -> bool:
        """Tell whether the worker has passed this place of topic transactions."""
        partition, offset = place
        return self.watch.processed.get(TopicPartition(TRANSACTIONS, partition), 0) > offset

    def _report(self, seconds: float) -> Report:
        log = self.watch.decisions
        mine = {identity: log[identity] for identity in self._sent_at if identity in log}
        if isinstance(self._door, HttpDoor):
            latency_of, samples = "answer after", self._door.seconds
        else:
            latency_of = "decision in the log after"
            samples = [seen.at - self._sent_at[identity] for identity, seen in mine.items()]
        set_aside = len(self.watch.set_aside & self._sent_to.keys())
        return Report(
            door="http" if isinstance(self._door, HttpDoor) else "kafka",
            seconds=seconds,
            sent=self._count["sent"],
            decided=self._count["sent"] - set_aside - self._count["refused"],
            duplicates=self._count["duplicates"],
            decided_twice=self.watch.doubles,
            dead_lettered=set_aside,
            refused=self._count["refused"],
            labels=self._count["labels"],
            actions=Counter(seen.action for seen in mine.values()),
            latency_ms=_percentiles(samples),
            latency_of=latency_of,
            behind=sum(MERCHANT_LAG in seen.degraded for seen in mine.values()),
        )


def _label(transaction: Transaction) -> Label:
    return Label(
        transaction_id=transaction.transaction_id,
        card_id=transaction.card_id,
        merchant_id=transaction.merchant_id,
        event_time=transaction.event_time,
        is_fraud=True,
    )


def _percentiles(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    values = np.percentile(np.array(seconds) * 1_000, (50, 95, 99), method="inverted_cdf")
    return dict(zip(("p50", "p95", "p99"), map(float, values), strict=True))
