"""A decider over the store in memory, whose model shows what a decision has seen."""

from types import SimpleNamespace

import pytest
from logged import NOW
from memory_store import MemoryStore

from feature_store.features import SHIPPED
from feature_store.keys import Keys
from services.decision.decide import Decide
from services.decision.policy import Policy
from services.decision.record import decode_record, placed
from services.metrics import Metrics


class Model:
    """Scores the card's velocity in hundredths."""

    version = "model"

    def score(self, row):
        return float(row[SHIPPED.names.index("card_count_10m")]) / 100


@pytest.fixture
def deciding():
    """`deciding(store)`: the use case over it, its records, and the value of a metric."""

    def make(store=None, *, model=None, features=SHIPPED):
        store, metrics = store or MemoryStore(Keys(12), features), Metrics()
        policy = Policy(review=0.5, decline=0.8, rules=(), names=features.names)
        decide = Decide(
            store=store, model=model or Model(), policy=policy, metrics=metrics, now=lambda: NOW, features=features
        )

        def records():
            return [decode_record(placed(raw, 0, partition, sequence)) for partition, sequence, raw in store.log]

        def counted(name, **labels):
            return metrics.registry.get_sample_value(f"fraud_{name}", labels)

        return SimpleNamespace(decide=decide, store=store, records=records, counted=counted)

    return make
