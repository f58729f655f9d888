"""What the README shows is what runs."""

import json
import re
from pathlib import Path

import pytest

from feature_store.definitions import FINGERPRINT
from model.scorer import load_scorer
from services.decision.policy import Policy
from services.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_answer_it_shows_is_the_answer_of_the_model_that_ships():
    shown = json.loads(re.search(r"```json\n(.*?)```", README, re.DOTALL)[1])
    scorer = load_scorer(Settings().model_dir)
    policy = Policy(review=scorer.manifest.thresholds.review, decline=scorer.manifest.thresholds.decline)
    assert (shown["model"], shown["policy"], shown["features_version"]) == (
        scorer.version,
        policy.version,
        FINGERPRINT,
    )


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "interviewer_guide/README.md"])
def test_every_file_a_page_names_exists(page):
    text = (ROOT / page).read_text()
    names = re.findall(r"`((?:\w+/)+[\w.]*)`", text) + re.findall(r"\]\(([^)#:]+)\)", text)
    missing = [name for name in names if not (ROOT / name).exists() and not ((ROOT / page).parent / name).exists()]
    assert not [name for name in missing if not name.startswith("var/")]
    assert len(names) > 3


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)", README)) <= targets | {"and"}
