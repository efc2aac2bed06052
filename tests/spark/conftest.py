"""One Spark cluster for all tests of this folder: a master, two workers with an executor each, and this process as driver."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from services import program

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:  # `cluster`, whatever the import mode
    sys.path.insert(0, str(HERE))

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Short-lived JVMs: the quick compiler alone, and one thread to collect garbage.
JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"
CONFIG = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.extraJavaOptions": JAVA,
    "spark.executor.extraJavaOptions": JAVA,
    "spark.driver.memory": "1g",
    "spark.executor.memory": "512m",
    "spark.executorEnv.POLARS_MAX_THREADS": "1",
    "spark.log.level": "OFF",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.session.timeZone": "America/St_Johns",  # instants are instants, whatever the session shows
    "spark.sql.shuffle.partitions": "3",
    "spark.sql.codegen.wholeStage": "false",  # compiling takes longer than these rows do
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.port.maxRetries": "100",
}


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A session on a cluster of several processes, each with one processor and the package of this environment."""
    program("java", package="default-jre-headless")
    pyspark = pytest.importorskip("pyspark")
    from pyspark.sql import SparkSession

    folder = tmp_path_factory.mktemp("spark")
    found = os.environ | {
        "SPARK_HOME": str(Path(pyspark.__file__).parent),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(folder / "scratch"),
        "PYSPARK_PYTHON": sys.executable,
    }
    before = dict(os.environ)
    os.environ.update(found)
    try:
        builder = SparkSession.builder.master("local-cluster[2,1,640]").appName("asknown tests")
        config = CONFIG | {
            "spark.executorEnv.PYTHONPATH": os.pathsep.join([package_path(), str(HERE)]),
            "spark.sql.warehouse.dir": str(folder / "warehouse"),
        }
        session = builder.config(map=config).getOrCreate()
        gateway: Any = session.sparkContext._gateway
        work = Path(pyspark.__file__).parent / "work" / session.sparkContext.applicationId
        yield session
        session.stop()
        shutil.rmtree(work, ignore_errors=True)  # a local cluster's workers know no other place
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait(30)
    finally:
        os.environ.clear()
        os.environ.update(before)


def package_path() -> str:
    """Where this process found the package, so that executors take the same one."""
    import alignment

    return str(Path(alignment.__file__).resolve().parent.parent)
