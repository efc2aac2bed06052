"""`asknown sql` over logs in a bucket: DuckDB reads them by way of deltalake, credentials come from the environment."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from object_store import ObjectStore

import ingestion
from serving.cli import run

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


def test_logs_in_a_bucket_are_asked_as_those_in_a_folder(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in object_store.environment().items():
        monkeypatch.setenv(name, value)
    root = f"s3://{object_store.bucket()}/some logs"
    log = ingestion.create_log(root, "mast", entities=["station"], schema={"station": pl.String, "wind": pl.Float64})
    frame = pl.DataFrame({"station": ["a", "b"], "event_time": NOON, "wind": [1.0, 2.0]})
    log.append(frame.with_columns(arrival_time=NOON + timedelta(minutes=5)))
    log.append(frame.with_columns(arrival_time=NOON + timedelta(minutes=9), wind=pl.lit(3.0)))
    query = "SELECT station, wind FROM mast_as_of('2025-06-01T12:0{}:00Z') ORDER BY station"
    for minute, values in ((4, []), (5, [1.0, 2.0]), (9, [3.0, 3.0])):
        assert run(["sql", query.format(minute), "--root", root, "--format", "json"]) == 0
        assert [row["wind"] for row in json.loads(capsys.readouterr().out)] == values
    assert run(["sql", "--print-macros", "--root", root]) == 0
    assert f"FROM delta_scan('{root}/mast');" in capsys.readouterr().out
