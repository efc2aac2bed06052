"""The same over Spark Connect: a server of its own, and nothing of the JVM in this process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from services import program

import alignment as al

START = datetime(2026, 1, 5, tzinfo=UTC)

CLIENT = """
import json, sys
import polars as pl
from pyspark.sql import SparkSession
import alignment as al
folder, address = sys.argv[1:]
spark = SparkSession.builder.remote(address).getOrCreate()
assert "connect" in type(spark).__module__
rows = spark.read.parquet(folder + "/rows.parquet")
asked = spark.read.parquet(folder + "/spine.parquet")
def views(frame):
    return [al.FeatureView("meter", ["site"], frame, [al.latest("load"), al.window("load", ["mean", "std"], "3h"), al.sequence("load", 2)])]
label = al.label("load", "1h", tolerance="30m")
made = al.build_dataset(asked, views(rows), label=label, engine="spark", spark=spark)
made.write(folder + "/set")
found = al.point_in_time_join(pl.read_parquet(folder + "/spine.parquet"), views(folder + "/rows.parquet"), engine="spark", spark=spark, status=True)
pl.DataFrame(found.toArrow()).write_parquet(folder + "/found.parquet")
report = al.leak_report(asked, views(rows), engine="spark", spark=spark)
ticks = al.replay(views(rows), {"site": ["s1"]}, *(pl.read_parquet(folder + "/span.parquet").row(0)), "5h", engine="spark", spark=spark)
print(json.dumps({"hash": made.manifest["content_hash"], "differing": int(report.frame["rows_differing"].sum()), "ticks": ticks.count()}))
spark.stop()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a Connect server listens: a process of its own, its tasks in others."""
    program("java", package="default-jre-headless")
    pyspark = pytest.importorskip("pyspark")
    pytest.importorskip("grpc")
    folder = tmp_path_factory.mktemp("connect")
    home = Path(pyspark.__file__).parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    package = str(Path(al.__file__).resolve().parent.parent)
    environment = os.environ | {
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_WORKER_DIR": str(folder / "work"),
        "SPARK_LOCAL_DIRS": str(folder / "scratch"),
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
    }
    settings = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.ui.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "3",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }
    command = [str(home / "bin/spark-submit"), "--master", "local[2]", "--driver-memory", "1g"]
    command += [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
    command += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        _wait(process, port, folder / "server.log")
        yield f"sc://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-2_000:]
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    pytest.fail(log.read_text()[-2_000:])


def _written(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    draw = np.random.default_rng(13)
    event = (START + pl.Series(draw.integers(0, 3_000, 1_000)) * timedelta(minutes=1)).dt.convert_time_zone("UTC")
    late = pl.Series(draw.integers(0, 240, 1_000)) * timedelta(minutes=1)
    rows = pl.DataFrame(
        {
            "site": [f"s{n}" for n in draw.integers(0, 5, 1_000)],
            "event_time": event,
            "arrival_time": event + late,
            "log_sequence": np.arange(1_000),
            "load": draw.standard_normal(1_000),
        }
    )
    spine = al.make_spine({"site": [f"s{n}" for n in range(5)]}, START, START + timedelta(days=1), "57m")
    rows.write_parquet(folder / "rows.parquet")
    spine.write_parquet(folder / "spine.parquet")
    pl.DataFrame({"start": [START], "end": [START + timedelta(days=1)]}).write_parquet(folder / "span.parquet")
    return rows, spine


@pytest.mark.soak
def test_a_connect_session_gives_the_same_bytes(server, tmp_path):
    rows, spine = _written(tmp_path)
    features = [al.latest("load"), al.window("load", ["mean", "std"], "3h"), al.sequence("load", 2)]
    view, label = al.FeatureView("meter", ["site"], rows, features), al.label("load", "1h", tolerance="30m")
    expected = al.build_dataset(spine.sort("site", "prediction_time"), [view], label=label)
    joined = al.point_in_time_join(spine, [view], status=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPARK_")}
    ran = subprocess.run(
        [sys.executable, "-c", CLIENT, str(tmp_path), server],
        env=environment | {"SPARK_CONNECT_MODE_ENABLED": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert ran.returncode == 0, ran.stderr[-3_000:]
    told: dict[str, Any] = pl.read_json(ran.stdout.splitlines()[-1].encode()).row(0, named=True)
    assert told["hash"] == expected.manifest["content_hash"]
    keys = ["site", "prediction_time"]
    found = pl.read_parquet(tmp_path / "found.parquet").cast(pl.Schema(joined.schema))
    assert_frame_equal(found.sort(keys), joined.sort(keys), check_exact=True)
    assert told["differing"] == al.leak_report(spine, view).frame["rows_differing"].sum()
    assert told["ticks"] == 5
