"""The published SQL of a log against `alignment.snapshot`, in DuckDB: lives of logs, asked at instants and positions."""

from __future__ import annotations

import tempfile
from datetime import datetime

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_lives import MINUTE, SHAPES, START, STEPS, Life

import alignment as al
import ingestion


def plain(frame: pl.DataFrame) -> list[str]:
    return sorted(map(repr, frame.rows()))


def expected(log: ingestion.ObservationLog, t: datetime, p: int | None) -> pl.DataFrame:
    return log.table.logical_to_stored(al.snapshot(log, t, position=p))


def duck(log: ingestion.ObservationLog) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for statement in ingestion.snapshot_sql(log, source="files"):
        connection.execute(statement)
    return connection


@pytest.mark.parametrize(("kind", "by_id"), SHAPES)
@settings(max_examples=12)
@given(
    composite=st.booleans(),
    steps=STEPS,
    minutes=st.lists(st.integers(-6, 12), min_size=1, max_size=3),
    back=st.integers(0, 20),
)
def test_duckdb_knows_at_every_instant_and_position_what_a_snapshot_does(kind, by_id, composite, steps, minutes, back):
    with tempfile.TemporaryDirectory() as root:
        life = Life(root, kind, by_id=by_id, composite=composite)
        for step in steps:
            life.do(*step)
        log = life.log
        connection = duck(log)
        for minute in minutes:
            t = START + 10 * minute * MINUTE
            for p in (None, max(log.position() - back, -1)):
                known = expected(log, t, p)
                asked = f"SELECT * FROM grid_load_as_of(TIMESTAMPTZ '{t.isoformat()}'" + (
                    ")" if p is None else f", {p})"
                )
                found = connection.sql(asked).pl()
                assert found.columns == known.columns
                assert plain(found) == plain(known)
        scanned = log.table.logical_to_stored(log.scan().collect())
        seen = connection.sql("FROM grid_load").pl()
        assert sorted(seen.columns) == sorted(scanned.columns)
        assert plain(seen.select(scanned.columns)) == plain(scanned)
        connection.close()
