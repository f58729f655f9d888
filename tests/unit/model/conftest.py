from dataclasses import replace
from datetime import timedelta

import pytest

from model.dataset import build
from model.fraud_patterns import Rates
from model.simulator import Parameters, simulate
from model.split import Settings, split
from model.train import fit

SMALL = Parameters(cards=120, merchants=50, days=30, rates=Rates(merchants=3.0, cards=4.0, lists=1.0))
SETTINGS = replace(Settings(), choosing=timedelta(days=4), testing=timedelta(days=4), trees=12, genuine_rows=800)


@pytest.fixture(scope="session")
def small():
    """A simulation of some 5,000 transactions with every pattern in it."""
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
