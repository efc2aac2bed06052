"""`python -m benchmarks`: measure, print tables, write JSON."""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path

from rich.console import Console

from benchmarks.bench import Bench
from benchmarks.cases import CASES
from benchmarks.environments import HERE
from benchmarks.report import Report, print_report, targets_table, write_json


def contenders() -> list[str]:
    """Names of the files in `contenders/`."""
    return sorted(path.stem for path in (HERE / "contenders").glob("*.py") if not path.stem.startswith("_"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="How exact, how fast: see benchmarks/README.md."
    )
    parser.add_argument("--quick", action="store_true", help="one size smaller, 3 rounds: about two minutes")
    parser.add_argument(
        "--only",
        action="append",
        choices=CASES,
        metavar="CASE",
        help=f"one case of {', '.join(CASES)}; may be repeated",
    )
    parser.add_argument(
        "--without",
        action="append",
        choices=contenders(),
        default=[],
        metavar="CONTENDER",
        help="leave a contender out; may be repeated",
    )
    parser.add_argument("--xl", action="store_true", help="also 100M rows from disk (7 GB of disk, some minutes)")
    parser.add_argument("--rounds", type=int, help="timed rounds per contender")
    parser.add_argument("--data", type=Path, default=HERE / ".data", help="where data sets are kept between runs")
    parser.add_argument("--json", type=Path, help="where the figures go; default: results/<quick|full>.json")
    parser.add_argument("--list", action="store_true", help="list cases and contenders, measure nothing")
    return parser.parse_args()


def main() -> int:
    """Run the chosen cases; 1 if asknown gave a wrong answer or failed, else 0."""
    chosen = arguments()
    if chosen.list:
        for name in CASES:
            print(f"case       {name:20} {import_module(f'benchmarks.cases.{name}').TITLE}")
        for name in contenders():
            module = import_module(f"benchmarks.contenders.{name}")
            print(f"contender  {name:20} {', '.join(module.KINDS)}: {module.CLAIM}")
        return 0
    bench = Bench(
        quick=chosen.quick, huge=chosen.xl, rounds=chosen.rounds, without=frozenset(chosen.without), folder=chosen.data
    )
    console = Console(width=None if sys.stdout.isatty() else 150)
    target = chosen.json or HERE / "results" / f"{'quick' if chosen.quick else 'full'}.json"
    reports: list[Report] = []
    started = time.perf_counter()
    for name in chosen.only or CASES:
        report = import_module(f"benchmarks.cases.{name}").run(bench)
        reports.append(report)
        print_report(report, console)
        write_json(reports, target, options={key: str(value) for key, value in vars(chosen).items()})
    title = "All targets" + (" (the bounds are meant for the full sizes)" if chosen.quick else "")
    console.print(targets_table([item for report in reports for item in report.targets], title=title))
    minutes = (time.perf_counter() - started) / 60
    print(f"{minutes:.1f} minutes; figures in {target}", file=sys.stderr)
    return 1 if any(_ours_failed(report) for report in reports) else 0


def _ours_failed(report: Report) -> bool:
    ours = [
        result for c in report.comparisons for result in c.results.values() if result.contender.startswith("asknown")
    ]
    return any(result.problem or (result.verdict is not None and result.verdict.wrong) for result in ours)


if __name__ == "__main__":
    sys.exit(main())
