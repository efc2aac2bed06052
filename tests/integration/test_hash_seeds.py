"""R17: the same bytes whatever the seed of Python's hashes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import io
import sys
from datetime import datetime, timedelta, UTC

import polars as pl

import alignment as al

start = datetime(2026, 1, 5, tzinfo=UTC)
rows = [(f"s{i % 7}", i % 3, start + timedelta(minutes=10 * (i // 7)), start + timedelta(minutes=10 * (i // 7) + 7 * (i % 5)), 0.1 * i)
        for i in range(400)]
frame = pl.DataFrame(rows, schema=["station", "sensor", "event_time", "arrival_time", "temp"], orient="row")
features = [al.latest("temp"), al.lag("temp", "1h"), al.window("temp", ["mean", "std", "q90", "slope"], "2h"), al.sequence("temp", 3)]
views = [al.FeatureView(name, ["station", "sensor"], frame, features) for name in ("one", "two")]
spine = al.make_spine(frame.select("station", "sensor").unique(maintain_order=True), start, start + timedelta(hours=8), "20m")
joined = al.point_in_time_join(spine, views, status=True)
sink = io.BytesIO()
joined.write_parquet(sink)
sys.stdout.buffer.write(sink.getvalue())
"""


def test_three_hash_seeds_give_the_same_bytes():
    digests = []
    for seed in ("0", "1", "4242"):
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": import_path()},
            capture_output=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr.decode()
        digests.append(hashlib.sha256(run.stdout).hexdigest())
    assert len(set(digests)) == 1


def import_path() -> str:
    """Where this process found the package, so that the children take the same one."""
    import alignment

    return str(Path(alignment.__file__).resolve().parent.parent)
