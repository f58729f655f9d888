"""Guards the state in Redis: processes whose tiles hold something else must not read it, nor count into it."""

from typing import Any

from feature_store.feature_set import FeatureSet
from feature_store.redis_client import Client

KEY = "layout"


class LayoutError(RuntimeError):
    """The state in Redis was counted for other features or another number of partitions."""


async def claim_layout(client: Client, features: FeatureSet, partitions: int) -> None:
    """Mark empty state as ours, or make sure that it is.

    Raises:
        LayoutError: it is not. Going on would give features that no training has seen.
    """
    ours = _ours(features, partitions)
    await client.set(KEY, ours, nx=True)
    found: Any = await client.get(KEY)
    if found.decode() != ours:
        raise LayoutError(
            f"the state in Redis has layout {found.decode()}, this process has {ours} (tiles/partitions):"
            " its features or FRAUD_PARTITIONS changed. Make it again from the log (fraud rebuild), or start from empty"
            " state (remove var/), or go back"
        )


async def give_layout(client: Client, features: FeatureSet, partitions: int) -> None:
    """Mark state as ours, whatever it was: it is made anew."""
    await client.set(KEY, _ours(features, partitions))


def _ours(features: FeatureSet, partitions: int) -> str:
    return f"{features.layout.hex()}/{partitions}"
