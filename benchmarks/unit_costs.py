"""`python -m benchmarks.unit_costs`: seconds and bytes per million rows of each step of a build, on this machine.

Every shape is built in processes of its own, from a log on disk: seeded rows of `benchmarks.data`, 1,000 entities, five values; the
quickest of several rounds counts. The constants in `alignment/unit_costs.py` are its processor seconds, which other load disturbs less. `--check` holds the estimates of `al.plan_dataset` against what builds took, on shapes
that the constants were not taken from.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

import alignment as al
import ingestion
from alignment.engines.local import Timings
from alignment.estimates import arranged_width, row_width
from alignment.hashing import frame_hash
from alignment.rows import summarize
from benchmarks.data import VALUES, Recipe, data_set

HOME = Path(__file__).parent / ".data"
DAY = [al.window("temp", ["mean", "std", "min", "max", "sum"], "24h")]
FEATURES: dict[str, list[Any]] = {
    "latest of 1": [al.latest("temp")],
    "latest of 5": [al.latest(name) for name in VALUES],
    "mean of 24h": [al.window("temp", "mean", "24h")],
    "window of 24h": DAY,
    "lags": [al.lag("temp", ["24h", "48h", "72h"], tolerance="1h")],
    "sequence": [al.sequence("temp", 12)],
    "20 features": [
        *(al.latest(name) for name in VALUES),
        *DAY,
        al.window("load", ["mean", "max", "min", "q90"], "24h"),
        al.window("wind", ["mean", "count", "slope"], "6h"),
        al.lag("load", ["24h", "48h"], tolerance="1h"),
        al.event_age(),
    ],
}


@dataclass(frozen=True)
class Shape:
    """One build: how many rows, questions and entities, which features, from where."""

    features: str
    rows: int
    spine: int
    entities: int = 1_000
    source: str = "log"
    label: bool = False

    @property
    def name(self) -> str:
        """What a table calls it."""
        label = ", label" if self.label else ""
        return f"{self.features}{label}; {self.rows / 1e6:g}M x {self.spine / 1e6:g}M, {self.entities:,} entities, {self.source}"


class ProcessorTimings(Timings):
    """The same parts, in processor seconds of all threads."""

    def __init__(self) -> None:
        super().__init__()
        self.mark = processor()

    def lap(self, part: str, since: float) -> float:
        """Add the processor seconds since the last mark to `part`."""
        now = processor()
        setattr(self, part, getattr(self, part) + now - self.mark)
        self.mark = now
        return time.perf_counter()


# --- one shape, in a process of its own -------------------------------------------------------------------------------


def inputs(shape: Shape) -> tuple[Path, Path, Path]:
    """Where its log, its observations and its spine are; made when they are not there."""
    data = data_set(Recipe(rows=shape.rows, spine=shape.spine, entities=shape.entities), HOME)
    logs = data.spine.parent / "logs"
    if not logs.exists():
        scratch = logs.with_name("logs.part")
        log = ingestion.create_log(scratch, "rows", entities=["entity"])
        log.append(pl.read_parquet(data.observations).drop("log_sequence"), arrivals="given")
        scratch.rename(logs)
    return logs, data.observations, data.spine


def view_of(shape: Shape) -> al.FeatureView:
    """The view over its rows."""
    logs, observations, _ = inputs(shape)
    rows: Any = observations
    if shape.source == "log":
        rows = ingestion.open_log(logs, "rows")
    elif shape.source == "frame":
        rows = pl.read_parquet(observations)
    return al.FeatureView("rows", ["entity"], rows, FEATURES[shape.features])


def run(shape: Shape) -> dict[str, Any]:
    """What a build of this shape takes in this process, part by part."""
    view, spine = view_of(shape), inputs(shape)[2]
    few = pl.scan_parquet(inputs(shape)[1]).head(5_000).collect()
    warm = al.FeatureView("rows", ["entity"], few, FEATURES[shape.features])
    asked = pl.read_parquet(spine, n_rows=100)
    label = al.label("temp", horizon="1h") if shape.label else None
    al.build_dataset(asked, [warm], label=label)  # the kernel is compiled, or loaded
    plan = al.plan_dataset(spine, [view], label=label) if hasattr(al, "plan_dataset") else None
    found: dict[str, Any] = {"shape": shape.name, "base_bytes": status("VmRSS")}
    if not shape.label:
        found |= parts(view, spine)
    Path("/proc/self/clear_refs").write_text("5")  # the greatest resident memory is counted from here on
    cpu, clock = processor(), time.perf_counter()
    dataset = al.build_dataset(spine, [view], label=label)
    with tempfile.TemporaryDirectory() as folder:
        dataset.write(Path(folder) / "set")
    found |= {"wall": time.perf_counter() - clock, "cpu": processor() - cpu, "peak_bytes": status("VmHWM")}
    if plan is not None:
        found["plan"] = plan.to_dict()
    return found


def parts(view: al.FeatureView, spine: Path) -> dict[str, Any]:
    """Seconds and processor seconds of each step."""
    found: dict[str, Any] = {"seconds": {}, "processor": {}}
    for name, timings in (("seconds", Timings()), ("processor", ProcessorTimings())):
        frame = al.point_in_time_join(spine, [view], timings=timings)
        found[name] |= {part: getattr(timings, part) for part in ("read", "arrange", "kernel", "gather")}
    found["cells"] = frame.height * frame.width
    with tempfile.TemporaryDirectory() as folder:
        steps = {
            "summarize": lambda: summarize(view.observations),
            "finish": lambda: (frame_hash(frame), frame.write_parquet(f"{folder}/data", compression="lz4")),
        }
        for name, call in steps.items():
            used, clock = processor(), time.perf_counter()
            call()
            found["seconds"][name] = time.perf_counter() - clock
            found["processor"][name] = processor() - used
    return found


def status(name: str) -> int:
    """A line of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def processor() -> float:
    """Processor seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def apart(shape: Shape) -> dict[str, Any]:
    """The same in a new process."""
    inputs(shape)
    order = json.dumps({name: getattr(shape, name) for name in shape.__dataclass_fields__})
    command = [sys.executable, "-m", "benchmarks.unit_costs", "--shape", order]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


# --- unit costs from several shapes -----------------------------------------------------------------------------------

STEPS = ("read", "arrange", "kernel", "gather", "summarize", "finish")
EVENTS = 144
"""In 24 hours, one every ten minutes."""


def measure(rows: int, rounds: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The unit costs in seconds and in processor seconds, and what they were taken from."""
    spine = rows // 10
    shapes = {
        "one": Shape("latest of 1", rows, spine),
        "few": Shape("latest of 1", rows, spine // 10),
        "five": Shape("latest of 5", rows, spine),
        "mean": Shape("mean of 24h", rows, spine),
        "window": Shape("window of 24h", rows, spine),
        "frame": Shape("latest of 1", rows, spine, source="frame"),
    }
    runs = {name: [apart(shape) for _ in range(rounds)] for name, shape in shapes.items()}
    found = {unit: costs(runs, unit, rows / 1e6, spine / 1e6) for unit in ("seconds", "processor")}
    rows_of = view_of(shapes["one"]).observations
    copies = []
    for name, columns in (("one", ["temp"]), ("five", list(VALUES))):
        peak = min(run["peak_bytes"] - run["base_bytes"] for run in runs[name])
        copies.append((peak / rows - arranged_width(rows_of)) / row_width(rows_of, columns))
    for unit in found.values():
        unit["base_bytes"] = min(run["base_bytes"] for run in runs["one"])
        unit["read_copies"] = max(copies)
    return found, [run for several in runs.values() for run in several]


def costs(runs: dict[str, list[dict[str, Any]]], unit: str, rows: float, spine: float) -> dict[str, Any]:
    """Per million, the least of all rounds."""

    def least(name: str, step: str) -> float:
        return float(min(run[unit][step] for run in runs[name]))

    one, few = least("one", "kernel"), least("few", "kernel")
    questions = max(0.0, (one - few) / (spine * 0.9))
    values = max(0.0, (least("five", "read") - least("one", "read")) / (4 * rows))
    mean = max(0.0, least("mean", "kernel") - one) / (spine * EVENTS)
    window = max(0.0, least("window", "kernel") - one) / (spine * EVENTS)
    aggregates = max(0.0, (window - mean) / 4)
    return {
        "read_rows": least("one", "read") / rows - values,
        "read_values": values,
        "check_frame_rows": least("frame", "read") / rows,
        "summarize_rows": least("one", "summarize") / rows,
        "arrange_rows": least("one", "arrange") / (rows + spine),
        "sweep_rows": max(0.0, few - questions * spine / 10) / rows,
        "sweep_questions": questions,
        "window_events": max(0.0, mean - aggregates),
        "window_aggregates": aggregates,
        "gather_answers": least("five", "gather") / (5 * spine),
        "finish_values": least("five", "finish") / (runs["five"][0]["cells"] / 1e6),
    }


# --- estimates against builds -----------------------------------------------------------------------------------------

CHECKED = (
    Shape("latest of 5", 1_000_000, 100_000),
    Shape("lags", 2_000_000, 200_000),
    Shape("sequence", 2_000_000, 200_000, source="parquet"),
    Shape("20 features", 2_000_000, 200_000, label=True),
    Shape("20 features", 4_000_000, 40_000, source="frame"),
    Shape("latest of 1", 8_000_000, 400_000),
)


def check(rounds: int) -> list[dict[str, Any]]:
    """Per shape the estimates and what a build took, the quickest and the smallest of several."""
    found = []
    for shape in CHECKED:
        runs = [apart(shape) for _ in range(rounds)]
        plan = runs[0]["plan"]
        seconds, peak = min(run["cpu"] for run in runs), min(run["peak_bytes"] for run in runs)
        told = plan["seconds"]["total"] - plan["seconds"]["steps"]["start"]  # the process was warm
        found.append(
            {
                "shape": shape.name,
                "rows": plan["reads"][0]["rows"] / shape.rows,
                "wall": min(run["wall"] for run in runs),
                "processor": seconds,
                "estimated": told,
                "by": told / seconds,
                "peak_bytes": peak,
                "estimated_bytes": plan["memory"]["bytes"],
                "bytes_by": plan["memory"]["bytes"] / peak,
            }
        )
    return found


def main() -> None:
    """Measure, print, and perhaps write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=4_000_000, help="observation rows of the shapes that are measured")
    parser.add_argument("--rounds", type=int, default=3, help="processes per shape; the quickest counts")
    parser.add_argument("--check", action="store_true", help="hold estimates against builds instead")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.shape:
        print(json.dumps(run(Shape(**json.loads(arguments.shape)))))
        return
    load = os.getloadavg()[0]
    if arguments.check:
        found: Any = check(arguments.rounds)
        with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=200, fmt_str_lengths=80, float_precision=2):
            print(pl.DataFrame(found))
    else:
        found, _ = measure(arguments.rows, arguments.rounds)
        print(f"{'per million':<20}{'seconds':>12}{'processor':>12}")
        for name, seconds in found["seconds"].items():
            print(f"{name:<20}{seconds:>12.4g}{found['processor'][name]:>12.4g}")
    print(f"load average {load:.1f} before, {os.getloadavg()[0]:.1f} after; {os.cpu_count()} processors")
    if arguments.json:
        arguments.json.write_text(json.dumps({"load": load, "found": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
