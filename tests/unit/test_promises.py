"""The page of the promises names tests and lines that exist, and shows what they are now."""

import json
from pathlib import Path

import pytest

from interviewer_guide.promises import OUTCOMES, PAGE, SOURCE, Heard, faults, page, promises

ROOT = Path(__file__).parents[2]
WRITE = "python interviewer_guide/promises.py write"

TOML = """\
[[promise]]
id = "P1"
title = "Held"
says = "It holds."
mechanism = '''A door is shut. It
opens with a.key.'''
limits = "None."
code = [{ file = "door.py", line = "shut = 2" }]
tests = ["tests/test_door.py::test_it_is_shut", "tests/test_door.py::test_it_opens"]
results = [{ file = "doors.json", shows = "{doors} doors in {city[name]}" }]
"""
CODE = "shut = 1\n\nshut = 2\n"
TESTS = "def test_it_is_shut():\n    pass\n\n\n@mark\nasync def test_it_opens():\n    pass\n"
RESULT = {"date": "2026-11-02", "doors": [1, 2, 3], "city": {"name": "Bern"}, "machine": {"python": "3.11"}}


@pytest.fixture
def root(tmp_path):
    """A repository of one promise."""
    for file, text in {
        SOURCE: TOML,
        "door.py": CODE,
        "tests/test_door.py": TESTS,
        "doors.json": json.dumps(RESULT),
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    return tmp_path


def ran(root, tests):
    found = {"date": "2026-11-01", "machine": {"redis-server": "7.0.15"}, "tests": tests}
    (root / OUTCOMES).parent.mkdir(exist_ok=True)
    (root / OUTCOMES).write_text(json.dumps(found))


def test_every_promise_is_there():
    assert [promise.id for promise in promises(ROOT)] == ["P1", "P2", "P3", "P4", "P5", "P6", "P7"]


def test_every_test_line_of_code_and_result_it_names_exists():
    assert faults(ROOT) == []


def test_the_page_is_what_would_be_written_now():
    assert (ROOT / PAGE).read_text() == page(ROOT), WRITE


# --- each of these can fail


def test_where_all_is_well_there_is_no_fault(root):
    assert faults(root) == []


@pytest.mark.parametrize(
    ("text", "instead", "fault"),
    [
        ("::test_it_is_shut", "::test_it_is_open", "there is no tests/test_door.py::test_it_is_open"),
        ("test_door.py::test_it_is_shut", "test_gate.py::test_it", "there is no tests/test_gate.py::test_it"),
        ("shut = 2", "shut = 3", "door.py has this 0 times, not once: shut = 3"),
        ("shut = 2", "shut =", "door.py has this 2 times, not once: shut ="),
        ('"door.py"', '"gate.py"', "gate.py has this 0 times, not once: shut = 2"),
        ('"doors.json"', '"gates.json"', "there is no gates.json"),
        ("{doors}", "{gates}", "doors.json cannot be shown as '{gates} doors in {city[name]}': KeyError('gates')"),
        ("A door is shut. It", "It", "the mechanism has not two sentences but 1"),
        ("a.key", "a key. It is old", "the mechanism has not two sentences but 3"),
        ('tests = ["tests/test_door.py::test_it_is_shut", "tests/test_door.py::test_it_opens"]', "tests = []",
         "no tests is named"),
        ('code = [{ file = "door.py", line = "shut = 2" }]', "code = []", "no code is named"),
    ],
)  # fmt: skip
def test_what_is_not_so_is_found_and_named(root, text, instead, fault):
    assert TOML.count(text) == 1
    (root / SOURCE).write_text(TOML.replace(text, instead))
    assert faults(root) == [f"P1: {fault}"]


@pytest.mark.parametrize("file", [SOURCE, "door.py", "tests/test_door.py", "doors.json", OUTCOMES])
def test_the_page_changes_with_everything_it_shows(root, file):
    ran(root, {})
    before = page(root)
    text = (root / file).read_text()
    (root / file).write_text(
        text.replace("It holds", "It held").replace("11-0", "12-0") if "{" in text else "\n" + text
    )
    assert page(root) != before
    (root / file).write_text(text)
    assert page(root) == before


def test_what_was_not_run_yet_says_so(root):
    assert page(root).count("| not run yet |") == 2
    assert "no test was run yet" in page(root)


def test_the_page_shows_lines_outcomes_and_results(root):
    ran(root, {"tests/test_door.py::test_it_opens": {"outcome": "passed", "cases": 3, "seconds": 1.25}})
    lines = page(root).splitlines()
    assert "**Mechanism.** A door is shut. It opens with a.key. Code: [door.py:3](../door.py#L3)." in lines
    assert "| [`test_it_is_shut`](../tests/test_door.py#L1) | not run yet |" in lines
    assert "| [`test_it_opens`](../tests/test_door.py#L6) | passed on 2026-11-01, 3 cases, 1.2 s |" in lines
    assert "**Last result**, [with these versions](#measured-on): 1 of 2 tests passed on 2026-11-01." in lines
    assert "- [doors.json](../doors.json): 3 doors in Bern" in lines
    assert lines[-2:] == [
        f"| [{OUTCOMES}](results/tests.json) | 2026-11-01 | redis-server 7.0.15 |",
        "| [doors.json](../doors.json) | 2026-11-02 | python 3.11 |",
    ]


def test_a_test_is_as_bad_as_the_worst_of_its_cases():
    heard = Heard()
    for case, setup, call in (
        ("good[1]", "passed", "passed"),
        ("good[2]", "passed", "passed"),
        ("half[1]", "passed", "passed"),
        ("half[2]", "skipped", None),
        ("bad[1]", "passed", "failed"),
        ("bad[2]", "skipped", None),
        ("broken", "failed", None),
    ):
        for when, outcome in (("setup", setup), ("call", call), ("teardown", "passed")):
            if outcome:
                heard.pytest_runtest_logreport(
                    pytest.TestReport(case, ("", 0, ""), {}, outcome, None, when, duration=1.5)
                )
    assert {test: (each.outcome, each.cases, each.seconds) for test, each in heard.tests.items()} == {
        "good": ("passed", 2, 3.0),
        "half": ("skipped", 2, 1.5),
        "bad": ("failed", 2, 1.5),
        "broken": ("failed", 1, 0.0),
    }
