"""`python -m benchmarks.larger_than_memory`: training sets from more observations than a memory limit holds.

Makes Parquet files of 30, 100 and 300 million observations in a scratch folder (they stay there for the next run), and builds a
training set from each in a process of its own, under a limit and with everything laid aside on disk. Prints seconds, peak
resident memory, and how the time compares with that of fewer observations, if it were proportional; and seconds of processor
time, which other work on the machine does not lengthen much. Exits with 1 if a peak is above the limit or a build takes longer
than allowed. About a quarter of an hour and 35 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import alignment as al
from alignment.dataset_writing import write_rows
from alignment.memory import parse_bytes, size_text

MILLION = 1_000_000
START = 1_767_225_600_000_000
EVERY = 600_000_000
HOUR = 3_600_000_000
ENTITIES = 10_000
PER_QUESTION = 100
"""Observations there are for each row of the spine."""
STEP = 1 << 20
BOUNDS = {30: 2.0, 100: 1.25}
"""By how much the greatest build may take longer than in proportion to that of so many million observations."""
INSTANT = pl.Datetime("us", "UTC")


def observed(rows: int) -> Iterator[pl.DataFrame]:
    """Measurements of each site every ten minutes, each up to an hour late; in the order of their events."""
    for start in range(0, rows, STEP):
        number = np.arange(start, min(rows, start + STEP))
        event = START + number // ENTITIES * EVERY
        draws = np.random.default_rng(start)
        yield pl.DataFrame(
            {
                "site": number * 7919 % ENTITIES,
                "event_time": pl.Series(event).cast(INSTANT),
                "arrival_time": pl.Series(event + draws.integers(0, HOUR, len(number))).cast(INSTANT),
                "load_kw": draws.normal(size=len(number)),
                "log_sequence": number,
            }
        )


def asked(rows: int) -> Iterator[pl.DataFrame]:
    """Random sites at random instants of the observations' time."""
    last = START + rows // ENTITIES * EVERY
    for start in range(0, rows // PER_QUESTION, STEP):
        draws = np.random.default_rng([rows, start])
        count = min(STEP, rows // PER_QUESTION - start)
        yield pl.DataFrame(
            {
                "site": draws.integers(0, ENTITIES, count),
                "prediction_time": pl.Series(draws.integers(START, last, count)).cast(INSTANT),
            }
        )


def made(folder: Path, rows: int) -> Path:
    """The folder with `rows.parquet` and `spine.parquet`, made unless it is there."""
    home = folder / f"{rows}"
    if not (home / "made").exists():
        home.mkdir(parents=True, exist_ok=True)
        write_rows(observed(rows), home / "rows.parquet")
        write_rows(asked(rows), home / "spine.parquet")
        (home / "made").touch()
    return home


def view(rows: Path) -> al.FeatureView:
    """What is computed: newest value, the one a day before, aggregates over a day."""
    features = [
        al.latest("load_kw"),
        al.lag("load_kw", "24h"),
        al.window("load_kw", ["count", "mean", "max", "std"], "24h"),
    ]
    return al.FeatureView("meter", ["site"], rows, features)


def build(home: Path, limit: str) -> dict[str, Any]:
    """Build once in this process, everything laid aside, and say how that went."""
    from alignment import larger

    larger.fits = lambda *_: False  # type: ignore[attr-defined]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=home) as folder:
        dataset = al.build_dataset(
            home / "spine.parquet", view(home / "rows.parquet"), into=Path(folder) / "set", memory_limit=limit
        )
        told = dataset.manifest
        seconds = time.perf_counter() - began
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    return {
        "questions": told["spine"]["rows"],
        "nulls": {name: feature["nulls"] for name, feature in told["features"].items()},
        "content_hash": told["content_hash"],
        "seconds": seconds,
        "cpu_seconds": time.process_time(),
        "peak_bytes": peak,
    }


def measured(home: Path, limit: str) -> dict[str, Any]:
    """`build` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.larger_than_memory", "--child", str(home), "--limit", limit]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main() -> int:
    """Measure each size; 1 if a bound was broken, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.larger_than_memory", description=__doc__)
    parser.add_argument("--millions", type=int, nargs="+", default=[30, 100, 300], help="how many observations")
    parser.add_argument("--limit", default="4GiB", help="memory limit of a build")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "asknown-larger-than-memory")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child is not None:
        print(json.dumps(build(chosen.child, chosen.limit)))
        return 0
    limit, found, broken = parse_bytes(chosen.limit), {}, False
    print(
        f"{'observations':>14} {'questions':>10} {'seconds':>8} {'of CPU':>8} {'peak':>10} {'of limit':>8}  of linear from"
    )
    for millions in chosen.millions:
        home = made(chosen.data, millions * MILLION)
        one = found[millions] = measured(home, chosen.limit) | {"load_average": os.getloadavg()[0]}
        ratios = {n: one["seconds"] / before["seconds"] * n / millions for n, before in found.items() if n < millions}
        one["of_linear"] = {f"{n}M": ratio for n, ratio in ratios.items()}
        share = one["peak_bytes"] / limit
        broken |= share > 1.0 or any(ratio > BOUNDS.get(n, 2.0) for n, ratio in ratios.items())
        texts = ", ".join(f"{n}M: {ratio:.2f}" for n, ratio in ratios.items())
        print(
            f"{millions * MILLION:14,} {one['questions']:10,} {one['seconds']:8.1f} {one['cpu_seconds']:8.1f} {size_text(one['peak_bytes']):>10} "
            f"{share:8.0%}  {texts}",
            flush=True,
        )
    if chosen.json is not None:
        told = {"limit_bytes": limit, "processors": os.cpu_count(), "runs": found}
        chosen.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
