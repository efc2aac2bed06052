"""How time and memory grow: ten times the rows, a hundred times from disk, one entity that holds half of them."""

from __future__ import annotations

from benchmarks.bench import OURS, Bench, ask_latest, ask_windows
from benchmarks.data import DataSet
from benchmarks.harness import Comparison
from benchmarks.question import Question
from benchmarks.report import Report, Target

TITLE = "growth: 10 times the rows, 100M from disk, one heavy entity"
DAY = 1_440


def run(bench: Bench) -> Report:
    """Ratios of asknown's own times; the questions take turns."""
    if OURS in bench.without:
        return Report("growth", [], [])
    parts = [_part(bench, "latest", ("dense", "long")), _part(bench, "windows", ("long",))]
    if bench.huge:
        parts.append(_huge(bench))
    return Report("growth", [comparison for comparison, _ in parts], [one for _, targets in parts for one in targets])


def _part(bench: Bench, name: str, heavy: tuple[str, ...]) -> tuple[Comparison, list[Target]]:
    small, large = bench.size("M", "S"), bench.size("L", "M")
    asked = {size: _ask(name, bench.data(size)[1]) for size in (small, large)}
    asked |= {f"heavy {kind}": _ask(name, bench.data(large, heavy=kind)[1]) for kind in heavy}
    comparison = bench.compare_own(f"{name}, growth", asked)
    targets = [Target(f"{name}: {small} -> {large}", comparison.ratio(large, small), 12.0)]
    for kind in heavy:
        text = f"{name} {large}, half the rows one entity's ({kind}): of the even case"
        targets.append(Target(text, comparison.ratio(f"heavy {kind}", large), 1.5))
    return comparison, targets


def _ask(name: str, data: DataSet) -> tuple[Question, DataSet]:
    return (ask_latest(data) if name == "latest" else ask_windows(data, minutes=DAY)), data


def _huge(bench: Bench) -> tuple[Comparison, list[Target]]:
    asked = {}
    for size in ("L", "XL"):
        _, data = bench.data(size)
        asked[size] = ask_latest(data, from_disk=True), data
    comparison = bench.compare_own("latest from disk", asked, rounds=2, limit=900.0)
    peak = comparison.results["XL"].peak_bytes / 2**30
    return comparison, [
        Target("latest: L -> XL from disk", comparison.ratio("XL", "L"), 20.0),
        Target("latest XL from disk: peak memory", peak or float("nan"), 10.0, unit="GiB"),
    ]
