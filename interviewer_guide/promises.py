"""Writes promises.md: what the system promises, how it keeps it, which tests prove it, and how they last came out.

The words are in promises.toml, the outcomes in results/. What either names must exist, or nothing is written.
"""  # noqa: INP001  # a script of the guide, no package

import ast
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

from loadtest.machine import describe_machine
from services.stack.kafka_jars import VERSION, available
from services.stack.redis_server import find_redis, redis_version

ROOT = Path(__file__).parents[1]
GUIDE = Path("interviewer_guide")
SOURCE = GUIDE / "promises.toml"
PAGE = GUIDE / "promises.md"
OUTCOMES = GUIDE / "results" / "tests.json"
SENTENCES = 2
OUTCOME = ("passed", "skipped", "failed")
"""From good to bad: a test is as bad as the worst of its cases."""
HEAD = """\
<!-- Written by promises.py from promises.toml and results/: change those, then `make promises`. -->
# Promises

What this system promises, how it keeps it, the tests that prove it, and how they last came out. `make promises` runs
these tests and writes this page; `python interviewer_guide/promises.py write` only writes it, after a line has moved.
"""


class Code(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of code, by a piece of text that occurs once in its file."""

    file: str
    line: str


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of measured numbers, and what to show of it: a format string over its values, lists by their length."""

    file: str
    shows: str


class Promise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One promise. Line breaks in its texts mean nothing; a test is `file::name` and stands for all of its cases."""

    id: str
    title: str
    says: str
    mechanism: str
    limits: str
    code: tuple[Code, ...]
    tests: tuple[str, ...]
    results: tuple[Result, ...] = ()


class Outcome(msgspec.Struct):
    """What became of all cases of one test; `seconds` is without the servers that they share."""

    outcome: str = "passed"
    cases: int = 0
    seconds: float = 0.0


class Run(msgspec.Struct, frozen=True):
    """The file results/tests.json."""

    date: str
    machine: dict[str, str]
    tests: dict[str, Outcome]


def promises(root: Path) -> tuple[Promise, ...]:
    """Read promises.toml."""
    return msgspec.toml.decode((root / SOURCE).read_bytes(), type=dict[str, tuple[Promise, ...]])["promise"]


def faults(root: Path) -> list[str]:
    """Say what promises.toml names that is not so, or leaves out; empty when all is well."""
    return [f"{promise.id}: {fault}" for promise in promises(root) for fault in _faults(root, promise)]


def _faults(root: Path, promise: Promise) -> Iterator[str]:
    sentences = re.split(r"(?<=[.!?])\s+", promise.mechanism.strip())
    if len(sentences) != SENTENCES:
        yield f"the mechanism has not two sentences but {len(sentences)}"
    yield from (f"no {what} is named" for what in ("tests", "code") if not getattr(promise, what))
    yield from (f"there is no {test}" for test in promise.tests if _line_of_test(root, test) is None)
    for code in promise.code:
        count = (root / code.file).read_text().count(code.line) if (root / code.file).is_file() else 0
        if count != 1:
            yield f"{code.file} has this {count} times, not once: {code.line}"
    for result in promise.results:
        try:
            _shown(root, result)
        except FileNotFoundError:
            yield f"there is no {result.file}"
        except (KeyError, ValueError, TypeError) as error:
            yield f"{result.file} cannot be shown as {result.shows!r}: {error!r}"


def _line_of_test(root: Path, test: str) -> int | None:
    file, _, name = test.partition("::")
    tree = ast.parse((root / file).read_text() if (root / file).is_file() else "")
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return next((function.lineno for function in functions if function.name == name), None)


def _line_of_code(root: Path, code: Code) -> int:
    text = (root / code.file).read_text()
    return text.count("\n", 0, text.index(code.line)) + 1


def _values(root: Path, file: str) -> dict[str, Any]:
    return msgspec.json.decode((root / file).read_bytes(), type=dict[str, Any])


def _shown(root: Path, result: Result) -> str:
    values = _values(root, result.file)
    return result.shows.format_map({k: len(value) if isinstance(value, list) else value for k, value in values.items()})


def page(root: Path) -> str:
    """Make the text of promises.md."""
    found = root / OUTCOMES
    run = msgspec.json.decode(found.read_bytes(), type=Run) if found.is_file() else None
    parts = [HEAD]
    for promise in promises(root):
        parts += _section(root, promise, run)
    files = [str(OUTCOMES)] if run else []
    files += [result.file for promise in promises(root) for result in promise.results]
    parts += ["## Measured on", "", "| result | date | machine and versions |", "|---|---|---|"]
    for file in dict.fromkeys(files):
        values = _values(root, file)
        versions = ", ".join(f"{name} {version}" for name, version in values.get("machine", {}).items())
        parts.append(f"| {_link(file, file)} | {values.get('date', 'not noted')} | {versions or 'not noted'} |")
    return "\n".join([*parts, ""])


def _section(root: Path, promise: Promise, run: Run | None) -> Iterator[str]:
    yield f"## {promise.id}: {promise.title}\n\n{_flat(promise.says)}\n"
    lines = [(code.file, _line_of_code(root, code)) for code in promise.code]
    places = ", ".join(_link(f"{file}:{line}", file, line) for file, line in lines)
    yield f"**Mechanism.** {_flat(promise.mechanism)} Code: {places}.\n"
    yield f"**Limits.** {_flat(promise.limits)}\n\n| test | last outcome |\n|---|---|"
    known, passed = run.tests if run else {}, 0
    for test in promise.tests:
        file, _, name = test.partition("::")
        told = "not run yet"
        if run and (found := known.get(test)):
            cases = f"{found.cases} cases, " if found.cases > 1 else ""
            told = f"{found.outcome} on {run.date}, {cases}{found.seconds:.1f} s"
            passed += found.outcome == "passed"
        yield f"| {_link(f'`{name}`', file, _line_of_test(root, test))} | {told} |"
    so_far = f"{passed} of {len(promise.tests)} tests passed on {run.date}" if run else "no test was run yet"
    yield f"\n**Last result**, [with these versions](#measured-on): {so_far}.\n"
    if promise.results:
        yield "\n".join([*(f"- {_link(each.file, each.file)}: {_shown(root, each)}" for each in promise.results), ""])


def _link(text: str, file: str, line: int | None = None) -> str:
    """Link a file, or a line of it, as seen from the page."""
    return f"[{text}]({Path(os.path.relpath(file, GUIDE)).as_posix()}{f'#L{line}' if line else ''})"


def _flat(text: str) -> str:
    return " ".join(text.split())


class Heard:
    """A pytest plugin that notes what became of each test."""

    def __init__(self) -> None:
        self.tests: defaultdict[str, Outcome] = defaultdict(Outcome)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one phase of one case."""
        test = self.tests[report.nodeid.partition("[")[0]]
        test.outcome = max(test.outcome, report.outcome, key=OUTCOME.index)
        test.cases += report.when == "setup"
        test.seconds = round(test.seconds + report.duration * (report.when == "call"), 2)


app = typer.Typer(help="The page of the promises, promises.md.", add_completion=False, pretty_exceptions_enable=False)


@app.command()
def write() -> None:
    """Write the page from promises.toml and results/. Exit 1, and write nothing, if something named there is not so."""
    _end_if("promises.toml:", faults(ROOT))
    (ROOT / PAGE).write_text(page(ROOT))
    typer.echo(f"wrote {PAGE}")


@app.command()
def run() -> None:
    """Run the tests that the promises name, note what became of them, write the page. Exit 1 if one did not pass."""
    write()
    tests = sorted({test for promise in promises(ROOT) for test in promise.tests})  # file by file
    os.environ.setdefault("PROMISES_RESULTS", str(ROOT / OUTCOMES.parent))  # where tests that measure write
    heard = Heard()
    pytest.main(["-p", "no:cacheprovider", *(str(ROOT / test) for test in tests)], plugins=[heard])
    _end_if("nothing noted, these did not run:", [test for test in tests if test not in heard.tests])
    servers = {"redis-server": redis_version(find_redis())} | ({} if available() else {"apache-kafka": VERSION})
    noted = Run(datetime.now(UTC).date().isoformat(), describe_machine() | servers, {t: heard.tests[t] for t in tests})
    (ROOT / OUTCOMES).parent.mkdir(exist_ok=True)
    (ROOT / OUTCOMES).write_bytes(msgspec.json.format(msgspec.json.encode(noted)) + b"\n")
    write()
    _end_if("not passed:", [test for test in tests if heard.tests[test].outcome != "passed"])


def _end_if(what: str, wrong: list[str]) -> None:
    if wrong:
        typer.echo("\n  ".join([what, *wrong]), err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
