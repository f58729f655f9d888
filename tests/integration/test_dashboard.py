"""The dashboard asks for what exists, and every panel says what to do; with a running Prometheus, each has data."""

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import Metric

from services.metrics import Metrics

OBSERVABILITY = Path(__file__).parents[2] / "services" / "observability"
DASHBOARD = json.loads((OBSERVABILITY / "grafana" / "dashboards" / "fraud.json").read_text())
PANELS = DASHBOARD["panels"]
TARGETS = [target for panel in PANELS for target in panel.get("targets", ())]
EXPRESSIONS = list(dict.fromkeys(target["expr"] for target in TARGETS))

SERIES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
FROM_PROMETHEUS = {"up"}
LABELS_FROM_PROMETHEUS = {"job", "le"}
WORDS = {"by", "or", "sum", "max", "count", "rate", "vector", "histogram_quantile", "max_over_time"}
INTERVALS = {"$__rate_interval": "1m", "$__range": "5m"}
PROMETHEUS = os.environ.get("FRAUD_PROMETHEUS_URL")


def in_catalogue() -> list[Metric]:
    return list(Metrics().registry.collect())


def series() -> Iterator[str]:
    for family in in_catalogue():
        yield from (family.name + suffix for suffix in SERIES[family.type])


def names(expression: str) -> set[str]:
    """What is left of an expression when strings, selectors, ranges, groupings and PromQL's own words are gone."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|by \([^)]*\)', " ", expression)
    return set(re.findall(r"[A-Za-z_:][\w:]*", bare)) - WORDS


def labels(expression: str) -> set[str]:
    """The labels that are selected or grouped by."""
    bare = re.sub(r'"[^"]*"', " ", expression)
    grouped = re.findall(r"by \(([^)]*)\)", bare)
    selected = [
        label for selector in re.findall(r"\{([^}]*)\}", bare) for label in re.findall(r"(\w+)\s*!?=", selector)
    ]
    return {label.strip() for group in grouped for label in group.split(",")} | set(selected)


def test_there_are_panels_and_expressions():
    assert len(PANELS) > 10
    assert len(EXPRESSIONS) > 20


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_asks_only_for_metrics_of_the_catalogue(expression):
    assert names(expression)
    assert names(expression) <= set(series()) | FROM_PROMETHEUS


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_uses_only_labels_of_the_catalogue(expression):
    declared = {name for metric in vars(Metrics()).values() for name in getattr(metric, "_labelnames", ())}
    declared |= {name for family in in_catalogue() for sample in family.samples for name in sample.labels}
    assert labels(expression) <= declared | LABELS_FROM_PROMETHEUS


def test_every_metric_of_the_catalogue_is_on_the_dashboard():
    shown = set().union(*(names(expression) for expression in EXPRESSIONS))
    for family in in_catalogue():
        assert shown & {family.name + suffix for suffix in SERIES[family.type]}, f"{family.name} is on no panel"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_has_a_title_and_says_what_to_do(panel):
    assert panel["title"].strip()
    assert len(panel["description"]) > 40


def test_every_panel_and_query_uses_the_provisioned_data_source():
    provisioned = (OBSERVABILITY / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text()
    (uid,) = re.findall(r"^ *uid: (\S+)$", provisioned, flags=re.MULTILINE)
    used = [panel["datasource"] for panel in PANELS if panel["type"] != "row"]
    used += [target["datasource"] for target in TARGETS]
    assert used == [{"type": "prometheus", "uid": uid}] * len(used)


def test_every_job_on_the_dashboard_is_scraped():
    scraped = re.findall(r"job_name: (\w+)", (OBSERVABILITY / "prometheus.yml").read_text())
    asked = {job for expression in EXPRESSIONS for job in re.findall(r'job="(\w+)"', expression)}
    assert asked == set(scraped)


@pytest.mark.skipif(PROMETHEUS is None, reason="FRAUD_PROMETHEUS_URL names no running Prometheus; .ci/compose does")
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_gives_numbers_while_there_is_traffic(expression):
    for variable, length in INTERVALS.items():
        expression = expression.replace(variable, length)  # as Grafana does
    answer = httpx.get(f"{PROMETHEUS}/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", answer
    result = answer["data"]["result"]
    assert any(math.isfinite(float(sample["value"][1])) for sample in result), result
