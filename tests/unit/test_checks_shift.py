"""Columns that suddenly mean something else are told; ordinary change is not."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from ingestion.checks import MIN_BLOCKS, MIN_ROWS, UNITS, ShiftDetector, Unit, compare

STATIONS = 20


def day(number: int, *, amplitude: float = 8.0) -> list[float]:
    """A day of temperatures: 24 hours of 20 stations, warm at noon, a little different from day to day."""
    return [
        10 + math.sin(number) + amplitude * math.sin(2 * math.pi * (hour - 8) / 24) + station / 5
        for hour in range(24)
        for station in range(STATIONS)
    ]


PAST = pl.Series("temp", [value for number in range(30) for value in day(number)])
TODAY = pl.Series("temp", day(30))
"""Its median is 10 + sin(30) + 1.9 = 10.91; that of the days before, in the median, 11.97."""


def told(shift: object) -> str:
    return str(shift)


def test_a_day_like_any_other_is_no_shift() -> None:
    assert compare(PAST, TODAY) is None


@pytest.mark.parametrize("hour", range(0, 24, 3))
def test_nights_and_noons_are_no_shifts(hour: int) -> None:
    three_hours = TODAY[hour * STATIONS : (hour + 3) * STATIONS]
    assert compare(PAST, three_hours) is None


def test_zeros_at_night_are_no_shift() -> None:
    sun = pl.Series("kw", [max(0.0, value - 10) for value in PAST])
    assert compare(sun, pl.Series("kw", [0.0] * (3 * STATIONS))) is None


def test_a_change_of_unit_is_named() -> None:
    shift = compare(PAST, TODAY * 1.8 + 32)
    assert shift is not None
    assert (shift.column, shift.what) == ("temp", "unit")
    assert shift.likely == "x1.8 +32 (degC to degF)"
    assert told(shift) == "shift of temp: median 11.97 -> 51.64, likely x1.8 +32 (degC to degF) (480 rows)"


@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_every_unit_is_recognised_where_the_level_hardly_varies(unit: Unit) -> None:
    # Air pressure in hPa: 1000 to 1020, the level of a day at most 1 from that of another.
    past = pl.Series("hpa", [1000 + value / 2 + index % 7 for index, value in enumerate(PAST)])
    today = pl.Series("hpa", [1000 + value / 2 + index % 7 for index, value in enumerate(TODAY)])
    shift = compare(past, today * unit.factor + unit.offset)
    assert shift is not None
    assert shift.what == "unit"
    assert shift.likely is not None
    assert str(unit) in shift.likely


def test_a_level_that_no_unit_explains_is_a_level() -> None:
    shift = compare(PAST, TODAY + 47.0)
    assert shift is not None
    assert (shift.what, shift.likely) == ("level", None)
    assert told(shift) == "shift of temp: median 11.97 -> 57.91 (480 rows)"


def test_a_sensor_that_is_stuck_has_no_spread() -> None:
    shift = compare(PAST, pl.Series("temp", [11.5] * 480))
    assert shift is not None
    assert (shift.what, shift.after, shift.factor) == ("spread", 0.0, 0.0)


def test_noise_that_a_sensor_never_had_is_a_spread() -> None:
    shift = compare(PAST, 10.91 + (TODAY - 10.91) * 20)
    assert shift is not None
    assert shift.what == "spread"
    assert shift.factor == pytest.approx(20, rel=0.1)


def test_nulls_that_there_never_were_are_told() -> None:
    some = pl.Series("temp", [None if index % 2 else value for index, value in enumerate(TODAY)])
    shift = compare(PAST, some)
    assert told(shift) == "shift of temp: nulls 0% -> 50% (480 rows)"
    not_numbers = pl.Series("temp", [math.nan if index % 2 else value for index, value in enumerate(TODAY)])
    assert told(compare(PAST, not_numbers)) == told(shift)
    assert told(compare(PAST, pl.Series("temp", [None] * 480, dtype=pl.Float64))) == (
        "shift of temp: nulls 0% -> 100% (480 rows)"
    )


def test_zeros_that_there_never_were_are_told() -> None:
    some = pl.Series("temp", [0.0 if index % 3 == 0 else value for index, value in enumerate(TODAY)])
    assert told(compare(PAST, some)) == "shift of temp: zeros 0% -> 33% (480 rows)"


def test_a_constant_that_moves_by_less_than_a_hundredth_is_none() -> None:
    # NESO's capacity: 25,261 MW, one day 25,314 MW.
    past = pl.Series("capacity_mw", [25_261.0] * 6_000)
    assert compare(past, pl.Series("capacity_mw", [25_314.0] * 300)) is None
    shift = compare(past, pl.Series("capacity_mw", [25.261] * 300))
    assert shift is not None
    assert shift.likely == "x0.001 (to kilo, or millimetres to metres)"


def test_too_little_tells_nothing() -> None:
    fahrenheit = TODAY * 1.8 + 32
    assert compare(PAST, fahrenheit.head(MIN_ROWS - 1)) is None
    assert compare(PAST.head(480 * MIN_BLOCKS - 1), fahrenheit) is None
    assert compare(PAST.head(480 * MIN_BLOCKS), fahrenheit) is not None


# ------------------------------------------------------------------------------------------------------------- detector


def batch(values: list[float], scale: float = 1.0) -> pl.DataFrame:
    return pl.DataFrame({"station": 7, "temp": [value * scale for value in values], "place": "mast", "log_sequence": 1})


def test_a_detector_tells_a_shift_until_it_is_over() -> None:
    detector = ShiftDetector()
    assert [detector.observe(batch(day(number))) for number in range(20)] == [()] * 20
    (shift,) = detector.observe(batch(day(20), scale=1000))
    assert (shift.column, shift.what) == ("temp", "unit")
    assert len(detector.observe(batch(day(21), scale=1000))) == 1
    assert detector.observe(batch(day(22))) == ()


def test_what_stays_becomes_ordinary() -> None:
    detector = ShiftDetector()
    for number in range(20):
        detector.observe(batch(day(number)))
    shifted = [len(detector.observe(batch(day(number), scale=1000))) for number in range(20, 20 + MIN_BLOCKS + 5)]
    assert shifted == [1] * MIN_BLOCKS + [0] * 5
    assert len(detector.observe(batch(day(60)))) == 1


def test_small_batches_are_judged_together() -> None:
    detector = ShiftDetector()
    detector.remember(pl.concat([batch(day(number)) for number in range(20)]), rows=480)
    hot = batch([1000.0] * MIN_ROWS)
    assert detector.observe(hot.head(MIN_ROWS - 1)) == ()
    (shift,) = detector.observe(hot.tail(1))
    assert shift.rows == MIN_ROWS


def test_ids_and_the_log_s_own_columns_are_not_watched() -> None:
    detector = ShiftDetector(ignored=frozenset({"station"}))
    for number in range(20):
        detector.observe(batch(day(number)))
    other = batch(day(20)).with_columns(station=999_999, log_sequence=999_999)
    assert detector.observe(other) == ()
    assert set(detector._columns) == {"temp"}


# ------------------------------------------------------------------------------------------------------------ real data


@pytest.mark.parametrize(
    "file",
    [
        "quakes_usgs/observations.parquet",
        "energy_neso_wind/observations.parquet",
        "energy_neso_wind/windfarms.parquet",
        "epi_delphi_covid/observations.parquet",
        "epi_delphi_covid/case_death_rate_archive.parquet",
    ],
)
def test_real_feeds_are_not_shifted(shared: Path, file: str) -> None:
    frame = pl.read_parquet(shared / "data" / file).sort("arrival_time", maintain_order=True)
    if "op" in frame.columns:
        frame = frame.filter(pl.col("op") != "delete")
    detector = ShiftDetector()
    found = [
        told(shift)
        for arrived in frame.partition_by("arrival_time", maintain_order=True)
        for shift in detector.observe(arrived)
    ]
    assert found == []


def test_half_days_of_forecasts_for_126_cities_are_not_shifted(shared: Path) -> None:
    # From October to February: 13 degF colder in the median, and no maximum on the evening of a day itself.
    frame = pl.read_parquet(shared / "data" / "weather_nws_us" / "observations.parquet").sort("arrival_time")
    half = pl.col("arrival_time").dt.truncate("12h").alias("half")
    detector = ShiftDetector()
    found = [
        told(shift)
        for arrived in frame.with_columns(half).partition_by("half", maintain_order=True)
        for shift in detector.observe(arrived)
    ]
    assert found == []


def test_a_week_of_quakes_polled_whole_is_not_shifted_until_it_is(shared: Path) -> None:
    frame = pl.read_parquet(shared / "data" / "quakes_usgs" / "observations.parquet").sort("arrival_time")
    detector = ShiftDetector()
    states = []
    for arrived in frame["arrival_time"].unique().sort()[:160:4]:
        known = frame.filter(pl.col("arrival_time") <= arrived).group_by("net", "quake_id", maintain_order=True).last()
        alive = (pl.col("op") != "delete") & (pl.col("event_time") > arrived - timedelta(days=7))
        states.append(known.filter(alive))
    assert [detector.observe(state) for state in states] == [()] * 40
    (shift,) = detector.observe(states[-1].with_columns(pl.col("depth_km") * 1000))
    assert (shift.column, shift.likely) == ("depth_km", "x1000 (kilo, or metres to millimetres)")
