"""A training set from logs under a memory limit: only what the spine can need is laid aside, and the bytes are the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import alignment as al
import ingestion
from alignment import memory
from alignment.engines import spilling
from alignment.engines.spilling_store import Store
from alignment.memory import Portions

T0 = datetime(2026, 1, 1, tzinfo=UTC)
HOURS = 400


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So little room that everything is made in many parts."""
    monkeypatch.setattr(memory.Portions, "of", lambda _room: Portions(batch=4_000, group=60_000, out=3_000))
    monkeypatch.setattr("alignment.larger.fits", lambda *_: False)


@pytest.fixture
def log(tmp_path: Path) -> ingestion.ObservationLog:
    """Four sites, hourly, in eight files; some values are revised half a day later and some taken back."""
    log = ingestion.create_log(tmp_path / "logs", "meter", entities=["site"])
    events = [T0 + timedelta(hours=n) for n in range(HOURS)]
    for part in range(8):
        hours = events[part * 50 : part * 50 + 50]
        first = pl.DataFrame({"site": ["a", "b", "c", "d"]}).join(pl.DataFrame({"event_time": hours}), how="cross")
        first = first.with_columns(
            arrival_time=pl.col("event_time") + timedelta(minutes=20),
            load_kw=pl.col("event_time").dt.epoch("s").cast(pl.Float64).sqrt(),
            is_retraction=False,
        )
        later = first.gather_every(7).with_columns(
            pl.col("arrival_time") + timedelta(hours=12),
            pl.col("load_kw") + 1,
            is_retraction=pl.col("event_time").dt.hour() == 3,
        )
        log.append(pl.concat([first, later]).sort("arrival_time"))
    return log


def asked(first: int, last: int) -> pl.DataFrame:
    ticks = [T0 + timedelta(hours=n, minutes=25) for n in range(first, last)]
    return pl.DataFrame({"site": ["c", "a", "zz"]}).join(pl.DataFrame({"prediction_time": ticks}), how="cross")


def view(log: ingestion.ObservationLog) -> al.FeatureView:
    features = [al.lag("load_kw", "2h", "4h"), al.window("load_kw", ["mean", "count"], "1d")]
    return al.FeatureView("meter", ["site"], log, features)


def test_a_data_set_of_a_log_has_the_same_bytes_in_parts(log: ingestion.ObservationLog, tmp_path: Path) -> None:
    label = al.label("load_kw", "1h", tolerance="30m", release="12h")
    whole = al.build_dataset(asked(30, 390), view(log), label=label)
    parts = al.build_dataset(
        asked(30, 390).lazy(), view(log), label=label, into=tmp_path / "parts", memory_limit="64GiB"
    )
    assert parts.manifest == whole.manifest
    whole.write(tmp_path / "whole")
    for name in ("data.parquet", "manifest.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert parts.frame.equals(whole.frame)


def test_only_rows_that_the_spine_can_need_are_laid_aside(
    log: ingestion.ObservationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[pl.DataFrame] = []

    def spread(store: Store, frame: pl.DataFrame, buckets: object) -> None:
        if "load_kw" in frame.columns:
            kept.append(frame)
        original(store, frame, buckets)  # type: ignore[arg-type]

    original = spilling.spread
    monkeypatch.setattr(spilling, "spread", spread)
    spine = asked(100, 120)
    joined = al.point_in_time_join(spine, view(log), memory_limit="64GiB")
    assert joined.equals(al.point_in_time_join(spine, view(log)))
    rows = pl.concat(kept)
    assert set(rows["site"]) == {"a", "c"}
    assert rows["event_time"].min() > T0 + timedelta(hours=100, minutes=25) - timedelta(
        days=1
    )  # the window is the longest
    assert rows["arrival_time"].max() <= T0 + timedelta(hours=119, minutes=25)


def test_statuses_of_a_log_are_the_same_in_parts(log: ingestion.ObservationLog) -> None:
    spine = asked(0, 60)
    whole = al.point_in_time_join(spine, view(log), status=True)
    parts = al.point_in_time_join(spine, view(log), status=True, memory_limit="64GiB")
    assert parts.equals(whole)
    assert set(whole["meter__load_kw_lag_2h__status"]) >= {"present", "missing"}
