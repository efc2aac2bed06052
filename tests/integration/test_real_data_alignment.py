"""Joins and snapshots over the reference data, against the oracle on samples of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import oracle
import polars as pl
import pytest
from compare import check
from oracle_clock import micros_of
from oracle_frames import Source, rows_of, view_of

import alignment as al

TIMES = ("event_time", "arrival_time", "issue_time")


def read(folder: Path, name: str) -> pl.DataFrame:
    """A table of the reference data, its times as UTC microseconds."""
    path = folder / "data" / name
    assert path.is_file(), f"{folder} is there and {path} is not"
    frame = pl.read_parquet(path)
    instants = [column for column in TIMES if column in frame.columns]
    naive = [column for column in instants if frame.schema[column].time_zone is None]
    return frame.with_columns(pl.col(naive).dt.replace_time_zone("UTC")).with_columns(
        pl.col(instants).dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    )


def spine(entities: pl.DataFrame, *instants: datetime) -> pl.DataFrame:
    times = pl.DataFrame({"prediction_time": pl.Series(list(instants), dtype=pl.Datetime("us", "UTC"))})
    return entities.unique(maintain_order=True).join(times, how="cross")


def compare(source: Source, asked: pl.DataFrame, **arguments: Any) -> pl.DataFrame:
    """Join over all of the source, with one thread and with two; the oracle sees the rows of the entities asked for."""
    joined = al.point_in_time_join(asked, [view_of(source)], status=True, threads=2, **arguments)
    assert joined.equals(al.point_in_time_join(asked, [view_of(source)], status=True, threads=1, **arguments))
    mine = source.frame.join(asked.select(source.entities).unique(), on=list(source.entities), how="semi")
    small = Source(**(vars(source) | {"frame": mine}))
    check(joined, asked, [small], **arguments)
    return joined


def same_events(known: pl.DataFrame, expected: list[oracle.Row], column: str) -> None:
    """A snapshot has the oracle's events with the oracle's values."""
    got = sorted(zip(known["event_time"], known["arrival_time"], known[column].to_list(), strict=True), key=repr)
    want = [(row["event"], row["arrival"], row["values"][column]) for row in expected]
    assert sorted(((micros_of(e), micros_of(a), v) for e, a, v in got), key=repr) == sorted(want, key=repr)


# --- forecasts with issue times -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wind(shared) -> Source:
    frame = read(shared, "energy_neso_wind/observations.parquet")
    features = (
        al.forecast("wind_forecast_mw", ["0s", "6h", "48h"], "4h"),
        al.forecast("wind_forecast_mw", "6h", "4h", "12h", name="noticed"),
        al.latest("wind_forecast_mw"),
        al.window("wind_forecast_mw", ["count", "mean", "max", "std"], "24h", "-24h"),
        al.sequence("wind_forecast_mw", 4),
        al.issue_age(),
        al.arrival_age(),
    )
    return Source("wind", frame, ("zone",), features, kind="forecast", on_tie="last")


def test_wind_forecasts_are_those_received_by_then(wind):
    # Arrivals of three captures, a microsecond before one of them, and instants in between.
    captures = wind.frame["arrival_time"].unique().sort()
    instants = [
        captures[10],
        captures[60] - timedelta(microseconds=1),
        captures[60],
        captures[100] + timedelta(minutes=7),
    ]
    near = pl.col("event_time").is_between(instants[0] - timedelta(hours=3), instants[-1] + timedelta(hours=50))
    sample = wind.frame.filter(near, pl.col("event_time").dt.hour() % 4 == 0, pl.col("event_time").dt.minute() == 0)
    joined = compare(Source(**(vars(wind) | {"frame": sample})), spine(wind.frame.select("zone"), *instants))
    assert joined["wind__wind_forecast_mw_forecast_6h"].null_count() == 0


def test_using_the_issue_time_as_arrival_would_leak(wind):
    # The data set's own warning: issues are received about 45 minutes after they are made.
    t = wind.frame["arrival_time"].unique().sort()[60] - timedelta(minutes=5)
    asked = spine(wind.frame.select("zone"), t)
    age = al.point_in_time_join(asked, [view_of(wind)])["wind__issue_age"][0]
    newest_made = wind.frame.filter(pl.col("issue_time") <= t)["issue_time"].max()
    newest_received = wind.frame.filter(pl.col("arrival_time") <= t)["issue_time"].max()
    assert newest_received < newest_made
    assert t - age == newest_received


def test_a_snapshot_of_wind_has_the_newest_received_issue_of_every_half_hour(wind):
    t = wind.frame["arrival_time"].unique().sort()[40]
    observations = view_of(wind).observations
    known = al.snapshot(observations, t)
    assert known.height == wind.frame.filter(pl.col("arrival_time") <= t)["event_time"].n_unique()
    same_events(known, oracle.snapshot(rows_of(wind), "forecast", micros_of(t)), "wind_forecast_mw")


# --- heavy revisions ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def epidemic(shared) -> Source:
    frame = read(shared, "epi_delphi_covid/observations.parquet")
    features = (
        al.latest("percent_cli"),
        al.latest("percent_cli", skip_null=True, name="reported"),
        al.lag("case_rate_7d_av", ["7d", "14d"], "0s"),
        al.window("case_rate_7d_av", ["count", "mean", "std", "slope", "q90"], "28d"),
        al.sequence("percent_cli", 7, step="1d"),
        al.event_age(),
    )
    return Source("epi", frame, ("geo_value",), features)


def test_epidemic_revisions_are_those_published_by_then(epidemic):
    instants = [
        datetime(2020, 9, 1, tzinfo=UTC),
        datetime(2021, 1, 15, 12, tzinfo=UTC),
        datetime(2021, 1, 16, tzinfo=UTC),
    ]
    places = epidemic.frame.select("geo_value").unique().sort("geo_value")[:2]
    joined = compare(epidemic, spine(places, *instants))
    assert (
        joined["epi__case_rate_7d_av_count_28d"].to_list() == [27] * joined.height
    )  # the newest event is of the day before, so 27 of (t - 28 d, t]


def test_as_of_takes_the_epidemic_back(epidemic):
    asked = spine(epidemic.frame.select("geo_value").unique().sort("geo_value")[:1], datetime(2021, 3, 1, tzinfo=UTC))
    then = compare(epidemic, asked, as_of=datetime(2021, 2, 1, tzinfo=UTC))
    now = compare(epidemic, asked)
    assert then["epi__event_age"][0] > now["epi__event_age"][0]


def test_snapshots_of_the_epidemic_are_the_oracle_s(epidemic):
    t = datetime(2020, 12, 24, tzinfo=UTC)
    one = epidemic.frame.filter(pl.col("geo_value") == epidemic.frame["geo_value"][0])
    known = al.snapshot(al.Observations(one, entities=["geo_value"]), t)
    expected = oracle.snapshot(rows_of(Source(**(vars(epidemic) | {"frame": one}))), "measurement", micros_of(t))
    same_events(known, expected, "percent_cli")


def test_averages_made_inside_a_snapshot_are_found_again(shared):
    # Its authors computed the 7-day means within each monthly version: a second opinion on windows over what was known.
    frame = read(shared, "epi_delphi_covid/case_death_rate_archive.parquet")
    versions = frame["arrival_time"].unique().sort()
    view = al.FeatureView(
        "epi",
        ["geo_value"],
        frame,
        [al.window("case_rate", ["count", "mean"], "7d", "1d"), al.latest("case_rate_7d_av")],
    )
    places = frame.select("geo_value").unique().sort("geo_value")
    joined = al.point_in_time_join(spine(places, *versions[3:9]), [view]).filter(
        pl.col("epi__case_rate_count_7d_offset_1d") == 7
    )
    both = joined.drop_nulls("epi__case_rate_7d_av")
    assert both.height > 100
    off = (both["epi__case_rate_mean_7d_offset_1d"] - both["epi__case_rate_7d_av"]).abs()
    assert off.max() <= 1e-5 * both["epi__case_rate_7d_av"].abs().max()


# --- moved events and retractions -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quakes(shared) -> Source:
    frame = read(shared, "quakes_usgs/observations.parquet").drop("commit", "source_updated")
    frame = frame.with_columns(is_retraction=pl.col("op") == "delete").drop("op")
    features = (
        al.latest("mag"),
        al.latest("place"),
        al.window("mag", ["count", "max", "mean", "median"], "24h"),
        al.window("mag", "count", "72h"),
        al.sequence("mag", 5),
        al.arrival_age(),
    )
    return Source("quakes", frame, ("net",), features, key=("quake_id",))


def test_quakes_that_moved_or_were_withdrawn_are_counted_once_and_not_at_all(quakes):
    captures = quakes.frame["arrival_time"].unique().sort()
    nets = quakes.frame.group_by("net").len().sort("len", "net")[-3:].select("net")
    joined = compare(quakes, spine(nets, captures[50], captures[200] - timedelta(microseconds=1), captures[400]))
    assert joined["quakes__mag_count_24h"].sum() > 0


def test_a_snapshot_of_quakes_has_every_id_once(quakes):
    t = quakes.frame["arrival_time"].unique().sort()[300]
    known = al.snapshot(view_of(quakes), t)
    assert known["quake_id"].n_unique() == known.height
    expected = oracle.snapshot(rows_of(quakes), "measurement", micros_of(t))
    same_events(known, expected, "mag")
    gone = (
        quakes.frame.filter(pl.col("arrival_time") <= t)
        .sort("arrival_time")
        .group_by("quake_id")
        .last()
        .filter("is_retraction")
    )
    assert gone.height > 0
    assert set(gone["quake_id"]).isdisjoint(known["quake_id"])


# --- many entities with a composite key -----------------------------------------------------------------------------


def test_weather_of_many_places(shared):
    frame = read(shared, "weather_nws_us/observations.parquet")
    features = (
        al.forecast("hi_f", ["0s", "24h"], "23h"),
        al.forecast("lo_f", "24h", "23h"),
        al.window("hi_f", ["count", "min"], "7d"),
    )
    source = Source("nws", frame, ("city", "state"), features, kind="forecast")
    everywhere = frame.select("city", "state").unique().sort("city", "state")
    instants = [datetime(2021, 11, 7, 6, tzinfo=UTC), datetime(2022, 1, 1, 18, tzinfo=UTC)]
    joined = al.point_in_time_join(spine(everywhere, *instants), [view_of(source)])
    assert joined.height == 2 * 126
    assert joined["nws__hi_f_count_7d"].min() > 0
    twins = everywhere.filter(pl.col("city").is_duplicated())  # two city names occur in two states
    compare(source, spine(pl.concat([twins, everywhere[:6]]), *instants))
