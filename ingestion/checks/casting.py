"""Values to the type that a contract asks for: nothing is lost on the way, or it is said which rows would lose something."""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any, Final

import polars as pl

from ingestion.sources.layout import TimeFormat
from ingestion.sources.times import read_instants

_EXACT: Final = 2**53
_EXACT_32: Final = 2**24
_NUMBER: Final = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$|^(?i:nan|[+-]?inf(?:inity)?)$"
_PLAIN: Final = r"^[+-]?(?:\d+\.?\d*|\.\d+)$"
_FRACTION: Final = r"[.,](\d*?)0*(?:\D.*)?$"
_DIGITS: Final = {"ms": 3, "us": 6, "ns": 9}
_LIST: Final = r"^\s*\[[^\[\]]*\]\s*$"
_JSON: Final = r'^\s*\[.*(?:"|\bnull\b).*\]\s*$'


def cast_column(values: pl.Series, dtype: pl.DataType) -> tuple[pl.Series, pl.Series]:
    """Values as another type, and where that cannot be done.

    Numbers written as text are read; whole numbers may be written with a fraction of zero. Fractions become the nearest
    Float32 or Float64; whole numbers beyond 2**53 become neither, beyond 2**24 no Float32. Digits that a Decimal, or a unit of
    time, has no room for are never cut off. Text is an instant if it is ISO 8601 with an offset, and
    Binary if it is base64. Truth values are no numbers. A naive instant is no instant.

    Args:
        values: What came.
        dtype: What it should be.

    Returns:
        The values as `dtype`, null where that fails, and whether it fails (Boolean, never null). A null never fails.

    Example:
        >>> cast, fails = cast_column(pl.Series(["1.5", "n/a", None]), pl.Float64())
        >>> cast.to_list(), fails.to_list()
        ([1.5, None, None], [False, True, False])
    """
    if isinstance(values.dtype, pl.Categorical | pl.Enum):
        values = values.cast(pl.String)
    if values.dtype == dtype or values.dtype == pl.Null():
        return values.cast(dtype), _never(values)
    cast = _cast(values, dtype)
    return cast, (cast.is_null() & values.is_not_null()).alias(values.name)


def _cast(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """The values as another type, null where something would be lost."""
    name, source = values.name, values.dtype
    if isinstance(dtype, pl.List | pl.Array):
        cast = _as_lists(values, dtype)
    elif source.is_nested():
        cast = None
    elif dtype == pl.String:
        cast = None if source == pl.Binary or isinstance(source, pl.Duration) else values.cast(pl.String)
    elif dtype == pl.Boolean:
        cast = _as_truth(values)
    elif dtype.is_integer():
        cast = _as_integers(values, dtype)
    elif dtype.is_float():
        cast = _as_floats(values, dtype)
    elif isinstance(dtype, pl.Decimal):
        cast = _as_decimals(values, dtype)
    elif dtype == pl.Binary:
        cast = values.str.decode("base64", strict=False) if source == pl.String else None
    else:
        cast = _as_times(values, dtype)
    return (cast if cast is not None else pl.Series([None], dtype=dtype).new_from_index(0, len(values))).alias(name)


def _as_truth(values: pl.Series) -> pl.Series | None:
    if values.dtype == pl.String:
        word = values.str.strip_chars().str.to_lowercase()
        return pl.select(pl.when(word == "true").then(True).when(word == "false").then(False)).to_series()
    if values.dtype.is_integer() or values.dtype.is_float():
        return pl.select(pl.when(values == 1).then(True).when(values == 0).then(False)).to_series()
    return None


def _as_integers(values: pl.Series, dtype: pl.DataType) -> pl.Series | None:
    if values.dtype == pl.String:
        texts = values.str.strip_chars()
        whole = texts.str.strip_prefix("+").cast(pl.Int128, strict=False)
        rest = whole.is_null() & texts.str.contains(_NUMBER).fill_null(value=False)
        return _filled(whole, rest, [_whole_in(text) for text in texts.filter(rest)]).cast(dtype, strict=False)
    if values.dtype.is_integer():
        return values.cast(dtype, strict=False)
    if values.dtype.is_float() or isinstance(values.dtype, pl.Decimal):
        return _whole(values, dtype)
    return None


def _filled(values: pl.Series, places: pl.Series, by: list[Any]) -> pl.Series:
    """Values with others at some places."""
    if not by:
        return values
    both = pl.concat([values, pl.Series(by, dtype=values.dtype)])
    index = pl.when(places).then(len(values) + places.cast(pl.Int64).cum_sum() - 1).otherwise(pl.int_range(len(values)))
    return both.gather(pl.select(index).to_series())


def _whole_in(text: str) -> int | None:
    """The whole number that a text writes with a fraction or an exponent."""
    number = Decimal(text)
    if not text.isascii() or not number.is_finite() or number.adjusted() > 38 or number != number.to_integral_value():
        return None
    return int(number)


def _whole(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Numbers without a fraction as integers."""
    cast = values.cast(dtype, strict=False)
    same = cast.cast(values.dtype, strict=False) == values
    return _where(cast, same & (values.abs() <= _EXACT) if values.dtype.is_float() else same)


def _floats_in(texts: pl.Series) -> pl.Series:
    """The numbers that texts write, as Float64; one that is too great is none."""
    stripped = texts.str.strip_chars()
    numbers = _where(stripped, stripped.str.contains(_NUMBER)).cast(pl.Float64, strict=False)
    return _where(numbers, ~(numbers.is_infinite() & stripped.str.contains(r"\d")))


def _as_floats(values: pl.Series, dtype: pl.DataType) -> pl.Series | None:
    limit = _EXACT_32 if dtype == pl.Float32 else _EXACT
    if values.dtype == pl.String:
        long = values.str.contains(rf"^\s*[+-]?\d{{{len(str(limit))},}}(?:\.\d*)?\s*$").fill_null(value=False)
        inexact = [text if _is_exact(text, limit) else None for text in values.filter(long)]
        wide = _floats_in(_filled(values, long, inexact))
    elif values.dtype.is_integer():
        wide = _where(values, values.cast(pl.Int128).abs() <= limit).cast(pl.Float64)
    elif isinstance(values.dtype, pl.Decimal):
        wide = _where(values, values.abs() <= limit).cast(pl.Float64)
    elif values.dtype.is_float():
        wide = values.cast(pl.Float64)
    else:
        return None
    cast = wide.cast(dtype)
    return _where(cast, ~(cast.is_infinite() & wide.is_finite()))


def _is_exact(text: str, limit: int) -> bool:
    """Whether a long number is one that a float can be; where it has a fraction of zero it may be a float's own text."""
    number = Decimal(text.strip())
    return abs(number) <= limit or ("." in text and Decimal(float(number)) == number)


def _as_decimals(values: pl.Series, dtype: pl.Decimal) -> pl.Series | None:
    if values.dtype == pl.String:
        return _decimals_in(values.str.strip_chars(), dtype)
    if isinstance(values.dtype, pl.Decimal):
        cast = values.cast(dtype, strict=False)
        return _where(cast, cast.cast(values.dtype, strict=False) == values)
    if values.dtype.is_integer():
        return values.cast(dtype, strict=False)
    if not values.dtype.is_float():
        return None
    half = 0.5 * 10.0**-dtype.scale
    # Polars raises where other types become null
    fitting = _where(values, values.abs().cast(pl.Float64) < 10.0 ** (dtype.precision - dtype.scale) - half)
    cast, meant = fitting.cast(dtype, strict=False), fitting.cast(pl.Float64)
    return _where(cast, (cast.cast(pl.Float64) - meant).abs() <= meant.abs() * 1e-12)


def _decimals_in(texts: pl.Series, dtype: pl.Decimal) -> pl.Series:
    """The numbers that texts write, if they have no more digits than there is room for."""
    plain = texts.str.contains(_PLAIN) & (_fraction_digits(texts) <= dtype.scale)
    cast = _where(texts, plain).str.strip_prefix("+").cast(dtype, strict=False)
    rest = texts.str.contains(_NUMBER).fill_null(value=False) & texts.str.contains(r"\d[eE]|\.[eE]").fill_null(
        value=False
    )
    return _filled(cast, rest, [_decimal_in(text, dtype) for text in texts.filter(rest)])


def _decimal_in(text: str, dtype: pl.Decimal) -> Decimal | None:
    with localcontext() as context:
        context.prec = dtype.precision
        try:
            number = Decimal(text)
            exact = number.quantize(Decimal(1).scaleb(-dtype.scale))
        except InvalidOperation:
            return None
    return exact if exact == number else None


def _fraction_digits(texts: pl.Series) -> pl.Series:
    """How many digits that are not zeros at the end follow the point."""
    return texts.str.extract(_FRACTION, 1).fill_null("").str.len_chars()


def _as_times(values: pl.Series, dtype: pl.DataType) -> pl.Series | None:
    source = values.dtype
    if isinstance(dtype, pl.Datetime):
        if source == pl.String:
            if dtype.time_zone is None:
                texts = _where(values, _fraction_digits(values) <= _DIGITS[dtype.time_unit]).str.strip_chars()
                texts = texts.str.replace(" ", "T", literal=True)
                return texts.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit=dtype.time_unit, strict=False)
            exact = _fraction_digits(values) <= min(6, _DIGITS[dtype.time_unit])  # instants are read in microseconds
            instants, _ = read_instants(_where(values, exact), TimeFormat())
            return instants.dt.convert_time_zone(dtype.time_zone).cast(dtype, strict=False)
        if isinstance(source, pl.Datetime) and (source.time_zone is None) == (dtype.time_zone is None):
            cast = values.cast(pl.Datetime(dtype.time_unit, source.time_zone), strict=False)
            exact = cast.cast(source, strict=False) == values
            return _where(cast if dtype.time_zone is None else cast.dt.convert_time_zone(dtype.time_zone), exact)
        return None
    if dtype == pl.Date:
        if source == pl.String:
            return values.str.to_date("%Y-%m-%d", strict=False)
        if isinstance(source, pl.Datetime) and source.time_zone is None:
            return _where(values.cast(pl.Date), values.dt.truncate("1d") == values)
        return None
    if dtype == pl.Time and source == pl.String:
        return _where(values, _fraction_digits(values) <= _DIGITS["ns"]).str.to_time("%H:%M:%S%.f", strict=False)
    if isinstance(dtype, pl.Duration) and isinstance(source, pl.Duration):
        cast = values.cast(dtype, strict=False)
        return _where(cast, cast.cast(source, strict=False) == values)
    return None


def _as_lists(values: pl.Series, dtype: pl.List | pl.Array) -> pl.Series | None:
    inner = dtype.inner if isinstance(dtype.inner, pl.DataType) else dtype.inner()
    if values.dtype == pl.String:
        written = values.str.contains(_JSON).fill_null(value=False)
        looks = values.str.contains(_LIST) & ~written
        texts = _where(values, looks).str.strip_chars("[] \t\r\n")
        parts = texts.str.split(",").list.eval(pl.element().str.strip_chars())
        lists = pl.select(pl.when(texts == "").then(pl.lit([], pl.List(pl.String))).otherwise(parts)).to_series()
        lists = _filled(lists, written, [_items(text) for text in values.filter(written)])
    elif isinstance(values.dtype, pl.Array):
        lists = values.arr.to_list()
    elif isinstance(values.dtype, pl.List):
        lists = values
    else:
        return None
    if lists.dtype == pl.List(inner):
        return _where(lists, lists.list.len() == dtype.size).cast(dtype) if isinstance(dtype, pl.Array) else lists
    rows = pl.DataFrame({"row": pl.int_range(len(lists), eager=True), "value": lists}).filter(
        pl.col("value").list.len() > 0
    )
    flat = rows.explode("value")
    cast, fails = cast_column(flat["value"], inner)
    whole = pl.DataFrame({"row": flat["row"], "cast": cast}).group_by("row", maintain_order=True).agg("cast")
    broken = flat["row"].filter(fails)
    joined = pl.DataFrame({"row": pl.int_range(len(lists), eager=True), "old": lists}).join(
        whole, on="row", how="left", maintain_order="left"
    )
    found = joined.select(
        pl.when(pl.col("old").is_null() | pl.col("row").is_in(broken.implode()))
        .then(None)
        .when(pl.col("old").list.len() == 0)
        .then(pl.lit([], pl.List(inner)))
        .otherwise(pl.col("cast").cast(pl.List(inner)))
    ).to_series()
    if isinstance(dtype, pl.Array):
        return _where(found, found.list.len() == dtype.size).cast(dtype)
    return found


def _items(text: str) -> list[str | None] | None:
    """The items of a JSON list as texts; `None` if it is none, or holds lists or objects."""
    try:
        found = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except ValueError:
        return None
    if any(isinstance(item, list | dict) for item in found):
        return None
    return [json.dumps(item) if isinstance(item, bool) else item for item in found]


def _where(values: pl.Series, holds: pl.Series) -> pl.Series:
    """The values for which something holds; the others are null."""
    return pl.select(pl.when(holds).then(values)).to_series()


def _never(values: pl.Series) -> pl.Series:
    return pl.Series(values.name, [False], pl.Boolean).new_from_index(0, len(values))
