"""What the reports on delays and outages have in common: figures, remarks and tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from alignment.report_form import LEFT, moment, table, td, th

NOTEBOOK_ROWS = 60
"""Shifts (of all providers) or patterns that a notebook shows; the page and the text show all."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Figures:
    """Errors and changes of a report, all with as many digits after the point.

    Attributes:
        digits: How many; made by `of` so that the greatest error has four digits or more.

    Example:
        >>> figures = Figures.of([95.2, 105.76])
        >>> figures.plain(95.2), figures.signed(10.5), figures.interval(-0.04, 3.0), figures.plain(None)
        ('95.2', '+10.5', '0.0 to 3.0', '-')
    """

    digits: int

    @classmethod
    def of(cls, errors: Iterable[float | None]) -> Figures:
        """As many digits as tell errors apart in their thousandth part."""
        most = max((abs(error) for error in errors if error), default=1.0)
        return cls(max(0, 3 - math.floor(math.log10(most))))

    def plain(self, value: float | None) -> str:
        """A figure; a dash where there is none."""
        return "-" if value is None else f"{round(value, self.digits) + 0.0:,.{self.digits}f}"  # no -0.0

    def signed(self, value: float | None) -> str:
        """A change, with its sign."""
        return f"+{self.plain(value)}" if value is not None and round(value, self.digits) > 0 else self.plain(value)

    def interval(self, low: float | None, high: float | None) -> str:
        """What lies between two figures; a dash where there are none."""
        return "-" if low is None or high is None else f"{self.plain(low)} to {self.plain(high)}"


def change(figures: Figures, row: Row, name: str) -> list[str]:
    """Two cells: a change, and its interval."""
    return [figures.signed(row[name]), figures.interval(row[f"{name}_low"], row[f"{name}_high"])]


def plain_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells, the first of each row its head."""
    titles = th(head[0]) + "".join(th(text, right=True) for text in head[1:])
    lines = [
        f'<tr><th scope="row" style="{LEFT}">{escape(first)}</th>{"".join(td(text) for text in others)}</tr>'
        for first, *others in rows
    ]
    return table(caption, titles, lines)


def left_out_rows(count: int) -> list[str]:
    """That a notebook shows not all."""
    return [f'<p style="margin:.5em 0">and {count} more: see <code>report.frame</code></p>'] if count else []


def percent(report: Row) -> str:
    """Share of the draws inside an interval."""
    return f"{100 * report['confidence']:g} %"


def size(report: Row) -> str:
    """What was tested, in a line."""
    unit = f" ({report['unit']})" if report["unit"] else ""
    days = f"{report['test_days']:,} day{'' if report['test_days'] == 1 else 's'}"
    return f"{report['label']}{unit}, {report['test_rows']:,} rows tested on {days} ({report['zone']})"


def remarks(report: Row, *first: str) -> list[str]:
    """What else to know, a sentence each."""
    said = [*first, f"Trained at T = {moment(report['trained_at'])}, tested on the rows from T on"]
    said += [f"{note[0].upper()}{note[1:]}" for note in report["notes"]]
    if report.get("left_out"):
        unused = "; ".join(f"{name} ({why})" for name, why in report["left_out"].items())
        said.append(f"Not used by the model: {unused}")
    return [f"{text}." for text in said]
