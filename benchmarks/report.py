"""Results as tables for people and as JSON for programs."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Comparison, Result


@dataclass(frozen=True)
class Target:
    """A figure that the project holds itself to.

    Attributes:
        text: What is measured, against what.
        value: The figure; NaN if it could not be measured.
        bound: What it should be.
        at_most: Whether `bound` is an upper bound.
        unit: `x` for a ratio, `s`, or `GiB`.
    """

    text: str
    value: float
    bound: float
    at_most: bool = True
    unit: str = "x"

    @property
    def met(self) -> bool | None:
        """Whether the bound is kept; None if nothing was measured."""
        if math.isnan(self.value):
            return None
        return self.value <= self.bound if self.at_most else self.value >= self.bound


@dataclass(frozen=True)
class Report:
    """What one case found."""

    case: str
    comparisons: list[Comparison]
    targets: list[Target]


def print_report(report: Report, console: Console) -> None:
    """A table per comparison and one of the case's targets."""
    for comparison in report.comparisons:
        console.print(_comparison_table(comparison))
    if report.targets:
        console.print(targets_table(report.targets, title=f"{report.case}: targets"))


def _comparison_table(comparison: Comparison) -> Table:
    own = next((name for name in comparison.results if name.startswith("asknown")), "")
    ours = comparison.results.get(own)
    table = Table(title=comparison.title, title_justify="left", title_style="bold")
    for heading in (
        "contender",
        "wall s",
        "cpu s",
        "kernel s",
        "loaded GiB",
        "peak GiB",
        "asknown / it",
        "by cpu",
        "answer",
    ):
        table.add_column(heading, justify="left" if heading in {"contender", "answer"} else "right")
    for result in comparison.results.values():
        ratio = comparison.ratio(own, result.contender) if ours else float("nan")
        table.add_row(*_cells(result, ratio, ours.cpu / result.cpu if ours else float("nan")))
    return table


def _cells(result: Result, ratio: float, by_cpu: float) -> list[str]:
    answer = result.problem or (str(result.verdict) if result.verdict else "not checked")
    if result.verdict and result.verdict.wrong and result.claim != "exact":
        answer += f" - {result.claim}"
    return [
        result.name,
        _figure(result.wall, 3),
        _figure(result.cpu, 3),
        _figure(result.kernel, 3),
        _figure(result.loaded_bytes / 2**30, 2) if result.loaded_bytes else "-",
        _figure(result.peak_bytes / 2**30, 2) if result.peak_bytes else "-",
        _figure(ratio, 3),
        _figure(by_cpu, 3),
        answer,
    ]


def targets_table(targets: Sequence[Target], *, title: str) -> Table:
    """A row per target: the figure, the bound, and whether it is kept."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in ("target", "measured", "bound", "kept"):
        table.add_column(heading, justify="left" if heading == "target" else "right")
    for target in targets:
        sign = "<=" if target.at_most else ">="
        kept = {True: "yes", False: "NO", None: "not measured"}[target.met]
        bound = f"{sign} {target.bound:g} {target.unit}"
        table.add_row(target.text, f"{_figure(target.value, 3)} {target.unit}", bound, kept)
    return table


def _figure(value: float, digits: int) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.{digits}f}" if abs(value) < 100 else f"{value:,.1f}"


def write_json(reports: Sequence[Report], path: Path, *, options: dict[str, Any]) -> None:
    """Everything measured, with the machine and the versions it was measured on."""
    plain = {
        "options": options,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "cases": [
            {
                "case": report.case,
                "targets": [{**asdict(target), "met": target.met} for target in report.targets],
                "comparisons": [
                    {"title": comparison.title, "results": [_plain(result) for result in comparison.results.values()]}
                    for comparison in report.comparisons
                ],
            }
            for report in reports
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_without_nan(plain), indent=1) + "\n")


def _plain(result: Result) -> dict[str, Any]:
    return {**asdict(result), "wall": result.wall, "cpu": result.cpu, "kernel": result.kernel}


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def machine() -> dict[str, Any]:
    """What the figures depend on: processors, load before the run, versions."""
    packages = ("asknown", "polars", "numba", "numpy", "duckdb", "pyarrow", "deltalake")
    return {
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "load_average": list(os.getloadavg()),
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in packages},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
