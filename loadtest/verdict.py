"""The verdict: exact counts of what was late or failed, against what was scheduled. No buckets, no averages."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Samples:
    """Seconds from intended start to answer of every good answer, and how many had none."""

    seconds: list[float] = field(default_factory=list)
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """At most `allowed` (a share of all scheduled) may be late, failed or not sent at all."""

    scheduled: int
    answered: int
    late: int
    failed: int
    unsent: int
    budget_ms: float
    allowed: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float

    @property
    def passed(self) -> bool:
        """Whether the promise held."""
        return self.scheduled > 0 and self.late + self.failed + self.unsent <= self.allowed * self.scheduled

    def as_json(self) -> dict[str, Any]:
        """Give everything, for a result file."""
        return asdict(self) | {"passed": self.passed}

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{'PASS' if self.passed else 'FAIL'}: of {self.scheduled} scheduled {self.late} took longer than"
            f" {self.budget_ms:g} ms, {self.failed} failed, {self.unsent} were not sent (allowed: {self.allowed:.2%});"
            f" from intended start p50 {self.p50_ms:.1f}, p95 {self.p95_ms:.1f}, p99 {self.p99_ms:.1f},"
            f" max {self.max_ms:.1f} ms"
        )


def judge(samples: Samples, *, scheduled: int, budget_ms: float, allowed: float) -> Verdict:
    """Count. A request that neither was answered nor failed was never sent."""
    ordered = sorted(second * 1_000 for second in samples.seconds)
    return Verdict(
        scheduled=scheduled,
        answered=len(ordered),
        late=sum(value > budget_ms for value in ordered),
        failed=samples.failures,
        unsent=scheduled - len(ordered) - samples.failures,
        budget_ms=budget_ms,
        allowed=allowed,
        p50_ms=percentile(ordered, 50),
        p95_ms=percentile(ordered, 95),
        p99_ms=percentile(ordered, 99),
        max_ms=percentile(ordered, 100),
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Give the smallest sample that at least `percent` of all do not exceed (nearest rank); NaN if there is none."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]
