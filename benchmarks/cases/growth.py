"""How time and memory grow: ten times the rows, a hundred times from disk, one entity that holds half of them."""

from __future__ import annotations

from benchmarks.bench import Bench, ask_latest, ask_windows
from benchmarks.harness import Comparison
from benchmarks.report import Report, Target

TITLE = "growth: 10 times the rows, 100M from disk, one heavy entity"
OURS = "asknown_join"
DAY = 1_440


def run(bench: Bench) -> Report:
    """Ratios of asknown's own times."""
    if OURS in bench.without:
        return Report("growth", [], [])
    comparisons: list[Comparison] = []
    targets: list[Target] = []
    small, large = bench.size("M", "S"), bench.size("L", "M")
    for name, ask in (("latest", ask_latest), ("windows", lambda data: ask_windows(data, minutes=DAY))):
        pair = []
        for size in (small, large):
            _, data = bench.data(size)
            pair.append(bench.compare(f"{name} {size}", ask(data), data, [OURS]))
        comparisons += pair
        targets.append(Target(f"{name}: {small} -> {large}", _growth(*pair), 12.0))
        for heavy in ("dense", "long") if name == "latest" else ("long",):
            _, data = bench.data(large, heavy=heavy)
            skewed = bench.compare(f"{name} {large}, half the rows are one entity's ({heavy})", ask(data), data, [OURS])
            comparisons.append(skewed)
            targets.append(Target(f"{skewed.title}: of the even case", _growth(pair[1], skewed), 1.5))
    if bench.huge:
        found, bounds = _huge(bench)
        comparisons += found
        targets += bounds
    return Report("growth", comparisons, targets)


def _huge(bench: Bench) -> tuple[list[Comparison], list[Target]]:
    pair = []
    for size in ("L", "XL"):
        _, data = bench.data(size)
        question = ask_latest(data, from_disk=True)
        pair.append(bench.compare(f"latest {size} from disk", question, data, [OURS], rounds=2, limit=900.0))
    peak = pair[1].results[OURS].peak_bytes / 2**30
    return pair, [
        Target("latest: L -> XL from disk", _growth(*pair), 20.0),
        Target("latest XL from disk: peak memory", peak or float("nan"), 10.0, unit="GiB"),
    ]


def _growth(small: Comparison, large: Comparison) -> float:
    return large.results[OURS].wall / small.results[OURS].wall
