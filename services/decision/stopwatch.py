"""Measures where the time of one decision goes."""

from collections.abc import Iterable
from time import perf_counter


class Stopwatch:
    """Measures consecutive stages; a stage passed again adds up."""

    def __init__(self) -> None:
        self._last = perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """End `stage` now."""
        now = perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def milliseconds(self, stages: Iterable[str]) -> dict[str, float]:
        """Give some stages that are over, to the microsecond."""
        return {stage: round(self.seconds[stage] * 1_000_000) / 1_000 for stage in stages}
