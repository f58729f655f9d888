"""What several processes open alike: the composition roots are built from these."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from feature_store.decision_store import RedisDecisionStore
from feature_store.feature_set import FeatureSet
from feature_store.features import SHIPPED
from feature_store.gate import Gate, Gates
from feature_store.keys import Keys
from feature_store.layout import claim_layout
from feature_store.redis_client import UNAVAILABLE, Client, connect
from feature_store.round_trips import RoundTrips
from feature_store.scripts import ClosedError
from feature_store.transaction import EARLIEST
from model.scorer import load_scorer
from services.decision.decide import Decide
from services.decision.policy import Policy
from services.metrics import Metrics
from services.settings import Settings

LOOK_SECONDS = 0.1
"""Between two looks whether the gates are open."""


@dataclass(frozen=True, slots=True)
class Deciding:
    """The use case, and the store it looks decisions up in."""

    decide: Decide
    store: RedisDecisionStore
    gates: Gates


@contextlib.asynccontextmanager
async def open_redis(settings: Settings, *, patience: float | None = None) -> AsyncIterator[Client]:
    """Open a client; `patience` is the longest wait for work that no caller waits for."""
    client = connect(
        settings.redis_url, timeout=patience or settings.redis_timeout_seconds, cluster=settings.redis_cluster
    )
    try:
        yield client
    finally:
        await client.aclose()


@contextlib.asynccontextmanager
async def open_deciding(
    settings: Settings, metrics: Metrics, *, patience: float | None = None, features: FeatureSet = SHIPPED
) -> AsyncIterator[Deciding]:
    """Open everything `decide` needs; `patience` as in `open_redis`.

    Raises:
        model.scorer.ModelRefusedError: the model cannot be used, with the reason.
    """
    scorer = load_scorer(settings.model_dir, features)
    thresholds = scorer.manifest.thresholds
    policy = Policy(review=thresholds.review, decline=thresholds.decline, names=features.names)
    metrics.serving.labels(scorer.version, policy.version, features.fingerprint).set(1)
    keys = Keys(settings.partitions)
    async with open_redis(settings, patience=patience) as client:
        keep_seconds = settings.decided_days * 86_400
        store = RedisDecisionStore(RoundTrips(client), keys, features, keep_seconds=keep_seconds)
        await claim_layout(client, features, settings.partitions)
        await store.prepare()
        decide = Decide(store=store, model=scorer, policy=policy, metrics=metrics, now=utc_now, features=features)
        yield Deciding(decide, store, Gates(client, keys))


async def redis_problem(client: Client) -> str | None:
    """Tell why Redis cannot be used, or None."""
    try:
        await client.ping()
    except UNAVAILABLE as error:
        return f"Redis does not answer: {type(error).__name__}"
    return None


async def closed_problem(gates: Gates) -> str | None:
    """Tell why nothing can be written to state, or None."""
    try:
        await gates.all_open()
    except ClosedError:
        return "state is being brought up to the log: a relay does that"
    except UNAVAILABLE as error:
        return f"Redis does not answer: {type(error).__name__}"
    return None


async def when_open(gates: Gates, stop: asyncio.Event) -> list[Gate]:
    """Wait until all gates are open; gives none if it was told to stop before."""
    while not stop.is_set():
        with contextlib.suppress(ClosedError):
            return await gates.all_open()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
    return []


def oldest_accepted(settings: Settings, now: datetime) -> datetime:
    """Give the event time before which the doors refuse a transaction."""
    return now - timedelta(days=settings.oldest_event_days) if settings.oldest_event_days else EARLIEST


def utc_now() -> datetime:
    """Read the wall clock."""
    return datetime.now(UTC)
