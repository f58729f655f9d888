"""What became of a replay, as numbers and as a table."""

from collections.abc import Mapping

import msgspec
from rich.table import Table


class Report(msgspec.Struct, kw_only=True, frozen=True):
    """Counts are of transactions sent by this replay; latencies in milliseconds, exact percentiles of all samples."""

    door: str
    seconds: float
    sent: int
    decided: int
    duplicates: int
    """Of those decided, how many had been decided (or sent) before: they had no second effect."""
    decided_twice: int
    """Decisions that stand in the log under two sequence numbers. Anything but 0 is a broken promise."""
    dead_lettered: int
    refused: int
    labels: int
    actions: Mapping[str, int]
    latency_ms: Mapping[str, float]
    latency_of: str
    behind: int
    """Decisions made while merchant state was further behind than its features allow for."""

    @property
    def complete(self) -> bool:
        """Whether every transaction sent has exactly one decision."""
        return self.sent == self.decided and self.decided_twice == 0

    def table(self) -> Table:
        """Lay the report out for a terminal."""
        table = Table(title=f"replay through {self.door}", show_header=False, title_justify="left")
        rate = self.sent / self.seconds if self.seconds else 0.0
        rows = {
            "sent": f"{self.sent} in {self.seconds:.1f} s ({rate:.0f}/s)",
            "decided": str(self.decided),
            "duplicates": str(self.duplicates),
            "decided twice": str(self.decided_twice),
            "dead-lettered": str(self.dead_lettered),
            "refused": str(self.refused),
            "labels sent": str(self.labels),
            "actions": ", ".join(f"{action} {count}" for action, count in sorted(self.actions.items())),
            f"{self.latency_of}, ms": ", ".join(f"{name} {value:.1f}" for name, value in self.latency_ms.items()),
            "decided with merchant state behind": str(self.behind),
        }
        for name, value in rows.items():
            table.add_row(name, value)
        return table
