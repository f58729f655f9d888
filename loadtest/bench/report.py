"""What a bench has found: figures with their limits, as a table and as a file."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.table import Table

from loadtest.machine import describe_machine


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. `decides`: a ratio, a count or CPU a decision can fail a bench; a bare time cannot."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    decides: bool = True

    @property
    def holds(self) -> bool:
        """Whether it is within its limits."""
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    @property
    def limit(self) -> str:
        """The limits, for people."""
        bounds = ((self.at_most, "≤"), (self.at_least, "≥"))
        return " ".join(f"{sign} {bound:g}" for bound, sign in bounds if bound is not None)


def missed(figures: list[Figure]) -> list[Figure]:
    """Give the figures that fail the bench."""
    return [figure for figure in figures if figure.decides and not figure.holds]


def table(figures: list[Figure]) -> Table:
    """Lay the figures out for a terminal."""
    made = Table(title="bench", title_justify="left")
    for heading in ("measured", "value", "limit", ""):
        made.add_column(heading, justify="right" if heading == "value" else "left")
    for figure in figures:
        verdict = "" if figure.holds else ("missed" if figure.decides else "missed (does not decide)")
        made.add_row(figure.name, f"{figure.value:,.4g} {figure.unit}", figure.limit, verdict)
    return made


def write(figures: list[Figure], path: Path) -> None:
    """Write the figures with date, machine and versions."""
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "passed": not missed(figures),
        "figures": [asdict(figure) | {"holds": figure.holds} for figure in figures],
        "machine": describe_machine(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
