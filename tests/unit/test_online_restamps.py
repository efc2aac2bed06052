"""A batch whose restamp is late too is stamped again; a server that sees both at once takes the later one (R14)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

import alignment as al
from ingestion import create_log
from ingestion.append import _confirm
from serving.online import FeatureServer

START = datetime(2026, 1, 5, 12, tzinfo=UTC)


def test_of_two_restamps_between_two_looks_the_later_counts(tmp_path: Path) -> None:
    now = START
    log = create_log(tmp_path, "weather", entities=["station"], publish_margin="1s", clock=lambda: now)
    frame = pl.DataFrame({"station": ["a"] * 6, "event_time": [START - timedelta(minutes=m) for m in range(6)]})
    frame = frame.with_columns(temp=pl.col("event_time").dt.epoch("s").cast(pl.Float64))
    log.append(frame)  # 0 to 5
    view = al.FeatureView("weather", observations=log, features=[al.latest("temp"), al.arrival_age()])
    server = FeatureServer([view], clock=lambda: now)
    server.catch_up()
    batch = log.scan(columns=["batch_id"]).collect()["batch_id"][0]
    # as when the commit, and then the record that says so, are confirmed late
    later = iter([START + timedelta(seconds=s) for s in (5, 20, 20, 20)])
    log.table.clock = lambda: next(later)
    stamp = int((START + timedelta(seconds=1)).timestamp() * 1_000_000)
    _confirm(log.table, batch, stamp, stamp + 4_000_000)
    # stamped at 5 s with a margin of 8 s, twice how late the commit was; and at 20 s with twice that
    assert log.restamps()["arrival_time"].to_list() == [START + timedelta(seconds=s) for s in (13, 36)]
    now = START + timedelta(minutes=1)
    server.catch_up()
    answer = server.read(None, {"station": ["a"]})
    # it arrived 36 s after the start, and is asked for 250 ms before one minute after it
    assert answer.columns[1].values == [timedelta(seconds=24) - timedelta(milliseconds=250)]
    joined = al.point_in_time_join(answer.to_frame().select("station", "prediction_time"), [view])
    assert joined["weather__arrival_age"].to_list() == answer.columns[1].values
    server.close()
