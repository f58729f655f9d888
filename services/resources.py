"""What several processes open alike: the composition roots are built from these."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

from feature_store.decision_store import RedisDecisionStore
from feature_store.definitions import FINGERPRINT
from feature_store.keys import Keys
from feature_store.layout import claim_layout
from feature_store.pending import Pending
from feature_store.redis_client import UNAVAILABLE, Client, connect
from model.scorer import load_scorer
from services.decision.decide import Decide
from services.decision.freshness import Freshness
from services.decision.policy import Policy
from services.metrics import Metrics
from services.settings import Settings

LOOK_SECONDS = 0.1
"""How often a deciding process looks how far merchant state is."""


@dataclass(frozen=True, slots=True)
class Deciding:
    """The use case, and the store it looks decisions up in."""

    decide: Decide
    store: RedisDecisionStore
    redis: Client


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
    settings: Settings, metrics: Metrics, *, patience: float | None = None
) -> AsyncIterator[Deciding]:
    """Open everything `decide` needs; `patience` as in `open_redis`.

    Raises:
        model.scorer.ModelRefusedError: the model cannot be used, with the reason.
    """
    scorer = load_scorer(settings.model_dir)
    policy = Policy(review=scorer.manifest.thresholds.review, decline=scorer.manifest.thresholds.decline)
    metrics.serving.labels(scorer.version, policy.version, FINGERPRINT).set(1)
    keys = Keys(settings.partitions)
    async with open_redis(settings, patience=patience) as client:
        store = RedisDecisionStore(client, keys, keep_seconds=settings.decided_days * 86_400)
        await claim_layout(client, settings.partitions)
        await store.prepare()
        merchants = Freshness(Pending(client, keys))
        async with merchants.watching(LOOK_SECONDS):
            decide = Decide(store=store, model=scorer, policy=policy, merchants=merchants, metrics=metrics, now=utc_now)
            yield Deciding(decide, store, client)


async def redis_problem(client: Client) -> str | None:
    """Tell why Redis cannot be used, or None."""
    try:
        await client.ping()
    except UNAVAILABLE as error:
        return f"Redis does not answer: {type(error).__name__}"
    return None


def utc_now() -> datetime:
    """Read the wall clock."""
    return datetime.now(UTC)
