"""A Spark session for a command: the cluster is the one that Spark's own settings name."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from serving.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession


@contextmanager
def spark_session(engine: str) -> Iterator[SparkSession | None]:
    """A session as `spark-defaults.conf`, `SPARK_REMOTE` or `spark-submit` configure it, if that is the engine; it ends with the block.

    Raises:
        MissingExtraError: If PySpark is not installed.
    """
    if engine != "spark":
        yield None
        return
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise MissingExtraError("PySpark", "spark", "--engine spark") from error
    found = SparkSession.getActiveSession()
    session = found or SparkSession.builder.appName("asknown").getOrCreate()
    if found is None:
        _same_python(session)
    try:
        yield session
    finally:
        if found is None:
            session.stop()


def _same_python(session: SparkSession) -> None:
    """Let workers on this machine run this Python, which has the package; those of a cluster run what its settings say."""
    from pyspark.sql.utils import is_remote

    if is_remote() or "PYSPARK_PYTHON" in os.environ:
        return
    if (session.sparkContext.master or "").startswith("local"):
        session.sparkContext.pythonExec = sys.executable
