"""Bad declarations: what each view, feature, label or question that cannot mean anything is answered with, to the letter."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from makers import asked, table, temps, weather

import alignment as al
import ingestion

TEMP = al.latest("temp")
GOOD = temps(("a", "10:00", "10:10", 1.0))
RUNS = table("station event_time issue_time arrival_time wind", ("a", "12:00", "06:00", "06:30", 1.0))


def join(spine=None, frame=GOOD, *features, status=False, **arguments):
    passed = {name: arguments.pop(name) for name in ("engine", "as_of", "positions", "threads") if name in arguments}
    view = weather(frame, *(features or [TEMP]), **arguments)
    return al.point_in_time_join(asked("10:30") if spine is None else spine, [view], status=status, **passed)


def dataset(label, **arguments):
    return al.build_dataset(asked("10:30"), [weather(GOOD, TEMP)], label=label, **arguments)


def case(name: str, cause: Callable[[], object], kind: type[Exception], text: str) -> object:
    """One kind of bad input: its name, what does it, and the error with its whole text."""
    return pytest.param(cause, kind, text, id=name)


CASES = [
    case(
        "a view without a name",
        lambda: al.FeatureView("", ["station"], GOOD, [TEMP]),
        al.ViewError,
        "name='' is not a view's name\n\nhint: e.g. name=\"weather\".",
    ),
    case(
        "a view without observations",
        lambda: al.FeatureView("weather", ["station"], features=[TEMP]),
        al.ViewError,
        "view 'weather' has no observations\n\nhint: pass observations=frame.",
    ),
    case(
        "a view without features",
        lambda: al.FeatureView("weather", ["station"], GOOD, []),
        al.ViewError,
        "view 'weather' has no features\n\nhint: e.g. features=[al.latest(\"temp\")].",
    ),
    case(
        "a view that does not name its entities",
        lambda: al.FeatureView("weather", None, GOOD, [TEMP]),
        al.ViewError,
        "the observations of view 'weather': entities are not named\n"
        "\n"
        'hint: e.g. entities=["station"], or [] for one series for all.',
    ),
    case(
        "entities given as a text",
        lambda: al.FeatureView("weather", "station", GOOD, [TEMP]),
        al.ViewError,
        "the observations of view 'weather': entities='station' is a text, not a list\n"
        "\n"
        "hint: write entities=['station'].",
    ),
    case(
        "a feature that is a text",
        lambda: weather(GOOD, "temp"),
        al.ViewError,
        "view 'weather': 'temp' is not a feature\n\nhint: e.g. al.latest(\"temp\").",
    ),
    case(
        "a feature of a column that is not observed",
        lambda: weather(GOOD, al.latest("temprature")),
        al.MissingColumnError,
        "the observations of view 'weather' have no column 'temprature'\n\nhint: its columns are 'temp'.",
    ),
    case(
        "two features of one name",
        lambda: weather(GOOD, TEMP, al.latest("temp", skip_null=True)),
        al.DuplicateColumnError,
        "view 'weather' has two features called 'temp'\n\nhint: pass name= to one of them.",
    ),
    case(
        "an unknown kind",
        lambda: weather(GOOD, TEMP, kind="observation"),
        al.ViewError,
        "the observations of view 'weather': kind='observation' is unknown\n"
        "\n"
        'hint: choose "measurement" or "forecast".',
    ),
    case(
        "an unknown on_tie",
        lambda: weather(GOOD, TEMP, on_tie="first"),
        al.ViewError,
        "the observations of view 'weather': on_tie='first' is unknown\n\nhint: choose \"error\" or \"last\".",
    ),
    case(
        "an unknown zone",
        lambda: weather(GOOD, TEMP, zone="Berlin"),
        al.DefinitionError,
        "zone='Berlin' is not a zone of the IANA database\n\nhint: name a place, e.g. zone=\"Europe/Berlin\".",
    ),
    case(
        "an age limit that is negative",
        lambda: weather(GOOD, TEMP, max_event_age="-2h"),
        al.DurationError,
        "max_event_age='-2h' is negative\n\nhint: max_event_age counts from zero up, e.g. \"2h\".",
    ),
    case(
        "an issue limit on measurements",
        lambda: weather(GOOD, TEMP, max_issue_age="2h"),
        al.ViewError,
        "view 'weather' has max_issue_age, but is not a forecast\n\nhint: say kind=\"forecast\", or leave it out.",
    ),
    case(
        "an issue limit on a feature of measurements",
        lambda: weather(GOOD, al.latest("temp", max_issue_age="2h")),
        al.FeatureError,
        "feature 'temp' of view 'weather' has max_issue_age, but the view is not a forecast\n"
        "\n"
        'hint: say kind="forecast" on the view.',
    ),
    case(
        "an entity_map to something that is no entity",
        lambda: weather(GOOD, TEMP, entity_map={"site": "place"}),
        al.ViewError,
        "view 'weather': entity_map['site'] names 'place', which is no entity of the observations\n"
        "\n"
        "hint: its entities are ['station']; the map goes from spine column to observation column.",
    ),
    case(
        "an entity_map with two spine columns for one entity",
        lambda: weather(GOOD, TEMP, entity_map={"site": "station", "spot": "station"}),
        al.ViewError,
        "view 'weather': entity_map names 'station' more than once\n\nhint: leave one spine column for it.",
    ),
    case(
        "a derived column of a column that is not there",
        lambda: weather(GOOD, TEMP, derive={"double": pl.col("tmp") * 2}),
        al.MissingColumnError,
        "the observations of view 'weather', read by derive['double'], have no column 'tmp'\n"
        "\n"
        "hint: did you mean 'temp'?",
    ),
    case(
        "a derived column over several rows",
        lambda: weather(GOOD, TEMP, derive={"before": pl.col("temp").shift(1)}),
        al.ViewError,
        "the observations of view 'weather': derive['before'] looks at more than one row: col(\"temp\").shift([dyn int: 1])\n"
        "\n"
        "hint: a derived column is computed from one row alone; use window, lag or sequence for several.",
    ),
    case(
        "a derived column that aggregates",
        lambda: weather(GOOD, TEMP, derive={"share": pl.col("temp") / pl.col("temp").sum()}),
        al.ViewError,
        "the observations of view 'weather': derive['share'] looks at more than one row: [(col(\"temp\")) / (col(\"temp\").sum())]\n"
        "\n"
        "hint: a derived column is computed from one row alone; use window, lag or sequence for several.",
    ),
    case(
        "a derived column that adds a series, row by row of the frame",
        lambda: weather(GOOD, TEMP, derive={"shifted": pl.col("temp") + pl.lit(pl.Series([5.0, 6.0]))}),
        al.ViewError,
        "the observations of view 'weather': derive['shifted'] looks at more than one row: [(col(\"temp\")) + (Series)]\n"
        "\n"
        "hint: a derived column is computed from one row alone; use window, lag or sequence for several.",
    ),
    case(
        "a derived column that would replace another",
        lambda: weather(GOOD, TEMP, derive={"temp": pl.col("temp") * 2}),
        al.ViewError,
        "the observations of view 'weather': derive['temp'] would replace an observed column\n"
        "\n"
        "hint: give it another name.",
    ),
    case(
        "a derived column that is no expression",
        lambda: weather(GOOD, TEMP, derive={"double": "temp * 2"}),
        al.ViewError,
        "the observations of view 'weather': derive['double'] is not a Polars expression\n"
        "\n"
        'hint: e.g. derive={"double": pl.col("u") * 2}.',
    ),
    case(
        "a lead in a view of measurements",
        lambda: weather(GOOD, al.forecast("temp", "6h")),
        al.FeatureError,
        "feature 'temp_forecast_6h' of view 'weather' asks for a forecast of measurements\n"
        "\n"
        'hint: say kind="forecast" on the view.',
    ),
    case(
        "an issue age of measurements",
        lambda: weather(GOOD, al.issue_age()),
        al.FeatureError,
        "feature 'issue_age' of view 'weather' asks for the issue of measurements\n"
        "\n"
        'hint: say kind="forecast" on the view.',
    ),
    case(
        "a window into the future of measurements",
        lambda: weather(GOOD, al.window("temp", "mean", "1h", "-1h")),
        al.FeatureError,
        "feature 'temp_mean_1h_offset_-1h' of view 'weather' looks past t in measurements, where nothing can be known\n"
        "\n"
        'hint: say kind="forecast", or use offset >= 0.',
    ),
    case(
        "the mean of texts",
        lambda: weather(GOOD.with_columns(note=pl.lit("wet")), al.window("note", "mean", "1h")),
        al.ColumnTypeError,
        "feature 'note_mean_1h' of view 'weather': mean of 'note' needs numbers or booleans, and it is String\n"
        "\n"
        'hint: count, first and last work for every type; or derive a number, e.g. derive={"note_number": pl.col("note").cast(pl.Float64)}.',
    ),
    case(
        "the greatest of instants",
        lambda: weather(GOOD, al.window("when", "max", "1h"), derive={"when": pl.col("event_time")}),
        al.ColumnTypeError,
        "feature 'when_max_1h' of view 'weather': max of 'when' needs numbers or booleans, and it is Datetime(time_unit='us', time_zone='UTC')\n"
        "\n"
        'hint: count, first and last work for every type; or derive a number, e.g. derive={"when_number": pl.col("when").cast(pl.Float64)}.',
    ),
    case(
        "the sum of decimals",
        lambda: weather(GOOD.with_columns(pl.col("temp").cast(pl.Decimal(10, 2))), al.window("temp", "sum", "1h")),
        al.ColumnTypeError,
        "feature 'temp_sum_1h' of view 'weather': sum of 'temp' needs numbers or booleans, and it is Decimal(precision=10, scale=2)\n"
        "\n"
        'hint: count, first and last work for every type; or derive a number, e.g. derive={"temp_number": pl.col("temp").cast(pl.Float64)}.',
    ),
    case(
        "a duration that is garbage",
        lambda: al.lag("temp", "soon"),
        al.DurationError,
        "by='soon' is not a duration\n"
        "\n"
        'hint: write a number and a unit (us, ms, s, m, h, d, w), e.g. "10m" or "1h30m".',
    ),
    case(
        "a duration without a unit",
        lambda: al.lag("temp", "10"),
        al.DurationError,
        "by='10' is not a duration\n"
        "\n"
        'hint: write a number and a unit (us, ms, s, m, h, d, w), e.g. "10m" or "1h30m".',
    ),
    case(
        "a duration that is a number",
        lambda: al.lag("temp", 10),
        al.DurationError,
        "by=10 is not a duration\n"
        "\n"
        'hint: write a number and a unit (us, ms, s, m, h, d, w), e.g. "10m", or pass a datetime.timedelta.',
    ),
    case(
        "a duration with an unknown unit",
        lambda: al.window("temp", "mean", "2months"),
        al.DurationError,
        "length='2months' is not a duration\n"
        "\n"
        'hint: write a number and a unit (us, ms, s, m, h, d, w), e.g. "10m" or "1h30m".',
    ),
    case(
        "a duration with a fraction",
        lambda: al.window("temp", "mean", "1.5h"),
        al.DurationError,
        "length='1.5h' is not a duration\n"
        "\n"
        'hint: write a number and a unit (us, ms, s, m, h, d, w), e.g. "10m" or "1h30m".',
    ),
    case(
        "a duration that is too long",
        lambda: al.latest("temp", max_event_age="99999999w"),
        al.DurationError,
        "max_event_age='99999999w' is too long\n\nhint: the longest duration is about 73,000 years.",
    ),
    case(
        "a window of no length",
        lambda: al.window("temp", "mean", "0s"),
        al.DurationError,
        "length='0s' is nothing\n\nhint: length must be longer than nothing, e.g. \"10m\".",
    ),
    case(
        "a window of negative length",
        lambda: al.window("temp", "mean", "-1h"),
        al.DurationError,
        "length='-1h' is negative\n\nhint: length counts from zero up, e.g. \"1h\".",
    ),
    case(
        "a lag by nothing",
        lambda: al.lag("temp", "0s"),
        al.DurationError,
        "by='0s' is nothing\n\nhint: by must be longer than nothing, e.g. \"10m\".",
    ),
    case(
        "a lag into the future",
        lambda: al.lag("temp", "-1h"),
        al.DurationError,
        "by='-1h' is negative\n\nhint: by counts from zero up, e.g. \"1h\".",
    ),
    case(
        "a lag with a negative tolerance",
        lambda: al.lag("temp", "1h", "-1m"),
        al.DurationError,
        "tolerance='-1m' is negative\n\nhint: tolerance counts from zero up, e.g. \"1m\".",
    ),
    case(
        "a negative lead",
        lambda: al.forecast("wind", "-1h"),
        al.DurationError,
        "lead='-1h' is negative\n\nhint: lead counts from zero up, e.g. \"1h\".",
    ),
    case(
        "a min_notice that cannot matter",
        lambda: al.forecast("wind", "6h", "1h", "5h"),
        al.FeatureError,
        "min_notice='5h' of forecast('wind', '6h') cannot matter: every row it could use had arrived at least 6h less the tolerance before its event\n"
        "\n"
        "hint: leave min_notice out, or ask for more than 6h.",
    ),
    case(
        "an unknown aggregate",
        lambda: al.window("temp", "average", "1h"),
        al.FeatureError,
        "no aggregate is called 'average'\n"
        "\n"
        'hint: choose from count, sum, mean, std, var, min, max, first, last, median, slope, or a quantile such as "q90".',
    ),
    case(
        "a quantile above 100",
        lambda: al.window("temp", "q101", "1h"),
        al.FeatureError,
        "no aggregate is called 'q101'\n"
        "\n"
        'hint: choose from count, sum, mean, std, var, min, max, first, last, median, slope, or a quantile such as "q90".',
    ),
    case(
        "no aggregate at all",
        lambda: al.window("temp", [], "1h"),
        al.FeatureError,
        "aggregate and length is an empty list\n\nhint: name at least one.",
    ),
    case(
        "a list of no lags",
        lambda: al.lag("temp", []),
        al.FeatureError,
        "by is an empty list\n\nhint: name at least one.",
    ),
    case(
        "one name for two features",
        lambda: al.lag("temp", ["1h", "2h"], name="before"),
        al.FeatureError,
        "name='before' is given to 2 features\n\nhint: declare them one by one, or leave name out: by is in it.",
    ),
    case(
        "a sequence of length zero",
        lambda: al.sequence("temp", 0),
        al.FeatureError,
        "length=0 of sequence('temp') is not a positive integer\n\nhint: e.g. length=12.",
    ),
    case(
        "a sequence of a fractional length",
        lambda: al.sequence("temp", 2.5),
        al.FeatureError,
        "length=2.5 of sequence('temp') is not a positive integer\n\nhint: e.g. length=12.",
    ),
    case(
        "a sequence with both step and max_span",
        lambda: al.sequence("temp", 3, step="10m", max_span="1h"),
        al.FeatureError,
        "sequence('temp') has both step and max_span\n\nhint: a grid spans length times step: leave max_span out.",
    ),
    case(
        "a feature of no column",
        lambda: al.latest(""),
        al.FeatureError,
        "column='' is not a column's name\n\nhint: e.g. latest(\"temp\").",
    ),
    case(
        "an unknown engine",
        lambda: join(engine="flink"),
        al.UnknownEngineError,
        "no engine is called 'flink'\n\nhint: choose from 'local', 'duckdb', 'spark'.",
    ),
    case(
        "a naive as_of",
        lambda: join(as_of=datetime(2026, 1, 5)),  # noqa: DTZ001
        al.NaiveTimeError,
        "as_of=datetime.datetime(2026, 1, 5, 0, 0): 'as_of' has no time zone\n"
        "\n"
        "hint: pass a datetime with a zone, e.g. datetime(2026, 1, 1, tzinfo=UTC) for as_of.",
    ),
    case(
        "an as_of that is a text",
        lambda: join(as_of="2026-01-05"),
        al.DefinitionError,
        "as_of='2026-01-05' is not an instant\n"
        "\n"
        "hint: pass a datetime with a zone, e.g. as_of=datetime(2026, 1, 1, tzinfo=UTC).",
    ),
    case(
        "no views",
        lambda: al.point_in_time_join(asked("10:30"), []),
        al.ViewError,
        "there is no view\n\nhint: pass at least one FeatureView.",
    ),
    case(
        "two views of one name",
        lambda: al.point_in_time_join(asked("10:30"), [weather(GOOD, TEMP), weather(GOOD, TEMP)]),
        al.DuplicateColumnError,
        "two views are called 'weather'\n\nhint: name them apart: columns begin with the view's name.",
    ),
    case(
        "a view that is a frame",
        lambda: al.point_in_time_join(asked("10:30"), [GOOD]),
        al.ViewError,
        "a DataFrame is not a view\n\nhint: pass al.FeatureView objects.",
    ),
    case(
        "a position for a view that is not there",
        lambda: join(positions={"wether": 5}),
        al.ViewError,
        "positions names 'wether', which is no view\n\nhint: the views are 'weather'.",
    ),
    case(
        "a position of observations without a log_sequence",
        lambda: join(positions={"weather": 5}),
        al.ViewError,
        "the observations of view 'weather' have no 'log_sequence', and so no position\n"
        "\n"
        "hint: leave 'weather' out of positions, or number its rows.",
    ),
    case(
        "no threads",
        lambda: join(threads=0),
        al.DefinitionError,
        "threads=0 is not a positive number\n\nhint: leave it out for one per processor.",
    ),
    case(
        "a label whose tolerance reaches back to t",
        lambda: al.label("temp", horizon="20m", tolerance="20m"),
        al.LabelError,
        "tolerance='20m' of label('temp') reaches back to t or before: the horizon is '20m'\n"
        "\n"
        "hint: a label lies after t; make the tolerance shorter.",
    ),
    case(
        "a label at t itself",
        lambda: al.label("temp", horizon="0s"),
        al.DurationError,
        "horizon='0s' is nothing\n\nhint: horizon must be longer than nothing, e.g. \"10m\".",
    ),
    case(
        "a label of an unknown release",
        lambda: al.label("temp", horizon="20m", release="latest"),
        al.LabelError,
        "release='latest' of label('temp') is unknown\n"
        "\n"
        'hint: choose "final", "first", "as_known", or a duration such as "2d".',
    ),
    case(
        "a label of a column in no view",
        lambda: dataset(al.label("load_kw", horizon="20m")),
        al.LabelError,
        "label 'load_kw' is observed in no view, not in exactly one view\n"
        "\n"
        'hint: say where: al.label("load_kw", ..., observations=...).',
    ),
    case(
        "a label of a column in two views",
        lambda: al.build_dataset(
            asked("10:30"),
            [weather(GOOD, TEMP), al.FeatureView("other", ["station"], GOOD, [TEMP])],
            label=al.label("temp", horizon="20m"),
        ),
        al.LabelError,
        "label 'temp' is observed in 'weather', 'other', not in exactly one view\n"
        "\n"
        'hint: say where: al.label("temp", ..., observations=...).',
    ),
    case(
        "a label of a column that its observations lack",
        lambda: dataset(al.label("load_kw", horizon="20m", observations=al.Observations(GOOD, entities=["station"]))),
        al.MissingColumnError,
        "the label's observations have no column 'load_kw'\n\nhint: its columns are 'temp'.",
    ),
    case(
        "a label of a forecast",
        lambda: dataset(
            al.label("wind", horizon="20m", observations=al.Observations(RUNS, entities=["station"], kind="forecast"))
        ),
        al.LabelError,
        "label 'wind' is a forecast, not a measurement\n"
        "\n"
        "hint: a label is what came true: name the observations of it.",
    ),
    case(
        "a label called like a column of the spine",
        lambda: dataset(al.label("temp", horizon="20m", name="station")),
        al.DuplicateColumnError,
        "the result has two columns 'station'\n\nhint: name the label, e.g. al.label(..., name='target').",
    ),
    case(
        "a data set as of a naive instant",
        lambda: dataset(al.label("temp", horizon="20m"), as_of=datetime(2026, 1, 5)),  # noqa: DTZ001
        al.NaiveTimeError,
        "as_of=datetime.datetime(2026, 1, 5, 0, 0): 'as_of' has no time zone\n"
        "\n"
        "hint: pass a datetime with a zone, e.g. datetime(2026, 1, 1, tzinfo=UTC) for as_of.",
    ),
    case(
        "a schedule at no time of day",
        lambda: al.PublishSchedule(at="25:00", zone="Europe/Berlin"),
        al.DefinitionError,
        "at='25:00' is not a time of day\n\nhint: write it as HH:MM, e.g. at=\"06:00\".",
    ),
    case(
        "a schedule in an unknown zone",
        lambda: al.PublishSchedule(at="06:00", zone="Mars/Olympus"),
        al.DefinitionError,
        "zone='Mars/Olympus' is not a zone of the IANA database\n\nhint: name a place, e.g. zone=\"Europe/Berlin\".",
    ),
    case(
        "a schedule on no day of the week",
        lambda: al.PublishSchedule(at="06:00", zone="Europe/Berlin", weekdays=[]),
        al.DefinitionError,
        "weekdays=[] are not days of the week\n\nhint: 1 is Monday, 7 is Sunday, e.g. weekdays=range(1, 6).",
    ),
    case(
        "a delay that is negative",
        lambda: al.FixedDelay("-45m"),
        al.DurationError,
        "delay='-45m' is negative\n\nhint: delay counts from zero up, e.g. \"45m\".",
    ),
]


@pytest.mark.parametrize(("cause", "kind", "text"), CASES)
def test_bad_input_is_refused_with_a_text_that_helps(cause, kind, text):
    with pytest.raises(kind) as caught:
        cause()
    assert type(caught.value) is kind
    assert str(caught.value) == text


def test_a_log_without_rows_and_schema_is_not_said_to_lack_a_column_only(tmp_path: Path) -> None:
    log = ingestion.create_log(tmp_path, "weather", entities=["station"])
    with pytest.raises(al.MissingColumnError) as caught:
        al.FeatureView("weather", ["station"], log, [TEMP])
    assert str(caught.value) == (
        "the observations of view 'weather' have no column 'temp'\n\n"
        "hint: the log has no rows and no schema yet: append a batch first, or create it with schema={...}."
    )
