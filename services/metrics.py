"""The catalogue of all metrics: what each means, in which process, and what to do about it. There are no others."""

import itertools
from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics

from services.decision.policy import CAUSES, Action
from services.decision.record import BEFORE_COMMIT
from services.stage_times import StageTimes
from services.topics import DECISIONS, LABELS, TRANSACTIONS

STAGES = (*BEFORE_COMMIT, "commit")
DOORS = ("http", "kafka")
OUTCOMES = (
    *("decided", "repeated", "conflict", "invalid"),  # transactions
    *("found", "not_found", "accepted"),  # look-ups and labels
    *("unavailable", "closed", "contended", "failed"),  # our fault: 503, or 500
)


class Metrics:
    """All metrics of one process, in a registry of its own (tests make as many as they like)."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series a counter, which nothing asks for
        self.registry = CollectorRegistry()

        # --- traffic, errors and latency at the doors (api, worker) ---

        # Everything that came through a door. Watch the share of the last four outcomes: no decision was given.
        # unavailable: Redis or Kafka did not answer. closed: state is being brought up to the log. contended: a card
        # written by other processes all the time. failed: a bug, or damaged state.
        self.requests = self._counter("requests", "Requests and records", door=DOORS, outcome=OUTCOMES)
        self._requests = {
            (door, outcome): self.requests.labels(door, outcome) for door in DOORS for outcome in OUTCOMES
        }
        # First decisions only; a repeat is not a decision. A sudden shift between actions is model or data trouble.
        self.decisions = self._counter("decisions", "Decisions committed, by action", action=list(Action))
        self._decisions = {action: self.decisions.labels(action) for action in Action}
        # Where the 200 ms go. stage: wait (for the card's turn) | read | features | score | judge | commit, and total
        # (from first byte to answer). `wait` high and `read` low: a hot card, not a slow Redis.
        self._stages = StageTimes("fraud_stage_seconds", "Time per stage of a decision", ("total", *STAGES))
        self.registry.register(self._stages)

        # --- the exactly-once machinery (api, worker, updater) ---

        # A card moved between read and commit and was scored again. High: one card hammered over several processes.
        self.commit_conflicts = self._counter("commit_conflicts", "Commits refused because the card had moved")
        # Something came again and had no second effect. what: decision | count.
        self.repeats = self._counter("repeats", "Repetitions that had no effect", what=("decision", "count"))
        # Decisions that had to do without something and say so. cause: merchant_lag | late.
        self.degraded = self._counter("degraded_decisions", "Decisions marked as degraded", cause=CAUSES)

        # --- the log and what follows it (relay, worker, updater; merchant_lag also at the API) ---

        # Records committed but not yet in topic `decisions`. Growing: relay down or Kafka away. Decisions go on.
        self.outbox_length = self._gauge("outbox_length", "Records waiting for the relay")
        # Records the relay has published, repetitions after a crash included.
        self.published = self._counter("published", "Records published to topic decisions")
        # Event time by which merchant state was behind at the last decision. Above 120 decisions are marked.
        self.merchant_lag = self._gauge("merchant_lag_seconds", "Event time that merchant state is behind")
        # Records behind the end of the topic, per partition.
        self.consumer_lag = self._gauge("consumer_lag_records", "Records not processed yet", "topic", "partition")
        # Chargebacks applied to state. outcome: applied | repeated.
        self.labels = self._counter("labels", "Labels by outcome", outcome=("applied", "repeated"))
        # Records set aside because no retry can help. Each holds its cause; look at them.
        self.dead_letters = self._counter(
            "dead_letters", "Records sent to a dead-letter topic", topic=(TRANSACTIONS, DECISIONS, LABELS)
        )
        # Sequence numbers that never came: the log lost records. Never above 0 on a durable broker.
        self.sequence_gaps = self._counter("sequence_gaps", "Sequence numbers missing in topic decisions")

        # --- what runs (api, worker) ---

        # Model digest, policy and features version: joins every other series to what produced it.
        self.serving = self._gauge(
            "serving_info", "Always 1; the labels say what runs", "model", "policy", "features_version"
        )

    def count_request(self, door: str, outcome: str) -> None:
        """Count what came through a door."""
        self._requests[door, outcome].inc()

    def observe_stages(self, seconds: Mapping[str, float]) -> None:
        """Take in how long each stage of a decision took."""
        self._stages.observe(seconds)

    def count_decision(self, action: Action, degraded: Sequence[str]) -> None:
        """Count a decision that was committed."""
        self._decisions[action].inc()
        for cause in degraded:
            self.degraded.labels(cause).inc()

    def _counter(self, name: str, text: str, **labels: Sequence[str]) -> Counter:
        """Make a counter that starts at 0 for all known label values: one born at 1 would have no rate."""
        counter = Counter(f"fraud_{name}", text, list(labels), registry=self.registry)
        for values in itertools.product(*labels.values()) if labels else ():
            counter.labels(*values)
        return counter

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"fraud_{name}", text, labels, registry=self.registry)
