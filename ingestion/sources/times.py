"""Instants as providers write them, to UTC microseconds. What cannot be read is said row by row."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from zoneinfo import ZoneInfo

import polars as pl

from ingestion.sources.layout import TimeFormat

INSTANT = pl.Datetime("us", "UTC")
DAY_US = 86_400_000_000
_US_PER = {
    "epoch_s": Decimal(1_000_000),
    "epoch_ms": Decimal(1_000),
    "epoch_us": Decimal(1),
    "epoch_ns": Decimal("0.001"),
}
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 to 9999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ISO = (
    r"^\s*(?<date>\d{4}-\d{2}-\d{2}|\d{8})"
    r"(?:[Tt ](?<hour>\d{2}):?(?<minute>\d{2})(?::?(?<second>\d{2})(?:[.,](?<fraction>\d{1,18}))?)?"
    r"\s*(?<offset>[Zz]|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?)?\s*$"
)
_USUAL = r"^\d{{4}}-\d{{2}}-\d{{2}}{}\d{{2}}:\d{{2}}:[0-5]\d(?:\.\d{{1,6}})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$"


def read_instants(values: pl.Series, how: TimeFormat) -> tuple[pl.Series, pl.Series]:
    """Instants in UTC, and what is wrong with those that cannot be read.

    Nanoseconds and finer round up, so that nothing is known before it was (R15).

    Args:
        values: Text, numbers, dates or instants, with nulls.
        how: How they are written; types that say it themselves (dates, instants) need only its `zone` and `date_means`.

    Returns:
        Instants (Datetime us UTC) and problems (String), each of the length of `values`. Where a value is null both are
        null; otherwise exactly one is.
    """
    name = values.name
    if values.dtype == pl.Null:
        instants, problems = values.cast(INSTANT), values.cast(pl.String)
    elif isinstance(values.dtype, pl.Datetime):
        instants, problems = _of_datetimes(values, how)
    elif values.dtype == pl.Date:
        instants, problems = _of_days(values, how, values.cast(pl.String))
    elif how.format.startswith("epoch_"):
        instants, problems = _of_numbers(values, how)
    elif how.format == "strptime":
        instants, problems = _of_patterns(values.cast(pl.String), how)
    else:
        instants, problems = _of_iso(values.cast(pl.String), how)
    return instants.alias(name), problems.alias(name)


def _of_iso(texts: pl.Series, how: TimeFormat) -> tuple[pl.Series, pl.Series]:
    """ISO 8601, with or without offset, with or without a time of day."""
    usual = _of_usual_iso(texts)
    if usual is not None:
        return usual, _no_problems(len(texts))
    part = texts.str.extract_groups(_ISO).struct
    day = part.field("date").str.replace_all("-", "").str.to_date("%Y%m%d", strict=False)
    plain = day.cast(pl.Datetime("us")).cast(pl.Int64)
    of_day = part.field("hour").is_null() & day.is_not_null()
    hour, minute = part.field("hour").cast(pl.Int64), part.field("minute").cast(pl.Int64)
    second = part.field("second").cast(pl.Int64).fill_null(0)
    fraction = part.field("fraction").fill_null("")
    digits = fraction.str.pad_end(18, "0")
    micros = digits.str.slice(0, 6).cast(pl.Int64) + (digits.str.slice(6).cast(pl.Int64) > 0).cast(pl.Int64)
    time_of_day = ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros
    possible = (minute < 60) & (second < 60) & ((hour < 24) | ((hour == 24) & (minute == 0) & (second + micros == 0)))
    local = (plain + time_of_day).set(~possible.fill_null(value=False), None)
    offset = part.field("offset")
    has_offset, shift = offset.is_not_null(), _offset_us(offset)
    local = local.set(has_offset & shift.is_null(), None)
    instants = pl.select(
        pl.when(has_offset).then(local - shift).otherwise(_to_utc(local.set(has_offset, None), how.zone))
    ).to_series()
    if how.date_means is not None and how.zone is not None and of_day.any():
        dated, _ = _of_days(day.set(~of_day, None), how, texts)
        instants = pl.select(pl.coalesce(dated.cast(pl.Int64), instants)).to_series()
    shown = _shown(texts)
    problems = pl.select(
        pl.when(texts.is_null() | instants.is_not_null())
        .then(None)
        .when(of_day)
        .then(pl.format("{} is a date without a time: its layout needs zone and date_means", shown))
        .when(local.is_not_null())
        .then(pl.format("{} has no time zone", shown))
        .otherwise(pl.format("{} is not an ISO 8601 instant", shown))
    ).to_series()
    return _in_range(instants), problems.fill_null(_out_of_range(instants, shown))


def _of_usual_iso(texts: pl.Series) -> pl.Series | None:
    """Instants in the form that nearly everybody sends, in a tenth of the time; `None` if one of them has another."""
    between = "T" if "T" in (texts.drop_nulls().head(1).to_list() or [""])[0] else " "
    if not texts.str.contains(_USUAL.format(between)).all():
        return None
    read = texts.str.to_datetime(f"%Y-%m-%d{between}%H:%M:%S%.f%#z", strict=False, time_unit="us")
    whole = read.dtype == INSTANT and read.null_count() == texts.null_count()
    return read if whole and bool(read.dt.year().is_between(1, 9999).all()) else None


def _no_problems(rows: int) -> pl.Series:
    return pl.Series([None], dtype=pl.String).new_from_index(0, rows)


def _offset_us(offset: pl.Series) -> pl.Series:
    """Offsets such as `Z`, `+02`, `-0330`, as microseconds; what is no such offset (`+25:00`) is null."""
    digits = offset.str.replace(":", "").str.slice(1)
    hours = digits.str.slice(0, 2).cast(pl.Int64, strict=False).fill_null(0)
    minutes = digits.str.slice(2, 2).cast(pl.Int64, strict=False).fill_null(0)
    size = (hours * 60 + minutes) * 60_000_000
    size = size.set((hours > 23) | (minutes > 59), None)
    return pl.select(pl.when(offset.str.starts_with("-")).then(-size).otherwise(size)).to_series()


def _of_numbers(values: pl.Series, how: TimeFormat) -> tuple[pl.Series, pl.Series]:
    """Numbers since 1970; whole ones exactly, others to the microsecond."""
    shown = _shown(values.cast(pl.String))
    if values.dtype.is_float():  # a float has no more to say than its shortest text
        texts = pl.Series([None if value is None else repr(value) for value in values.to_list()], dtype=pl.String)
    else:
        texts = values.cast(pl.String)
    if values.dtype.is_integer() and how.format != "epoch_ns":
        found = values.cast(pl.Int64, strict=False)
        scale = int(_US_PER[how.format])
        limit = _LAST_US // scale
        instants = found.set((found > limit) | (found < -limit), None) * scale
    else:
        unique = texts.unique().drop_nulls()
        known = {text: _number_us(text, how.format) for text in unique.to_list()}
        instants = pl.Series([None if text is None else known[text] for text in texts.to_list()], dtype=pl.Int64)
    instants = _in_range(instants).cast(pl.Int64)
    problems = pl.select(
        pl.when(values.is_null() | instants.is_not_null())
        .then(None)
        .otherwise(pl.format("{} is not an instant in {} since 1970", shown, pl.lit(how.format.removeprefix("epoch_"))))
    ).to_series()
    return _in_range(instants), problems


def _number_us(text: str, style: str) -> int | None:
    try:
        value = Decimal(text.strip()) * _US_PER[style]
        return int(value.to_integral_value(ROUND_CEILING)) if abs(value) <= _LAST_US else None
    except (InvalidOperation, ValueError):
        return None


def _of_patterns(texts: pl.Series, how: TimeFormat) -> tuple[pl.Series, pl.Series]:
    """What `strptime` reads, once per distinct text."""
    pattern = how.pattern or ""
    known: dict[str, datetime | None] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a pattern without a year: the pattern is the provider's
        for text in texts.unique().drop_nulls().to_list():
            try:
                known[text] = datetime.strptime(text.strip(), pattern)  # noqa: DTZ007 - the zone is looked at below
            except ValueError:
                known[text] = None
    read = [None if text is None else known[text] for text in texts.to_list()]
    shown = _shown(texts)
    if any(value is not None and value.tzinfo is not None for value in read):
        exact = pl.Series(
            [None if v is None else (v - _EPOCH) // timedelta(microseconds=1) for v in read], dtype=pl.Int64
        )
    else:
        local = pl.Series(read, dtype=pl.Datetime("us"))
        if how.date_means is not None:
            exact = _of_days(local.dt.date(), how, texts)[0].cast(pl.Int64)
        else:
            exact = _to_utc(local.cast(pl.Int64), how.zone)
    readable = pl.Series([value is not None for value in read], dtype=pl.Boolean)
    problems = pl.select(
        pl.when(texts.is_null() | exact.is_not_null())
        .then(None)
        .when(readable)
        .then(pl.format("{} has no time zone", shown))
        .otherwise(pl.format("{} does not look like {}", shown, pl.lit(repr(pattern))))
    ).to_series()
    return _in_range(exact), problems.fill_null(_out_of_range(exact, shown))


def _of_datetimes(values: pl.Series, how: TimeFormat) -> tuple[pl.Series, pl.Series]:
    """Instants that came as such; those without a zone are in `how.zone`."""
    assert isinstance(values.dtype, pl.Datetime)  # noqa: S101 - for the type checker
    whole = values.dt.epoch("ns") if values.dtype.time_unit == "ns" else None
    us = values.dt.epoch("us") if whole is None else -((-whole) // 1_000)
    if values.dtype.time_zone is None:
        us = _to_utc(us, how.zone)
    shown = _shown(_texts(values, us))
    problems = pl.select(
        pl.when(values.is_null() | us.is_not_null()).then(None).otherwise(pl.format("{} has no time zone", shown))
    ).to_series()
    return _in_range(us), problems.fill_null(_out_of_range(us, shown))


def _texts(values: pl.Series, us: pl.Series) -> pl.Series:
    """Instants as text; those that no calendar has, as their number: Polars ends with a panic there."""
    strange = ~us.is_between(_FIRST_US, _LAST_US).fill_null(value=True)
    return values.set(strange, None).cast(pl.String).fill_null(values.to_physical().cast(pl.String))


def _of_days(days: pl.Series, how: TimeFormat, texts: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Days without a time: their first instant in the zone, or that of the next day."""
    if how.zone is None or how.date_means is None:
        shown = _shown(texts)
        problems = pl.select(
            pl.when(days.is_null())
            .then(None)
            .otherwise(pl.format("{} is a date without a time: its layout needs zone and date_means", shown))
        ).to_series()
        return pl.Series([None] * len(days), dtype=INSTANT), problems
    local = days.cast(pl.Datetime("us")).cast(pl.Int64) + (DAY_US if how.date_means == "end" else 0)
    return _in_range(_to_utc(local, how.zone)), _no_problems(len(days))


def _to_utc(local: pl.Series, zone: str | None) -> pl.Series:
    """Local microseconds in a zone, as UTC ones: a doubled time is its first, one in a gap is the transition (R15)."""
    if zone is None:
        return pl.Series([None], dtype=pl.Int64).new_from_index(0, len(local))
    stamps = local.cast(pl.Datetime("us"))
    found = stamps.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.epoch("us")
    for row in (found.is_null() & local.is_not_null()).arg_true():
        found[row] = _transition(stamps[row], ZoneInfo(zone))
    return found


def _transition(wall: datetime, zone: ZoneInfo) -> int:
    """The instant at which the clock jumped over `wall`, in microseconds."""
    early = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    late = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    before = early.astimezone(zone).utcoffset()
    while late - early > timedelta(microseconds=1):
        middle = early + (late - early) // 2
        if middle.astimezone(zone).utcoffset() == before:
            early = middle
        else:
            late = middle
    return (late - _EPOCH) // timedelta(microseconds=1)


def _in_range(us: pl.Series) -> pl.Series:
    return us.set((us < _FIRST_US) | (us > _LAST_US), None).cast(INSTANT)


def _out_of_range(us: pl.Series, shown: pl.Series) -> pl.Series:
    return pl.select(
        pl.when((us < _FIRST_US) | (us > _LAST_US)).then(pl.format("{} lies outside the years 1 to 9999", shown))
    ).to_series()


def _shown(texts: pl.Series) -> pl.Series:
    """Values as messages show them: in quotes, and no longer than a line."""
    return ("'" + texts.str.slice(0, 60) + "'").alias("shown")
