"""What the README shows is what runs."""

import json
import re
from pathlib import Path

import pytest

from feature_store.features import SHIPPED
from services.decision.record import BEFORE_COMMIT, Answer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_answer_it_shows_has_the_fields_of_an_answer():
    shown = json.loads(re.search(r"```json\n(.*?)```", README, re.DOTALL)[1])
    assert tuple(shown) == Answer.__struct_fields__


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "interviewer_guide/README.md"])
def test_every_file_a_page_names_exists(page):
    text = (ROOT / page).read_text()
    names = re.findall(r"`((?:\w+/)+[\w.]*)`", text) + re.findall(r"\]\(([^)#:]+)\)", text)
    missing = [name for name in names if not (ROOT / name).exists() and not ((ROOT / page).parent / name).exists()]
    assert not [name for name in missing if not name.startswith("var/")]
    assert len(names) > 3


def test_every_number_it_gives_is_in_the_result_of_the_load_run():
    result = json.loads((ROOT / "loadtest" / "results" / "load.json").read_text())
    verdict = result["verdict"]
    measured = README.split("## Measured")[1].split("##")[0]
    for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms"):
        assert f"| {verdict[name]:.1f} " in measured
    assert f"| {verdict['scheduled']} | {verdict['late']} | {verdict['failed'] + verdict['unsent']} |" in measured
    assert all(result["machine"][name] in measured for name in ("processor", "python", "redis", "onnxruntime"))


def test_every_figure_of_the_bench_is_in_its_result():
    result = json.loads((ROOT / "interviewer_guide" / "results" / "bench.json").read_text())
    figures = {figure["name"]: figure["value"] for figure in result["figures"]}
    every = sum(figures[f"CPU a decision: {name}"] for name in ("api", "relay", "updater", "redis", "kafka"))
    shown = (
        f"| {figures['CPU a request: empty FastAPI endpoint, 32 callers, one core']:.0f} us"
        f" | {figures['CPU a decision: api, 32 callers, one core']:.0f} us | {figures['ratio of the two']:.2f}"
        f" | {every:.0f} us | {figures['Redis, read for one decision: 3,000 transactions in 40 days']:.1f} us |"
    )
    assert shown in README


def test_the_answer_it_shows_is_of_what_ships():
    shown = json.loads(re.search(r"```json\n(.*?)```", README, re.DOTALL)[1])
    assert shown["features_version"] == SHIPPED.fingerprint
    assert tuple(shown["stage_ms"]) == BEFORE_COMMIT


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)", README)) <= targets | {"and"}
