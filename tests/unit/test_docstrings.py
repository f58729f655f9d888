"""Every example in a docstring gives what it says."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITH_EXAMPLES = sorted(
    file.relative_to(ROOT).as_posix()
    for package in ("feature_store", "model", "services", "loadtest")
    for file in (ROOT / package).rglob("*.py")
    if ">>> " in file.read_text()
)


@pytest.mark.parametrize("file", WITH_EXAMPLES)
def test_the_examples_of_a_module_hold(file):
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def test_there_are_examples():
    assert "feature_store/rates.py" in WITH_EXAMPLES
