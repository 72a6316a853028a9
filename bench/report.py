"""The table of results, for a terminal and for ``docs/benchmarks.md``."""

import math
from dataclasses import dataclass

NO_VALUE = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        what: What was measured.
        skerry: Skerry's figure; ``unit`` says of what.
        beside: The alternative's figure of the same run, or NaN.
        beside_name: What the alternative is.
        unit: ``ms``, ``MiB/s``, ``MiB``, ``%``.
        spread: More of Skerry's figure, such as its p99.
        target: What we aim at, in words.
    """

    what: str
    skerry: float
    unit: str
    beside: float = math.nan
    beside_name: str = ""
    spread: str = ""
    target: str = ""

    def cells(self) -> tuple[str, ...]:
        """The columns as text."""
        ratio = self.skerry / self.beside if self.beside and not math.isnan(self.beside) else math.nan
        beside = f"{_number(self.beside)} ({self.beside_name})" if self.beside_name else NO_VALUE
        return (
            self.what,
            f"{_number(self.skerry)} {self.unit}",
            self.spread or NO_VALUE,
            beside,
            NO_VALUE if math.isnan(ratio) else f"{ratio:.2f}",
            self.target or NO_VALUE,
        )


HEADINGS = ("what", "Skerry", "spread", "beside it", "ratio", "target")


def _number(value: float) -> str:
    if math.isnan(value):
        return NO_VALUE
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def as_markdown(rows: list[Row]) -> str:
    """The rows as one Markdown table."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def as_text(rows: list[Row]) -> str:
    """The rows as aligned plain text."""
    table = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table
    )
