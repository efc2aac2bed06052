"""The rules as plain DuckDB SQL: count rows, then revisions, then events. The reference answer of every case."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.question import Question

NAME = "duckdb sql"
ENVIRONMENT = "project"
CLAIM = "exact"
KINDS = ("latest", "windows", "snapshot")

# R2: the order of revisions, as one number.
NUMBERED = """
    numbered AS (
        SELECT *, row_number() OVER (ORDER BY arrival_time, log_sequence) AS revision FROM observations
    )
"""

# R1: of the rows that had arrived, the last revision of each event; R3: unless that is a retraction.
CURRENT = """
    current AS (
        SELECT spine.row, numbered.event_time, max(numbered.revision) AS revision
        FROM spine JOIN numbered USING ({keys})
        WHERE numbered.arrival_time <= spine.prediction_time
          AND numbered.event_time <= spine.prediction_time {window}
        GROUP BY spine.row, numbered.event_time
    )
"""

LATEST = """
    WITH {numbered}, {current},
    newest AS (
        SELECT current.row, arg_max(revision, current.event_time) AS revision
        FROM current JOIN numbered USING (revision)
        WHERE NOT is_retraction
        GROUP BY current.row
    )
    SELECT spine.row, {columns}
    FROM spine LEFT JOIN newest USING (row) LEFT JOIN numbered USING (revision)
    ORDER BY spine.row
"""

WINDOWS = """
    WITH {numbered}, {current}
    SELECT spine.row, {aggregates}
    FROM spine
    LEFT JOIN current USING (row)
    LEFT JOIN numbered ON numbered.revision = current.revision AND NOT numbered.is_retraction
    GROUP BY spine.row
    ORDER BY spine.row
"""

SNAPSHOT = """
    WITH {numbered},
    current AS (
        SELECT max(revision) AS revision
        FROM numbered
        WHERE arrival_time <= TIMESTAMPTZ '{as_of}'
        GROUP BY {keys}, event_time
    )
    SELECT {keys}, event_time, {columns}
    FROM current JOIN numbered USING (revision)
    WHERE NOT is_retraction
    ORDER BY {keys}, event_time
"""

AGGREGATES = {
    "count": "count({c})",
    "sum": "sum({c})",
    "mean": "avg({c})",
    "std": "stddev_samp({c})",
    "min": "min({c})",
    "max": "max({c})",
}


def load(question: Question) -> tuple[duckdb.DuckDBPyConnection, str]:
    """A connection that holds both tables in memory, and the statement."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false; SET memory_limit = '8GB'")
    connection.execute(f"SET temp_directory = '{tempfile.gettempdir()}/yardstick-duckdb'")
    source = question.observations + ("/*.parquet" if Path(question.observations).is_dir() else "")
    connection.execute(f"CREATE TABLE observations AS SELECT * FROM read_parquet('{source}')")
    if question.spine:
        connection.execute(f"CREATE TABLE spine AS SELECT * FROM read_parquet('{question.spine}')")
    return connection, statement(question)


def statement(question: Question) -> str:
    """The SQL text of a question."""
    keys = ", ".join(question.entities)
    window = ""
    if question.kind == "windows":
        window = f"AND numbered.event_time > spine.prediction_time - INTERVAL {question.minutes} MINUTE"
    elif question.ttl_hours:
        window = f"AND numbered.event_time >= spine.prediction_time - INTERVAL {question.ttl_hours} HOUR"
    parts = {"numbered": NUMBERED, "current": CURRENT.format(keys=keys, window=window), "keys": keys}
    parts["columns"] = ", ".join(f"numbered.{column}" for column in question.columns)
    column = f"numbered.{question.columns[0]}"
    parts["aggregates"] = ", ".join(f"{AGGREGATES[name].format(c=column)} AS {name}" for name in question.aggregates)
    text = {"latest": LATEST, "windows": WINDOWS, "snapshot": SNAPSHOT}[question.kind]
    return text.format(**parts, as_of=question.as_of)


def run(loaded: tuple[duckdb.DuckDBPyConnection, str]) -> Any:
    """The answer as an Arrow table."""
    connection, sql = loaded
    return connection.sql(sql).to_arrow_table()


def write(answer: Any, path: Path) -> None:
    """The answer as Parquet."""
    from pyarrow.parquet import write_table

    write_table(answer, path)
