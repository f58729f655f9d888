"""Transactions that happen now: the simulator's cards, merchants and amounts under new ids."""

import itertools
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from feature_store.transaction import Transaction
from model.simulator import Parameters, simulate


def live_transactions(seed: int) -> Iterator[bytes]:
    """Give request bodies for ever, stamped with the time at which they are asked for."""
    run = uuid.uuid4().hex[:12]
    templates = [row.transaction for row in simulate(Parameters(days=7, seed=seed))]
    for number, template in enumerate(itertools.cycle(templates)):
        yield _now(template, f"load-{run}-{number}")


def _now(template: Transaction, transaction_id: str) -> bytes:
    return msgspec.json.encode(
        msgspec.structs.replace(template, transaction_id=transaction_id, event_time=datetime.now(UTC))
    )
