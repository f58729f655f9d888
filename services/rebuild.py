"""`fraud rebuild`: forgets all state in Redis and makes it again from the log, also while the system runs.

Decisions wait meanwhile (the gates are closed). What is decided and not published yet is published first.
"""

import uuid
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer

from feature_store.codec import CorruptStateError
from feature_store.feature_set import FeatureSet
from feature_store.features import SHIPPED
from feature_store.gate import Gate, Gates
from feature_store.keys import Keys
from feature_store.layout import give_layout
from feature_store.lease import Lease
from feature_store.outbox import Outbox
from feature_store.redis_client import Client
from feature_store.scripts import ClosedError
from services.kafka import open_producer, open_reader
from services.recovery import Advance, Recoveries
from services.relay import LEASE_MILLISECONDS, MOST_BYTES, MOST_RECORDS, RECOVERY_LEASE, publish
from services.resources import open_redis, utc_now
from services.settings import Settings

MOST_KEYS = 1_000


class BusyError(RuntimeError):
    """Somebody else is bringing state up to the log."""


async def rebuild(settings: Settings, advance: Advance, features: FeatureSet = SHIPPED) -> int:
    """Rebuild all state; gives how many keys were forgotten.

    Raises:
        BusyError: a recovery or another rebuild is at it.
        ClosedError: a server was started again meanwhile; a relay recovers what is missing, or begin again.
    """
    keys = Keys(settings.partitions)
    async with (
        open_redis(settings, patience=settings.redis_patience_seconds) as client,
        open_producer(settings, most_bytes=MOST_BYTES) as producer,
        open_reader(settings) as reader,
    ):
        lease = Lease(client, RECOVERY_LEASE, owner=uuid.uuid4().hex, milliseconds=LEASE_MILLISECONDS)
        if not await lease.take():
            raise BusyError("a relay or another rebuild is bringing state up to the log; try again when it is done")

        recoveries = Recoveries(settings, client, keys, features)

        async def recover(tell: Advance) -> None:
            await (await recoveries.begin(reader)).run(producer, utc_now(), tell)

        async with lease.kept():
            gates = Gates(client, keys)
            try:
                await gates.all_open()
            except ClosedError:  # which epoch is in force only a recovery finds out: what is published now must count
                try:
                    await recover(_untold)
                except CorruptStateError:  # of histories, which are made again anyway
                    await _forget_histories(client, features)
                    await recover(_untold)
            closed = await gates.close(uuid.uuid4().hex)
            await _drain(client, keys, closed, producer)
            forgotten = await _forget(client, keys)
            await give_layout(client, features, settings.partitions)
            await recover(advance)
    return forgotten


async def _drain(client: Client, keys: Keys, closed: list[Gate], producer: AIOKafkaProducer) -> None:
    """Publish what the outboxes hold. A relay that is doing the same makes repetitions, which have no effect."""
    outbox, partitions = Outbox(client, keys, closed), range(keys.partitions)
    epochs = {partition: gate.epoch for partition, gate in enumerate(closed)}
    while entries := await outbox.read(partitions, MOST_RECORDS):
        await outbox.trim(await publish(producer, epochs, entries))


def _untold(_done: int, _total: int) -> None:
    """Tell nobody how far it is."""


async def _forget_histories(client: Client, features: FeatureSet) -> None:
    for entity in features.entities:
        await _delete(client, [key async for key in client.scan_iter(match=f"{{*}}{entity.name}:*", count=MOST_KEYS)])


async def _forget(client: Client, keys: Keys) -> int:
    """Delete every key of state. Gates stay, closed, and so do leases."""
    partitions = range(keys.partitions)
    kept = {name.encode() for partition in partitions for name in (keys.gate(partition), keys.relay_lease(partition))}
    found = [key async for key in client.scan_iter(match="{*}*", count=MOST_KEYS) if key not in kept]
    await _delete(client, found)
    return len(found)


async def _delete(client: Client, names: Sequence[bytes]) -> None:
    for first in range(0, len(names), MOST_KEYS):
        pipeline: Any = client.pipeline(transaction=False)
        for name in names[first : first + MOST_KEYS]:
            pipeline.execute_command("UNLINK", name)  # one key each: they live apart on a cluster
        await pipeline.execute()
