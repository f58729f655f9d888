"""What state costs Redis: microseconds of its one thread for a read, and bytes."""

import asyncio
import random
from datetime import UTC, datetime

from feature_store.codec import encode_stamped
from feature_store.decision_store import RedisDecisionStore
from feature_store.definitions import DAYS, Measure
from feature_store.features import CARD, MERCHANT, SHIPPED
from feature_store.history import History
from feature_store.keys import Keys
from feature_store.redis_client import Client, connect
from feature_store.round_trips import RoundTrips
from feature_store.transaction import Transaction
from loadtest.bench.report import Figure
from loadtest.bench.stack import Stack

READS = 3_000
KINDS = {"little history": 3, "30 transactions in 40 days": 30, "3,000 transactions in 40 days": 3_000}
MOST_RED_US = 12
"""Of Redis, for all that a decision reads."""


def reading(stack: Stack) -> list[Figure]:
    """Measure reads of a card and a merchant of several ages, and the memory they take."""
    return asyncio.run(_reading(stack))


async def _reading(stack: Stack) -> list[Figure]:
    keys = Keys(int(stack.environment["FRAUD_PARTITIONS"]))
    client = connect(stack.environment["FRAUD_REDIS_URL"], timeout=5)
    figures = []
    store = RedisDecisionStore(RoundTrips(client), keys, SHIPPED, keep_seconds=1)
    for kind, count in KINDS.items():
        t = await _write(client, keys, f"bench-{count}", count)
        await client.execute_command("CONFIG", "RESETSTAT")
        for _ in range(READS):
            await store.read(t)
        spent = sum(each["usec"] for each in (await client.info("commandstats")).values())
        figures.append(Figure(f"Redis, read for one decision: {kind}", spent / READS, "us", at_most=MOST_RED_US))
        for entity, value in ((CARD, t.card_id), (MERCHANT, t.merchant_id)):
            size = await client.memory_usage(keys.history(entity, value))
            figures.append(Figure(f"{entity.name} in Redis: {kind}", size or 0, "B", decides=False))
            await client.delete(keys.history(entity, value))
    await client.aclose()
    return figures


async def _write(client: Client, keys: Keys, name: str, count: int) -> Transaction:
    """Write a card and a merchant that each have counted so many transactions; give the next one."""
    rng, now = random.Random(count), int(datetime.now(UTC).timestamp())  # noqa: S311  # chosen to be repeatable
    histories = {entity: History(SHIPPED.plans[entity]) for entity in (CARD, MERCHANT)}
    for second in sorted(now - rng.randrange(40 * DAYS) for _ in range(count)):
        t = Transaction(
            transaction_id="t", card_id=name, merchant_id=name, amount=rng.randrange(100, 50_000), currency="EUR",
            event_time=datetime.fromtimestamp(second, UTC),
        )  # fmt: skip
        for history in histories.values():
            history.count(second, SHIPPED.counted(t, histories[CARD].read(second)))
            if rng.random() < 0.01:  # noqa: PLR2004  # one in a hundred is a fraud
                history.add(second, {Measure.FRAUDS: 1})
    histories[MERCHANT].decisions = dict.fromkeys(range(keys.partitions), 100_000)
    for entity, history in histories.items():
        key = keys.history(entity, name)
        await client.set(key, encode_stamped(history, key, SHIPPED.layout, 1), ex=600)
    return t
