"""Where a decision's time goes, as a histogram. The client's own would take a tenth of it: seven observations each."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

BUCKETS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0,
)  # fmt: skip
"""Seconds. The budget, 0.2, is an edge, so 'within the budget' is an exact count and not an interpolation."""


class StageTimes(Collector):
    """A histogram with the label `stage`. For one thread, as a process's event loop is."""

    def __init__(self, name: str, text: str, stages: Iterable[str]) -> None:
        self._name = name
        self._text = text
        self._counts = {stage: [0] * (len(BUCKETS) + 1) for stage in stages}
        self._sums = dict.fromkeys(self._counts, 0.0)

    def observe(self, seconds: Mapping[str, float]) -> None:
        """Take in how long each of some stages took."""
        for stage, took in seconds.items():
            self._counts[stage][bisect_left(BUCKETS, took)] += 1
            self._sums[stage] += took

    def collect(self) -> Iterator[Metric]:
        """Give all of it, as Prometheus asks for it."""
        family = HistogramMetricFamily(self._name, self._text, labels=["stage"])
        edges = [*map(floatToGoString, BUCKETS), "+Inf"]
        for stage, counts in self._counts.items():
            up_to = [sum(counts[: index + 1]) for index in range(len(counts))]
            family.add_metric([stage], list(zip(edges, up_to, strict=True)), self._sums[stage])
        yield family
