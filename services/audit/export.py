"""The log as a table to train on: what was decided, in that order, with the labels that have come."""

from collections.abc import Iterator

from feature_store.tables import Row
from services.audit.whole_log import Log


def rows(log: Log) -> Iterator[Row]:
    """Give every decision that counts, in the order in which they were decided."""
    for record in sorted(log, key=lambda record: record.decided_at):
        t = record.transaction
        logged = log.labels.get((t.card_id, t.transaction_id))
        yield Row(t, is_fraud=logged.label.is_fraud if logged else None, decided_at=record.decided_at)
