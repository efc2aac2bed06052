"""Reports for people and for programs: tables and JSON on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

WIDTH_WITHOUT_TERMINAL = 10_000  # a file or a pipe has no edge to wrap at


def _console(*, to_stderr: bool, whole_lines: bool = False) -> Console:
    stream = sys.stderr if to_stderr else sys.stdout
    whole = whole_lines or not stream.isatty()
    return Console(
        file=stream, width=WIDTH_WITHOUT_TERMINAL if whole else None, highlight=False, soft_wrap=whole, **_plain_style()
    )


def _plain_style() -> dict[str, Any]:
    """Without any escape codes if NO_COLOR is set; by itself rich leaves out colours only, not bold and dim."""
    return {"color_system": None} if os.environ.get("NO_COLOR") else {}


def say(message: str) -> None:
    """Tell people something that is not data: a line on standard error."""
    _console(to_stderr=True).print(Text(message))


def complain(error: BaseException, kind: str) -> None:
    """Print an error as `kind: what is wrong`, an empty line and the hint, on standard error."""
    head, _, rest = str(error).partition("\n")
    text = Text.assemble((f"{kind}: ", "bold red"), head)
    if rest:
        text.append(f"\n{rest}")
    _console(to_stderr=True).print(text)


def text_of(value: object) -> str:
    """One cell as text: instants in UTC to the second, durations as `1d 02:03:04`, numbers short, null as a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S") + ("Z" if value.tzinfo is not None else "")
    if isinstance(value, timedelta):
        return duration_text(value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {text_of(item)}" for name, item in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(text_of(item) for item in value) or "-"
    return str(value)


def duration_text(value: timedelta) -> str:
    """A duration as people say it: `27m 30s`, `1d 2h`, `-3h`; at most two units."""
    seconds = round(value.total_seconds())
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    parts = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return sign + " ".join(parts[:2]) if parts else "0s"


def table(rows: Sequence[Mapping[str, Any]], *, title: str | None = None) -> None:
    """Print rows as a table on standard output; columns are the keys of the first row, numbers are set to the right.

    Args:
        rows: One mapping per row, all with the same keys.
        title: A line above it.
    """
    console = _console(to_stderr=False, whole_lines=True)  # a terminal breaks long lines, and cells stay whole
    if title:
        console.print(Text(title, style="bold"))
    if not rows:
        console.print(Text("(nothing)"))
        return
    shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for name in rows[0]:
        cells = [row[name] for row in rows if row[name] is not None]
        right = bool(cells) and all(
            isinstance(cell, int | float | timedelta) and not isinstance(cell, bool) for cell in cells
        )
        shown.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(text_of(value)) for value in row.values()))
    console.print(shown)


def facts(pairs: Mapping[str, Any], *, title: str | None = None) -> None:
    """Print names and values below each other on standard output.

    Args:
        pairs: Name to value.
        title: A line above them.
    """
    console = _console(to_stderr=False)
    if title:
        console.print(Text(title, style="bold"))
    width = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        console.print(Text.assemble((f"{name:<{width}}", "dim"), "   ", text_of(value)))


def as_json(value: Any) -> None:
    """Print a value as JSON on standard output: instants as ISO 8601 in UTC, durations in seconds."""
    sys.stdout.write(json.dumps(value, default=plain, indent=2, allow_nan=False) + "\n")


def plain(value: object) -> Any:
    """What JSON has no form for: instants as ISO 8601 in UTC, durations in seconds, reports as they describe themselves."""
    if isinstance(value, datetime | date):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    return str(value)


@contextmanager
def progress(task: str, total: int | None = None) -> Iterator[Progress]:
    """A progress bar on standard error, on a terminal only; it disappears when the work is done.

    Args:
        task: What is being done.
        total: How many steps there are; None where that is not known.

    Yields:
        The bar; call `.advance(bar.task_ids[0])` after each step.
    """
    console = _console(to_stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        bar.add_task(task, total=total)
        yield bar
