"""The published SQL of a log against `alignment.snapshot`, in Spark SQL over the files that the Delta log names.

Delta's own jars are not part of PySpark. The text for `delta.`path`` differs from the text here in the first view alone, which
`tests/e2e/test_command_line_sql.py` looks at.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import polars.selectors as cs
import pytest
from log_lives import MINUTE, SHAPES, START, Life

import alignment as al
import ingestion

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# One batch with revisions of one key, a withdrawal with and without an issue, and values that a row of the key replaces.
CELLS = [(0, 0, 0, 0), (0, 0, 0, 1), (1, 1, 2, 0), (0, 1, 0, 1), (1, 0, 2, 0), (0, 2, 3, 0), (1, 3, 3, 2), (0, 3, 1, 2)]
ROWS = [(a, a, b, c, 2.5, d, number % 2) for number, (a, b, c, d) in enumerate(CELLS)]
LIFE = [
    ("append", ROWS),
    ("change", "add"),
    ("append", ROWS[::-1]),
    ("restamp", (0, 9)),
    ("append", [(0, 0, 1, 1, -0.0, 0, 1)]),
    ("change", "rename"),
    ("change", "widen"),
    ("append", ROWS[2:4]),
    ("tidy", "bad"),
    ("tidy", "poll"),
    ("tidy", "compact"),
    ("tidy", "erase"),
    ("append", ROWS[:2]),
]


def plain(frame: pl.DataFrame) -> list[str]:
    return sorted(map(repr, frame.with_columns(cs.datetime().dt.convert_time_zone("UTC")).rows()))


QUESTIONS = [(-2, 0), (3, 0), (12, 9), (12, None)]  # minutes after the start, positions before the head
SOME = [
    pytest.param(*shape, marks=[] if shape in (("measurement", False), ("forecast", True)) else pytest.mark.soak)
    for shape in SHAPES
]


@pytest.mark.parametrize(("kind", "by_id"), SOME)
def test_spark_knows_what_a_snapshot_does(spark: SparkSession, tmp_path: Path, kind: str, by_id: bool) -> None:
    life = Life(str(tmp_path / "it's {a}, log"), kind, by_id=by_id, composite=True)
    for step in LIFE:
        life.do(*step)
    log = life.log
    for statement in ingestion.snapshot_sql(log, "spark", source="files"):
        spark.sql(statement)
    asked, known = [], []
    for number, (minute, back) in enumerate(QUESTIONS):
        t, p = START + 10 * minute * MINUTE, None if back is None else log.position() - back
        at_p = "" if p is None else f", {p}"
        asked.append(f"SELECT {number} AS question, * FROM grid_load_as_of(TIMESTAMP '{t.isoformat()}'{at_p})")
        known.append(log.table.logical_to_stored(al.snapshot(log, t, position=p)))
    found = pl.from_arrow(spark.sql(" UNION ALL ".join(asked)).toArrow())
    for number, expected in enumerate(known):
        answer = found.filter(question=number).drop("question")
        assert answer.columns == expected.columns
        assert plain(answer) == plain(expected)
    assert len({expected.height for expected in known}) > 1


def test_spark_sees_an_empty_log(spark: SparkSession, tmp_path: Path) -> None:
    log = ingestion.create_log(tmp_path, "new", entities=["site"])
    for statement in ingestion.snapshot_sql(log, "spark", source="files"):
        spark.sql(statement)
    assert spark.sql("SELECT site, event_time FROM new_as_of(TIMESTAMP '2026-01-01 00:00:00Z')").collect() == []
