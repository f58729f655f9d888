from dataclasses import replace
from datetime import timedelta

import pytest

from model.dataset import build
from model.fraud_patterns import Rates
from model.simulator import Parameters, simulate
from model.split import Settings, split
from model.train import fit, train

SMALL = Parameters(cards=350, merchants=120, days=40, rates=Rates(merchants=1.0, cards=2.0, lists=0.4))
SETTINGS = replace(
    Settings(),
    choosing=timedelta(days=6),
    testing=timedelta(days=6),
    trees=30,
    learning_rate=0.1,
    genuine_rows=3_000,
)


@pytest.fixture(scope="session")
def small():
    """A simulation of some 20,000 transactions with every pattern in it."""
    return simulate(SMALL)


@pytest.fixture(scope="session")
def settings():
    return SETTINGS


@pytest.fixture(scope="session")
def data(small):
    return build(small)


@pytest.fixture(scope="session")
def parts(data, settings):
    return split(data, settings)


@pytest.fixture(scope="session")
def fitted(parts, settings):
    """A classifier, and the share of genuine transactions it saw."""
    return fit(parts.train, settings)


@pytest.fixture(scope="session")
def shipped(small, settings, tmp_path_factory):
    """A directory with a trained model."""
    folder = tmp_path_factory.mktemp("shipped")
    train(small, folder, source="simulator", details={}, settings=settings)
    return folder
