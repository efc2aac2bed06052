"""Bad frames: what each kind of bad spine or bad observations is answered with, to the letter."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pandas as pd
import polars as pl
import pytest
from makers import INSTANT, asked, at, table, temps, weather

import alignment as al

TEMP = al.latest("temp")
GOOD = temps(("a", "10:00", "10:10", 1.0))
TIED = temps(("a", "10:00", "10:10", 1.0), ("a", "10:00", "10:10", 2.0))
RUNS = table("station event_time issue_time arrival_time wind", ("a", "12:00", "06:00", "06:30", 1.0))
BIG = table(
    "station event_time arrival_time n", ("a", "10:00", "10:00", 2**62), ("a", "10:10", "10:10", 2**62), n=pl.Int64
)


def join(spine=None, frame=GOOD, *features, status=False, **arguments):
    passed = {name: arguments.pop(name) for name in ("engine", "as_of", "positions", "threads") if name in arguments}
    view = weather(frame, *(features or [TEMP]), **arguments)
    return al.point_in_time_join(asked("10:30") if spine is None else spine, [view], status=status, **passed)


def numbered():
    return temps((1, "10:00", "10:10", 1.0), station=pl.Int64)


def naive(column, frame=GOOD):
    return frame.with_columns(pl.col(column).dt.replace_time_zone(None))


def case(name: str, cause: Callable[[], object], kind: type[Exception], text: str) -> object:
    """One kind of bad input: its name, what does it, and the error with its whole text."""
    return pytest.param(cause, kind, text, id=name)


CASES = [
    case(
        "a spine without prediction times",
        lambda: join(asked("10:30").drop("prediction_time")),
        al.MissingColumnError,
        "the spine has no column 'prediction_time'\n"
        "\n"
        "hint: its columns are 'station'. Pass prediction_time=\"...\" to name another.",
    ),
    case(
        "a spine whose prediction time is called something close",
        lambda: join(asked("10:30").rename({"prediction_time": "prediction_ts"})),
        al.MissingColumnError,
        "the spine has no column 'prediction_time'\n"
        "\n"
        "hint: did you mean 'prediction_ts'? Pass prediction_time=\"prediction_ts\".",
    ),
    case(
        "a naive prediction time",
        lambda: join(asked("10:30").with_columns(pl.col("prediction_time").dt.replace_time_zone(None))),
        al.NaiveTimeError,
        "the spine: 'prediction_time' has no time zone\n"
        "\n"
        'hint: say what zone it is in, e.g. pl.col("prediction_time").dt.replace_time_zone("UTC").',
    ),
    case(
        "a prediction time that is a text",
        lambda: join(asked("10:30").with_columns(pl.lit("2026-01-05").alias("prediction_time"))),
        al.ColumnTypeError,
        "the spine: 'prediction_time' is String, not an instant\n"
        "\n"
        'hint: it must be Datetime with a zone, e.g. pl.Datetime("us", "UTC").',
    ),
    case(
        "a prediction time that is a date",
        lambda: join(asked("10:30").with_columns(pl.col("prediction_time").dt.date())),
        al.ColumnTypeError,
        "the spine: 'prediction_time' is Date, not an instant\n"
        "\n"
        'hint: it must be Datetime with a zone, e.g. pl.Datetime("us", "UTC").',
    ),
    case(
        "a prediction time that is a number",
        lambda: join(asked("10:30").with_columns(pl.lit(1767609000).alias("prediction_time"))),
        al.ColumnTypeError,
        "the spine: 'prediction_time' is Int32, not an instant\n"
        "\n"
        'hint: it must be Datetime with a zone, e.g. pl.Datetime("us", "UTC").',
    ),
    case(
        "a null prediction time",
        lambda: join(asked("10:30", None)),
        al.NullTimeError,
        "the spine: 'prediction_time' is null in 1 rows, first in row 1\n"
        "\n"
        'hint: drop them, e.g. spine.drop_nulls("prediction_time").',
    ),
    case(
        "a spine without the entity",
        lambda: join(asked("10:30").drop("station")),
        al.MissingColumnError,
        "the spine has no column 'station'\n\nhint: its columns are 'prediction_time'.",
    ),
    case(
        "a spine whose entity is called something close",
        lambda: join(asked("10:30").rename({"station": "stations"})),
        al.MissingColumnError,
        "the spine has no column 'station'\n\nhint: did you mean 'stations'?",
    ),
    case(
        "an unhashable kind of entity asked",
        lambda: join(
            table("station prediction_time", ("a", "10:30")), GOOD.with_columns(station=pl.lit([1], pl.List(pl.Int64)))
        ),
        al.KeyTypeError,
        "the observations of view 'weather': entity 'station' is List(Int64), and the spine's 'station' is String: they cannot be compared\n"
        "\n"
        'hint: make them alike, e.g. spine.with_columns(pl.col("station").cast(pl.List(Int64))).',
    ),
    case(
        "a spine whose entity has another type",
        lambda: join(table("station prediction_time", (1, "10:30"))),
        al.KeyTypeError,
        "the observations of view 'weather': entity 'station' is String, and the spine's 'station' is Int64: they cannot be compared\n"
        "\n"
        'hint: make them alike, e.g. spine.with_columns(pl.col("station").cast(pl.String)).',
    ),
    case(
        "a spine whose entity is a float",
        lambda: join(table("station prediction_time", (1.5, "10:30")), numbered()),
        al.KeyTypeError,
        "the observations of view 'weather': entity 'station' is Int64, and the spine's 'station' is Float64: they cannot be compared\n"
        "\n"
        'hint: make them alike, e.g. spine.with_columns(pl.col("station").cast(pl.Int64)).',
    ),
    case(
        "a boolean asked for as a number",
        lambda: join(table("station prediction_time", (True, "10:30")), numbered()),
        al.KeyTypeError,
        "the observations of view 'weather': entity 'station' is Int64, and the spine's 'station' is Boolean: they cannot be compared\n"
        "\n"
        'hint: make them alike, e.g. spine.with_columns(pl.col("station").cast(pl.Int64)).',
    ),
    case(
        "a spine that is a list",
        lambda: join([{"station": "a"}]),
        al.ColumnTypeError,
        "the spine: a list is not a frame\n\nhint: pass a Polars, Arrow, pandas or Spark frame, a Parquet path or Delta folder, or a log.",
    ),
    case(
        "a spine that has the result's column already",
        lambda: join(asked("10:30").with_columns(weather__temp=pl.lit(1.0))),
        al.DuplicateColumnError,
        "the spine has a column 'weather__temp', and so has the result\n"
        "\n"
        'hint: rename it, e.g. spine.rename({"weather__temp": "weather__temp_given"}).',
    ),
    case(
        "a spine that has a column called provisional when status is asked",
        lambda: join(asked("10:30").with_columns(provisional=pl.lit(1)), status=True),
        al.DuplicateColumnError,
        "the spine has a column 'provisional', and so has the result\n"
        "\n"
        'hint: rename it, e.g. spine.rename({"provisional": "provisional_given"}).',
    ),
    case(
        "observations without event_time",
        lambda: weather(GOOD.drop("event_time"), TEMP),
        al.MissingColumnError,
        "the observations of view 'weather' have no column 'event_time'\n"
        "\n"
        "hint: its columns are 'station', 'arrival_time', 'temp'. Pass event_time=\"...\" to name another.",
    ),
    case(
        "observations whose event_time is called something close",
        lambda: weather(GOOD.rename({"event_time": "event_times"}), TEMP),
        al.MissingColumnError,
        "the observations of view 'weather' have no column 'event_time'\n"
        "\n"
        "hint: did you mean 'event_times'? Pass event_time=\"event_times\".",
    ),
    case(
        "observations without arrival_time",
        lambda: weather(GOOD.drop("arrival_time"), TEMP),
        al.UnknownArrivalError,
        "the observations of view 'weather' have no column 'arrival_time': when a row arrived is unknown\n"
        "\n"
        "hint: its columns are 'station', 'event_time', 'temp'. Pass arrival_time=\"...\" to name another.\n"
        'Or declare when it arrived: delay=al.FixedDelay("45m").',
    ),
    case(
        "observations without the named arrival column",
        lambda: al.Observations(GOOD, entities=["station"], arrival_time="seen_at"),
        al.MissingColumnError,
        "the observations have no column 'seen_at'\n"
        "\n"
        "hint: its columns are 'station', 'event_time', 'arrival_time', 'temp'. Pass arrival_time=\"...\" to name another.",
    ),
    case(
        "observations without the entity",
        lambda: weather(GOOD.drop("station"), TEMP),
        al.MissingColumnError,
        "the observations of view 'weather' have no column 'station'\n"
        "\n"
        "hint: its columns are 'event_time', 'arrival_time', 'temp'.",
    ),
    case(
        "observations without the id",
        lambda: weather(GOOD, TEMP, key=["quake_id"]),
        al.MissingColumnError,
        "the observations of view 'weather' have no column 'quake_id'\n"
        "\n"
        "hint: its columns are 'station', 'event_time', 'arrival_time', 'temp'.",
    ),
    case(
        "a naive event_time",
        lambda: weather(naive("event_time"), TEMP),
        al.NaiveTimeError,
        "the observations of view 'weather': 'event_time' has no time zone\n"
        "\n"
        'hint: say what zone it is in, e.g. pl.col("event_time").dt.replace_time_zone("UTC").',
    ),
    case(
        "a naive arrival_time",
        lambda: weather(naive("arrival_time"), TEMP),
        al.NaiveTimeError,
        "the observations of view 'weather': 'arrival_time' has no time zone\n"
        "\n"
        'hint: say what zone it is in, e.g. pl.col("arrival_time").dt.replace_time_zone("UTC").',
    ),
    case(
        "a naive issue_time",
        lambda: weather(naive("issue_time", RUNS), al.latest("wind"), kind="forecast"),
        al.NaiveTimeError,
        "the observations of view 'weather': 'issue_time' has no time zone\n"
        "\n"
        'hint: say what zone it is in, e.g. pl.col("issue_time").dt.replace_time_zone("UTC").',
    ),
    case(
        "an event_time that is a text",
        lambda: weather(GOOD.with_columns(pl.lit("2026-01-05").alias("event_time")), TEMP),
        al.ColumnTypeError,
        "the observations of view 'weather': 'event_time' is String, not an instant\n"
        "\n"
        'hint: e.g. pl.col("event_time").str.to_datetime(time_zone="UTC").',
    ),
    case(
        "an arrival_time that is a number",
        lambda: weather(GOOD.with_columns(pl.lit(1767609000).alias("arrival_time")), TEMP),
        al.ColumnTypeError,
        "the observations of view 'weather': 'arrival_time' is Int32, not an instant\n"
        "\n"
        'hint: a time column is Datetime with a zone, e.g. pl.Datetime("us", "UTC").',
    ),
    case(
        "an event_time that is a date without a zone",
        lambda: weather(GOOD.with_columns(pl.col("event_time").dt.date()), TEMP),
        al.ColumnTypeError,
        "the observations of view 'weather': 'event_time' holds dates without a time\n"
        "\n"
        'hint: say in which zone they are read, e.g. date_zone="Europe/Berlin".',
    ),
    case(
        "an event_time that is a date and may be either end of it",
        lambda: al.Observations(
            GOOD.with_columns(pl.col("event_time").dt.date()), entities=["station"], date_zone="UTC"
        ),
        al.ColumnTypeError,
        "the observations: 'event_time' holds dates, and it is not said which end of the day an event is\n"
        "\n"
        'hint: pass date_means="end" (the value is about the day that ended) or date_means="start".',
    ),
    case(
        "an is_retraction of numbers",
        lambda: weather(GOOD.with_columns(is_retraction=pl.lit(0)), TEMP),
        al.ColumnTypeError,
        "the observations of view 'weather': 'is_retraction' is Int32, not Boolean\n"
        "\n"
        'hint: e.g. pl.col("is_retraction").cast(pl.Boolean).',
    ),
    case(
        "a log_sequence of floats",
        lambda: weather(GOOD.with_columns(log_sequence=pl.lit(0.5)), TEMP),
        al.ColumnTypeError,
        "the observations of view 'weather': 'log_sequence' is Float64, not an integer\n"
        "\n"
        "hint: a log sequence counts rows: 0, 1, 2, ...",
    ),
    case(
        "a null log_sequence",
        lambda: join(asked("10:30"), GOOD.with_columns(log_sequence=pl.lit(None, pl.Int64))),
        al.ColumnTypeError,
        "the observations of view 'weather': 'log_sequence' is null, first in row 0\n"
        "\n"
        "hint: number every row, or drop the column.",
    ),
    case(
        "a log_sequence given twice to one key and arrival",
        lambda: join(asked("10:30"), TIED.with_columns(log_sequence=pl.lit(3, pl.Int64))),
        al.AmbiguousRevisionsError,
        "the observations of view 'weather': 1 pairs of different rows have the same key and arrival, first rows 0 and 1 (station='a', event 2026-01-05T10:00:00+00:00, arrival 2026-01-05T10:10:00+00:00)\n"
        "\n"
        'hint: which came last is unknown: give the rows a log_sequence, or pass on_tie="last" to take the last in the frame.',
    ),
    case(
        "a null entity",
        lambda: join(asked("10:30"), temps(("a", "10:00", "10:10", 1.0), (None, "10:00", "10:10", 1.0))),
        al.NullKeyError,
        "the observations of view 'weather': 'station' is null in 1 rows, first in row 1\n"
        "\n"
        'hint: drop them, e.g. frame.drop_nulls("station"), or name another key.',
    ),
    case(
        "a null id",
        lambda: join(asked("10:30"), GOOD.with_columns(quake=pl.lit(None, pl.String)), key=["quake"]),
        al.NullKeyError,
        "the observations of view 'weather': 'quake' is null in 1 rows, first in row 0\n"
        "\n"
        'hint: drop them, e.g. frame.drop_nulls("quake"), or name another key.',
    ),
    case(
        "a null event_time",
        lambda: join(asked("10:30"), temps(("a", "10:00", "10:10", 1.0), ("a", None, "10:10", 1.0))),
        al.NullTimeError,
        "the observations of view 'weather': 'event_time' is null in 1 rows with values, first in row 1\n"
        "\n"
        'hint: drop them, e.g. frame.filter(pl.col("event_time").is_not_null()).',
    ),
    case(
        "a null arrival_time without a delay rule",
        lambda: join(asked("10:30"), temps(("a", "10:00", "10:10", 1.0), ("a", "10:00", None, 1.0))),
        al.UnknownArrivalError,
        "the observations of view 'weather': 'arrival_time' is null in 1 rows, first in row 1: when they arrived is unknown\n"
        "\n"
        'hint: declare it, e.g. delay=al.FixedDelay("45m"), or drop the rows.',
    ),
    case(
        "a null issue_time on a row with values",
        lambda: join(
            asked("10:30"),
            RUNS.with_columns(pl.lit(None, INSTANT).alias("issue_time")),
            al.latest("wind"),
            kind="forecast",
        ),
        al.NullTimeError,
        "the observations of view 'weather': 'issue_time' is null in 1 rows with values, first in row 0\n"
        "\n"
        'hint: drop them, e.g. frame.filter(pl.col("issue_time").is_not_null()).',
    ),
    case(
        "a measurement known before it happened",
        lambda: join(asked("10:30"), temps(("a", "10:00", "10:10", 1.0), ("a", "11:00", "10:10", 1.0))),
        al.EventAfterArrivalError,
        "the observations of view 'weather': 1 measurements arrived before they happened, first in row 1: event 2026-01-05T11:00:00+00:00, arrival 2026-01-05T10:10:00+00:00\n"
        "\n"
        'hint: say kind="forecast" if they are forecasts, or raise clock_tolerance (now 5s) if the provider\'s clock is ahead.',
    ),
    case(
        "two different revisions of one key and arrival",
        lambda: join(asked("10:30"), TIED),
        al.AmbiguousRevisionsError,
        "the observations of view 'weather': 1 pairs of different rows have the same key and arrival, first rows 0 and 1 (station='a', event 2026-01-05T10:00:00+00:00, arrival 2026-01-05T10:10:00+00:00)\n"
        "\n"
        'hint: which came last is unknown: give the rows a log_sequence, or pass on_tie="last" to take the last in the frame.',
    ),
    case(
        "a row and a retraction at one arrival",
        lambda: join(
            asked("10:30"),
            GOOD.vstack(GOOD.clear())
            .with_columns(is_retraction=pl.lit(False))
            .vstack(GOOD.with_columns(is_retraction=pl.lit(True))),
        ),
        al.AmbiguousRevisionsError,
        "the observations of view 'weather': 1 pairs of different rows have the same key and arrival, first rows 0 and 1 (station='a', event 2026-01-05T10:00:00+00:00, arrival 2026-01-05T10:10:00+00:00)\n"
        "\n"
        'hint: which came last is unknown: give the rows a log_sequence, or pass on_tie="last" to take the last in the frame.',
    ),
    case(
        "a sum that does not fit in 64 bits",
        lambda: join(asked("10:30"), BIG, al.window("n", "sum", "1h")),
        al.AggregateOverflowError,
        "the observations of view 'weather': a sum of 'n' does not fit in 64 bits\n"
        "\n"
        'hint: sum it as float64, e.g. derive={"n_real": pl.col("n").cast(pl.Float64)}.',
    ),
    case(
        "unsigned numbers that do not fit in 64 signed bits",
        lambda: join(
            asked("10:30"), BIG.with_columns(pl.col("n").cast(pl.UInt64) + 2**63), al.window("n", "sum", "1h")
        ),
        al.AggregateOverflowError,
        "the observations of view 'weather': 'n' is UInt64 and holds values that do not fit in 64 signed bits\n"
        "\n"
        'hint: aggregate it as float64, e.g. derive={"n_real": pl.col("n").cast(pl.Float64)}.',
    ),
    case(
        "observations that are a dictionary",
        lambda: weather({"station": ["a"]}, TEMP),
        al.ColumnTypeError,
        "the observations of view 'weather': a dict is not a frame\n"
        "\n"
        "hint: pass a Polars, Arrow, pandas or Spark frame, a Parquet path or Delta folder, or a log.",
    ),
    case(
        "a frame with one column twice",
        lambda: weather(pd.DataFrame([["a", 1, 2]], columns=["station", "temp", "temp"]), TEMP),
        al.DuplicateColumnError,
        "the observations of view 'weather': 'temp' is the name of 2 columns\n\nhint: rename all but one of them.",
    ),
    case(
        "a Parquet path that does not exist",
        lambda: weather("nowhere.parquet", TEMP),
        al.MissingFileError,
        "the observations of view 'weather': there is no Parquet file at 'nowhere.parquet'\n"
        "\n"
        "hint: correct the path, relative to the folder of this process, or write the file first.",
    ),
    case(
        "a pattern that no file matches",
        lambda: weather("/nowhere/*.parquet", TEMP),
        al.MissingFileError,
        "the observations of view 'weather': there is no Parquet file at '/nowhere/*.parquet'\n"
        "\n"
        "hint: correct the path, or write the file first.",
    ),
    case(
        "a spine that does not exist",
        lambda: al.point_in_time_join("nospine.parquet", [weather(GOOD, TEMP)]),
        al.MissingFileError,
        "the spine: there is no Parquet file at 'nospine.parquet'\n"
        "\n"
        "hint: correct the path, relative to the folder of this process, or write the file first.",
    ),
    case(
        "an unknown argument of Observations",
        lambda: al.Observations(GOOD, entities=["station"], arrival="arrival_time"),
        TypeError,
        "Observations.__init__() got an unexpected keyword argument 'arrival'",
    ),
    case(
        "a snapshot as of a naive instant",
        lambda: al.snapshot(al.Observations(GOOD, entities=["station"]), datetime(2026, 1, 5, 11)),  # noqa: DTZ001
        al.NaiveTimeError,
        "as_of=datetime.datetime(2026, 1, 5, 11, 0): 'as_of' has no time zone\n"
        "\n"
        "hint: pass a datetime with a zone, e.g. datetime(2026, 1, 1, tzinfo=UTC) for as_of.",
    ),
    case(
        "a snapshot of a bare frame",
        lambda: al.snapshot(GOOD, at("11:00")),
        al.ViewError,
        "a DataFrame does not say which columns are entities\n"
        "\n"
        'hint: wrap it, e.g. al.Observations(frame, entities=["station"]).',
    ),
    case(
        "a spine from a naive start",
        lambda: al.make_spine({"station": ["a"]}, datetime(2026, 1, 5), at("11:00"), "10m"),  # noqa: DTZ001
        al.NaiveTimeError,
        "start=datetime.datetime(2026, 1, 5, 0, 0): 'start' has no time zone\n"
        "\n"
        "hint: pass a datetime with a zone, e.g. datetime(2026, 1, 1, tzinfo=UTC) for start.",
    ),
    case(
        "a spine that ends before it starts",
        lambda: al.make_spine({"station": ["a"]}, at("11:00"), at("10:00"), "10m"),
        al.DefinitionError,
        "end=2026-01-05T10:00:00+00:00 is before start=2026-01-05T11:00:00+00:00\n\nhint: swap them.",
    ),
    case(
        "a spine every nothing",
        lambda: al.make_spine({"station": ["a"]}, at("10:00"), at("11:00"), "0s"),
        al.DurationError,
        "every='0s' is nothing\n\nhint: every must be longer than nothing, e.g. \"10m\".",
    ),
    case(
        "a spine in an unknown zone",
        lambda: al.make_spine({"station": ["a"]}, at("10:00"), at("11:00"), "1d", zone="Europe/Berlln"),
        al.DefinitionError,
        "zone='Europe/Berlln' is not a zone of the IANA database\n\nhint: name a place, e.g. zone=\"Europe/Berlin\".",
    ),
]


@pytest.mark.parametrize(("cause", "kind", "text"), CASES)
def test_bad_input_is_refused_with_a_text_that_helps(cause, kind, text):
    with pytest.raises(kind) as caught:
        cause()
    assert type(caught.value) is kind
    assert str(caught.value) == text


@pytest.mark.parametrize("engine", ["local", "duckdb"])
def test_an_address_with_a_password_in_it_is_refused_and_not_repeated(engine):
    address = "s3://AKIA:topsecret@bucket/readings.parquet"
    for cause in (
        lambda: al.FeatureView("weather", ["station"], address, [TEMP]),
        lambda: al.point_in_time_join(address, [weather(GOOD, TEMP)], engine=engine),
    ):
        with pytest.raises(al.AddressError) as caught:
            cause()
        assert "topsecret" not in str(caught.value)
        assert "AKIA" not in str(caught.value)
