import pytest

from services.settings import Settings
from services.stack import broker
from services.stack.broker import APACHE_KAFKA, EXTERNAL, LIBRDKAFKA, pick
from services.stack.errors import StackError


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("FRAUD_KAFKA_BOOTSTRAP", "FRAUD_BROKER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def java(monkeypatch):
    monkeypatch.setattr(broker, "available", lambda: None)


@pytest.fixture
def no_java(monkeypatch):
    monkeypatch.setattr(broker, "available", lambda: "there is no java on PATH")


def test_an_address_in_the_environment_is_a_running_broker(monkeypatch, java):
    monkeypatch.setenv("FRAUD_KAFKA_BOOTSTRAP", "127.0.0.1:9092")
    assert pick(Settings()) is EXTERNAL


def test_apache_kafka_is_picked_where_it_can_run(java):
    assert pick(Settings()) is APACHE_KAFKA


def test_librdkafkas_broker_runs_where_apache_kafka_cannot(no_java):
    assert pick(Settings()) is LIBRDKAFKA


def test_fraud_broker_forces_librdkafkas(monkeypatch, java):
    monkeypatch.setenv("FRAUD_BROKER", "librdkafka")
    assert pick(Settings()) is LIBRDKAFKA


def test_fraud_broker_forces_an_own_broker(monkeypatch, java):
    monkeypatch.setenv("FRAUD_KAFKA_BOOTSTRAP", "127.0.0.1:9092")
    monkeypatch.setenv("FRAUD_BROKER", "apache")
    assert pick(Settings()) is APACHE_KAFKA


def test_forcing_apache_kafka_where_it_cannot_run_gives_the_reason(no_java):
    with pytest.raises(StackError, match="there is no java on PATH"):
        pick(Settings(broker="apache"))


def test_librdkafkas_broker_imposes_its_four_partitions():
    assert [choice.partitions for choice in (EXTERNAL, APACHE_KAFKA, LIBRDKAFKA)] == [None, None, 4]
