from feature_store.tables import read_table, write_table
from model.dataset import build
from services.audit.export import rows
from services.decision.record import features_of


def test_what_is_exported_trains_on_what_was_served(story, tmp_path):
    log, path = story.log(), tmp_path / "log.parquet"
    write_table(path, rows(log))
    table = read_table(path, as_decided=True)
    assert (table.order, len(table)) == ("decided_at", len(log))
    assert [row.is_fraud for row in table].count(True) == len(log.labels) > 0
    cards = slice(0, 12)  # merchants of the story lag
    served = {record.transaction.transaction_id: record.features[cards] for record in log}
    features = dict(zip(sorted(served, key=lambda name: _second(log, name)), build(list(table)).features, strict=True))
    for name, row in features.items():
        assert features_of(row[cards].tolist()) == served[name]


def _second(log, name):
    return next(record.transaction.second for record in log if record.transaction.transaction_id == name)
