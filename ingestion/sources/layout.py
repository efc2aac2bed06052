"""How a provider's bytes are laid out: where the rows are, what the columns are called there, how instants are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ingestion.errors import nearest
from ingestion.sources.settings import Zone

Format = Literal["json", "ndjson", "csv", "parquet", "arrow"]
TimeStyle = Literal["iso", "epoch_s", "epoch_ms", "epoch_us", "epoch_ns", "strptime", "date"]

ABSENT = "__absent"
"""Column that lists, per row, the columns that were not sent in it."""
BROKEN = "__broken"
"""Column that says, per row, what could not be read in it; there only if something could not."""
INSTANTS = ("event_time", "arrival_time", "received_time", "published_time", "issue_time")
"""Columns that are read as instants even if the layout does not say so."""

_HAS_TIME_OF_DAY = re.compile(r"%[HIMSfcXTRsp]|%-[HIMS]")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TimeFormat(_Strict):
    """How a column writes instants.

    Attributes:
        format: `iso` takes ISO 8601, with an offset or without; `epoch_s`, `epoch_ms`, `epoch_us`, `epoch_ns` take
            numbers since 1970-01-01 UTC; `strptime` takes what `pattern` says; `date` takes days without a time.
        pattern: Of `strptime`, as Python's `datetime.strptime` takes it.
        zone: IANA name of the zone that instants without an offset are in. A local time in a gap is the transition
            instant, a doubled one its first.
        date_means: What a date without a time means: the `start` of that day in `zone`, or its `end`, the next midnight.
    """

    format: TimeStyle = "iso"
    pattern: str | None = None
    zone: Zone | None = None
    date_means: Literal["start", "end"] | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if (self.format == "strptime") != (self.pattern is not None):
            raise ValueError("pattern belongs to format: strptime, which needs one")
        only_dates = self.format == "date" or (self.pattern is not None and not _HAS_TIME_OF_DAY.search(self.pattern))
        if only_dates and (self.date_means is None or self.zone is None):
            raise ValueError("a date without a time needs zone and date_means: start or end")
        return self


class StateTime(TimeFormat):
    """Where a whole state says of what instant it tells.

    Attributes:
        path: Dot path from the root of the document, e.g. `metadata.generated`.
    """

    path: str


class RetractionRule(_Strict):
    """Which rows say that their observation no longer exists.

    Attributes:
        column: The provider's column or dot path.
        values: The values that say so, compared as text.
    """

    column: str
    values: tuple[str | int | bool, ...] = Field(min_length=1)


class Layout(_Strict):
    """How bytes become rows.

    A path is a name, or names joined by dots that lead into objects; a number picks from a list, so `geometry.coordinates.0`
    is the first coordinate. `$.` in front starts at the root of the document instead of the row. A field whose own name has
    dots in it is found first.

    A table (CSV, Parquet, Arrow, a query's result) must have all columns that are named, unless they are `optional`.

    Attributes:
        format: What the bytes are; `auto` goes by the media type, the name's ending, the first bytes. Gzip is seen through.
        records: Of JSON, the path to the list of rows, e.g. `features`; `None` if the document is the list, or one row.
        columns: Our name to the provider's path. `None` takes every top-level field by its name. A column that no row has
            is left out, so that its loss can be seen; one that some rows lack is null there.
        optional: Our columns that a table may lack; with `on_lost_column: null` all of the contract's.
        required: Our columns that JSON must have too, in some row; the provider's key is.
        others: With `columns`, what becomes of top-level fields that are not named there: `drop` or `keep`.
        constants: Columns that are the same in every row.
        times: How our columns write instants. The log's own time columns are read as ISO 8601 unless named here.
        retraction: Which rows are retractions; the column `is_retraction` tells.
        text: Our columns that stay text where CSV would otherwise be read as numbers, e.g. identifiers.
        nulls: Texts that mean null, besides CSV's empty field.
        separator: Of CSV.
        decimal_comma: Whether CSV writes numbers as `1,5`.
        encoding: Of CSV.
        mark_absent: Add the column `__absent`, which lists the columns that were not sent in a row: absent is not null.
        state_time: Where a whole state says of what instant it tells.
    """

    format: Format | Literal["auto"] = "auto"
    records: str | None = None
    columns: dict[str, str] | None = None
    optional: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    others: Literal["drop", "keep"] = "drop"
    constants: dict[str, str | int | float | bool] = Field(default_factory=dict)
    times: dict[str, TimeFormat] = Field(default_factory=dict)
    retraction: RetractionRule | None = None
    text: tuple[str, ...] = ()
    nulls: tuple[str, ...] = ()
    separator: str = Field(default=",", min_length=1, max_length=1)
    decimal_comma: bool = False
    encoding: str = "utf-8"
    mark_absent: bool = False
    state_time: StateTime | None = None

    @model_validator(mode="after")
    def _names_are_free(self) -> Self:
        named = set(self.columns or ())
        if both := sorted(named & set(self.constants)):
            raise ValueError(f"columns and constants both give {both}")
        if own := sorted(name for name in named | set(self.constants) if name in {ABSENT, BROKEN}):
            raise ValueError(f"{own} are names of our own")
        if self.decimal_comma and self.separator == ",":
            raise ValueError("decimal_comma needs another separator, such as ';'")
        try:
            "".encode(self.encoding)
        except LookupError:
            raise ValueError(f"encoding {self.encoding!r} is not known") from None
        return self

    def header_problem(self, names: Sequence[str]) -> tuple[str, str] | None:
        """Which of our columns a table lacks, and what may have been meant; `None` if it has all that it must."""
        if self.mark_absent:
            return None
        for ours, path in (self.columns or {}).items():
            if path not in names and path.partition(".")[0] not in names and ours not in self.optional:
                return f"there is no column {path!r} (for {ours})", nearest(path, names)
        return None

    def time_format(self, column: str) -> TimeFormat | None:
        """How one of our columns writes instants; `None` if it holds none."""
        found = self.times.get(column)
        return TimeFormat() if found is None and column in INSTANTS else found
