"""What the cases of online serving share: one set of rows behind `asknown serve` and behind `feast serve`.

20 features per entity: 10 columns' latest values, and 10 aggregates over the last 24 hours, 144 events. Feast cannot compute windows:
it is given their values, computed by asknown at the instant of loading, as ten more columns. The events are such that no window
changes for five minutes, so that both must answer the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.environments import HERE

COLUMNS = tuple(f"c{number}" for number in range(10))
AGGREGATES = ("mean", "std", "min", "max", "sum")
WINDOWS = tuple(f"{column}_{aggregate}_24h" for column in COLUMNS[:2] for aggregate in AGGREGATES)
EVENTS = 200
VIEWS = f"""
from pathlib import Path

import alignment as al
import ingestion

log = ingestion.open_log(Path(__file__).parent / "logs", "meter")
features = [*(al.latest(name) for name in {COLUMNS!r})]
features += [al.window(name, {list(AGGREGATES)!r}, "24h") for name in {COLUMNS[:2]!r}]
views = [al.FeatureView("observations", ["entity"], log, features)]
"""
FEATURE_STORE = """
project: yardstick
provider: local
registry: registry.db
entity_key_serialization_version: 3
offline_store: {{type: file}}
online_store: {store}
"""
REPOSITORY = f"""
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64

entity = Entity(name="entity", join_keys=["entity"], value_type=ValueType.INT64)
source = FileSource(name="rows", path="rows.parquet", timestamp_field="event_timestamp")
observations = FeatureView(
    name="observations", entities=[entity], ttl=timedelta(0), source=source,
    schema=[Field(name="entity", dtype=Int64), *(Field(name=name, dtype=Float64) for name in {(*COLUMNS, *WINDOWS)!r})],
)
"""


@dataclass
class Server:
    """A server that answers questions."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    said: Path

    def cpu(self) -> float:
        """Processor seconds of it and of those it started."""
        import psutil

        whole = psutil.Process(self.process.pid)
        times = [each.cpu_times() for each in (whole, *whole.children(recursive=True))]
        return sum(found.user + found.system for found in times)

    def ask(self, body: bytes) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/get-online-features", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.loads(answer.read()))

    def load(self, bodies: Path, *, connections: int, seconds: float) -> dict[str, Any]:
        """Let the client ask, and return what it says."""
        words = [str(self.port), str(connections), str(seconds), str(bodies)]
        command = [sys.executable, "-m", "benchmarks.asking", *words]
        done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=True)
        return dict(json.loads(done.stdout))


def make(folder: Path, entities: int) -> None:
    """The rows in a log, and their values now as Feast takes them."""
    import numpy as np
    import polars as pl

    import alignment as al
    import ingestion

    draw = np.random.default_rng(4)
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=4)
    events = [start - timedelta(minutes=10 * number) for number in range(EVENTS)]
    rows = pl.DataFrame({"event_time": events * entities}).with_columns(
        pl.Series("entity", np.repeat(np.arange(entities), EVENTS)),
        *(pl.Series(name, draw.normal(100, 20, EVENTS * entities)) for name in COLUMNS),
    )
    log = ingestion.create_log(str(folder / "logs"), "meter", entities=["entity"])
    log.append(rows)
    (folder / "views.py").write_text(VIEWS)
    arrived = log.observed_through()
    assert arrived is not None
    while datetime.now(UTC) < arrived + timedelta(seconds=1):
        time.sleep(0.1)
    spine = pl.DataFrame({"entity": np.arange(entities)}).with_columns(
        prediction_time=pl.lit(datetime.now(UTC)).dt.cast_time_unit("us")
    )
    features = [*(al.latest(name) for name in COLUMNS), *(al.window(name, AGGREGATES, "24h") for name in COLUMNS[:2])]
    view = al.FeatureView("observations", ["entity"], log, features)
    now = al.point_in_time_join(spine, [view]).rename(lambda name: name.removeprefix("observations__"))
    now.drop("prediction_time").with_columns(event_timestamp=pl.lit(start)).write_parquet(folder / "rows.parquet")


def bodies(folder: Path, *, entities: int, rows: int) -> Path:
    """A file of questions about entities drawn at random, 20 features each."""
    draw = random.Random(rows)
    features = [f"observations:{name}" for name in (*COLUMNS, *WINDOWS)]
    path = folder / f"bodies-{rows}.txt"
    asked = [draw.sample(range(entities), rows) for _ in range(64)]
    path.write_text("".join(json.dumps({"features": features, "entities": {"entity": each}}) + "\n" for each in asked))
    return path


@contextlib.contextmanager
def asknown(folder: Path) -> Iterator[Server]:
    """`asknown serve`, one process."""
    port = _free_port()
    command = [sys.executable, "-c", "from serving.cli import main; main()", "serve", "views.py", "--port", str(port)]
    with _running("asknown serve", command, folder, port, "/readyz", {"PYTHONPATH": str(HERE.parent)}) as server:
        yield server


@contextlib.contextmanager
def feast(folder: Path, store: str) -> Iterator[Server]:
    """`feast serve` over a store that holds the rows' values, one process."""
    with contextlib.ExitStack() as stack:
        home = folder / f"feast-{store}"
        home.mkdir()
        shutil.copy(folder / "rows.parquet", home)
        said = "{type: sqlite, path: online.db}"
        if store == "redis":
            said = f'{{type: redis, connection_string: "127.0.0.1:{stack.enter_context(redis(home))}"}}'
        (home / "feature_store.yaml").write_text(FEATURE_STORE.format(store=said))
        (home / "repository.py").write_text(REPOSITORY)
        code = (
            "import pandas as pd, sys; from feast import FeatureStore; from feast.repo_operations import *; import repository as r;"
            "s = FeatureStore('.'); s.apply([r.entity, r.observations]); s.write_to_online_store('observations', pd.read_parquet('rows.parquet'))"
        )
        subprocess.run([sys.executable, "-c", code], cwd=home, check=True, capture_output=True)
        port = _free_port()
        # By default its worker starts again after every 1,000 requests, and reads the registry again every 60 s.
        calm = ["--no-access-log", "--max-requests", "0", "--max-requests-jitter", "0", "--registry_ttl_sec", "3600"]
        command = [sys.executable, "-m", "feast.cli.cli", "serve", "--host", "127.0.0.1", "--port", str(port), *calm]
        yield stack.enter_context(_running(f"feast serve, {store}", command, home, port, "/health", {}))


@contextlib.contextmanager
def redis(home: Path) -> Iterator[int]:
    port = _free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def _running(
    name: str, command: list[str], folder: Path, port: int, health: str, more: dict[str, str]
) -> Iterator[Server]:
    said = folder / "said.txt"
    with said.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=folder, stdout=stream, stderr=stream, env={**os.environ, "NO_COLOR": "1", **more}
        )
    try:
        end = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}{health}", timeout=5).close()
                break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{name} does not answer: {said.read_text()[-2_000:]}")
            time.sleep(0.1)
        yield Server(name, process, port, said)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
