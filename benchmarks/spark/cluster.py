"""A Spark cluster of several processes on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def cluster(*, workers: int, memory: str, scratch: Path) -> Iterator[Any]:
    """A session on workers of one core each; it ends with the block.

    Args:
        workers: How many executors, each a process of its own.
        memory: Heap of each, and of the driver, e.g. `"2g"`; an executor's Python workers come on top.
        scratch: Where shuffles spill to.
    """
    import pyspark
    from pyspark.sql import SparkSession

    home = os.path.dirname(pyspark.__file__)  # noqa: PTH120
    os.environ |= {"SPARK_HOME": home, "SPARK_SCALA_VERSION": "2.13", "PYSPARK_PYTHON": sys.executable}
    os.environ |= {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_WORKER_DIR": str(scratch / "work")}
    megabytes = int(memory.removesuffix("g")) * 1024
    settings = {
        "spark.executor.memory": memory,
        "spark.driver.memory": memory,
        "spark.local.dir": str(scratch / "shuffle"),
        "spark.ui.port": "0",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # not the INT96 of old, which knows no zone
        "spark.sql.shuffle.partitions": str(8 * workers),
        "spark.default.parallelism": str(4 * workers),
        "spark.executorEnv.PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[2])]),
    }
    building = SparkSession.builder.master(f"local-cluster[{workers},1,{megabytes}]").appName("asknown benchmarks")
    for name, value in settings.items():
        building = building.config(name, value)
    session = building.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    try:
        yield session
    finally:
        session.stop()
