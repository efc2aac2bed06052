"""What an explanation holds: per feature its value, the rows it was made of, and why the others were not.

The form of `Explanation.to_dict()` is stable: keys are added, never renamed or removed.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.durations import EARLIEST, LATEST, instant_us
from alignment.explain_text import as_html, as_text, notebook_html
from alignment.explain_words import sentence
from alignment.layout import numbers

REASONS: dict[str, str] = {
    "expired": "was picked, but is older than an age limit allows",
    "not_arrived": "had not arrived by t",
    "after_as_of": "had arrived by t, but after as_of",
    "beyond_position": "lies beyond the log position",
    "short_notice": "arrived later before its event than min_notice asks",
    "superseded": "a later revision of its key had arrived",
    "retracted": "a retraction of its key had arrived",
    "retraction": "is a retraction itself",
    "older_issue": "a newer run that has its event had arrived",
    "outside_window": "its event lies outside of what the feature looks at",
    "null_skipped": "its value is null, and nulls are passed over",
    "older_event": "events that are newer were taken",
    "quarantined": "was set aside when it came, and is not in the log",
}
"""Why a row was not used, in the order in which they are shown; each row has one."""

UNUSED_ROWS = 3
"""Unused rows shown of each reason, unless another number is asked for: those nearest to what was used."""
USED_ROWS = 50
"""Used rows shown, the newest, unless another number is asked for."""
TEXT_ROWS = 12
"""Used rows that `str()` shows."""
_CODES = tuple(REASONS)
USED = 0
CODE_OF = {reason: number for number, reason in enumerate(_CODES, start=1)}
Keys = tuple[npt.NDArray[np.int64], ...]
_NO_DISTANCE = np.iinfo(np.int64).max

ROW_COLUMNS = {
    "row": pl.Int64,
    "log_sequence": pl.Int64,
    "event_time": pl.Datetime("us", "UTC"),
    "issue_time": pl.Datetime("us", "UTC"),
    "published_time": pl.Datetime("us", "UTC"),
    "received_time": pl.Datetime("us", "UTC"),
    "arrival_time": pl.Datetime("us", "UTC"),
    "given_arrival_time": pl.Datetime("us", "UTC"),
    "arrival_kind": pl.String,
    "is_retraction": pl.Boolean,
    "revision": pl.Int64,
    "revisions": pl.Int64,
}
"""The columns of rows, besides `value`, ages and, of unused ones, `reason` and `by`."""


@dataclass(frozen=True, slots=True, eq=False)
class NaiveAnswer:
    """What a join that ignores arrivals would have given (see `alignment.naive`), and from which rows.

    Attributes:
        value: Its value.
        status: Its status.
        rows: The rows it would have used, as in `FeatureExplanation.rows`.
        read_at: When its table was read: `as_of`, else the last arrival there is.
    """

    value: Any
    status: str
    rows: pl.DataFrame
    read_at: datetime | None


@dataclass(frozen=True, slots=True, eq=False)
class FeatureExplanation:
    """One feature: its value, the rows that made it, and why the others did not.

    Attributes:
        feature: The output column, such as `weather__temp`.
        view: The view's name.
        provider: Who sent the rows: the log's provider, of a plain frame the view's name.
        kind: `"measurement"` or `"forecast"`.
        declared: The declaration as plain data, with the age limits in force.
        value: As `point_in_time_join` gives it.
        status: As `point_in_time_join` gives it (R20).
        dtype: The column's type.
        t: The prediction time.
        as_of: Nothing that arrived later counts; None for no limit but t.
        position: The log position that was asked at; None where rows are not numbered, or all count.
        event_from: The first event time that the feature may use; None for any.
        event_until: The last one.
        rows: Every row of the entity that there is, each once, with `value` and ages; columns as in `ROW_COLUMNS`.
        codes: Row by row `USED`, or the number of a reason in `REASONS`, from 1.
        by: Row by row the place in `rows` of the row that took its part, -1 for none.
        quarantined: Rows that were set aside when they came, as `to_dict` gives them.
        naive: What a join on event time would have given.
    """

    feature: str
    view: str
    provider: str
    kind: str
    declared: Mapping[str, Any]
    value: Any
    status: str
    dtype: pl.DataType
    t: datetime
    as_of: datetime | None
    position: int | None
    event_from: datetime | None
    event_until: datetime
    rows: pl.DataFrame
    codes: npt.NDArray[np.uint8]
    by: npt.NDArray[np.int64]
    quarantined: list[dict[str, Any]]
    naive: NaiveAnswer

    @property
    def used(self) -> pl.DataFrame:
        """The rows that made the value, by event."""
        return self.rows[self._used()]

    @property
    def unused(self) -> pl.DataFrame:
        """All other rows with `reason` and `by` (the `row` of the one that took its part), nearest first."""
        return self._unused(_nearest(np.flatnonzero(self.codes != USED), self._nearness(), None)).drop("@by")

    @property
    def unused_counts(self) -> dict[str, int]:
        """How many rows were not used for each reason that occurs, in the order of `REASONS`."""
        counted = np.bincount(self.codes, minlength=len(_CODES) + 1)
        counts = {reason: int(counted[number]) for reason, number in CODE_OF.items()}
        counts["quarantined"] = len(self.quarantined)
        return {reason: count for reason, count in counts.items() if count}

    def to_dict(self, *, used: int | None = USED_ROWS, unused: int | None = UNUSED_ROWS) -> dict[str, Any]:
        """The explanation of this feature as plain data; see `Explanation.to_dict`."""
        places = self._used()
        shown = self.rows[places if used is None else places[max(0, len(places) - used) :]]
        return {
            "feature": self.feature,
            "view": self.view,
            "provider": self.provider,
            "kind": self.kind,
            "declared": plain(self.declared),
            "value": plain(self.value),
            "type": str(self.dtype),
            "status": self.status,
            "position": self.position,
            "event_from": plain(self.event_from),
            "event_until": plain(self.event_until),
            "used": [self._row(row) for row in _writable(shown).iter_rows(named=True)],
            "used_count": len(places),
            "unused": self._shown_unused(unused) + self.quarantined[:unused],
            "unused_counts": self.unused_counts,
            "naive": self._naive(used),
        }

    def _naive(self, shown: int | None) -> dict[str, Any]:
        rows = self.naive.rows if shown is None else self.naive.rows.tail(shown)
        value, given = plain(self.naive.value), plain(self.value)
        return {
            "value": value,
            "status": self.naive.status,
            "differs": value != given,
            "read_at": plain(self.naive.read_at),
            "rows": [self._row(row) for row in _writable(rows).iter_rows(named=True)],
            "row_count": self.naive.rows.height,
        }

    def _shown_unused(self, most: int | None) -> list[dict[str, Any]]:
        keys = self._nearness()
        each = (np.flatnonzero(self.codes == number) for number in range(1, len(_CODES) + 1))
        rows = self._unused(np.concatenate([_nearest(places, keys, most) for places in each]))
        others = _writable(self.rows[rows["@by"].fill_null(0)]).iter_rows(named=True)
        found = []
        for row, other in zip(_writable(rows).iter_rows(named=True), others, strict=True):
            taken = None if row["@by"] is None else other
            found.append(
                self._row(row) | {"reason": row["reason"], "by": row["by"], "text": sentence(self, row, taken)}
            )
        return found

    def _used(self) -> npt.NDArray[np.int64]:
        """Places of the used rows, by event."""
        places = np.flatnonzero(self.codes == USED)
        arrivals, sequences = (self._numbers(name)[places] for name in ("arrival_time", "log_sequence"))
        return places[np.lexsort((places, sequences, arrivals, self._numbers("event_time")[places]))]

    def _numbers(self, column: str) -> npt.NDArray[np.int64]:
        """A column as numbers; null is 0."""
        return numbers(self.rows[column].to_physical())

    def _nearness(self) -> Keys:
        """How far each row is from what the feature looks at: by event, then newest first, then by arrival."""
        events, until = self._numbers("event_time"), instant_us(self.event_until, "event_until")
        distance = np.maximum(events - until, 0)
        if self.event_from is not None:
            distance = np.maximum(distance, instant_us(self.event_from, "event_from") - events)
        if self.rows["event_time"].null_count():  # a retraction that names its id alone
            distance[self.rows["event_time"].is_null().to_numpy()] = _NO_DISTANCE
        arrivals = self._numbers("arrival_time")
        limit = self.t if self.as_of is None else min(self.t, self.as_of)
        # Of what came later the soonest is the nearest, of what was there the last.
        return distance, -events, np.where(arrivals > instant_us(limit, "t"), arrivals, -arrivals)

    def _unused(self, places: npt.NDArray[np.int64]) -> pl.DataFrame:
        """The rows at `places` with their reasons, and what took their part."""
        by = pl.Series("@by", self.by[places])
        by = by.set(by < 0, None)
        return self.rows[places].with_columns(
            pl.Series("reason", [_CODES[code - 1] for code in self.codes[places]], pl.String),
            self.rows["row"].gather(by).alias("by"),
            by,
        )

    def _row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        names = [*ROW_COLUMNS, "event_age", "arrival_age", "issue_age", "value"]
        return {"provider": self.provider} | {name: plain(row[name]) for name in names}


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Why features have the values they have, for one entity at one instant.

    Attributes:
        entity: Entity column to value, as the spine calls the columns.
        t: The prediction time.
        as_of: Nothing that arrived later counts; None for no limit but t.
        provisional: Whether the answer may still change (R1).
        features: One explanation per feature, in declared order.
        under: What moved the arrivals, as `transform_arrivals` was told, one after the other; empty if nothing did.
        notes: What else to know: that there are no rows of the entity, and of which there are.
    """

    entity: Mapping[str, Any]
    t: datetime
    as_of: datetime | None
    provisional: bool
    features: tuple[FeatureExplanation, ...]
    under: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    def __getitem__(self, feature: str) -> FeatureExplanation:
        """The explanation of one output column.

        Raises:
            KeyError: If there is none of that name; it says which there are.
        """
        for one in self.features:
            if feature == one.feature:
                return one
        raise KeyError(f"{feature!r}: the features are {', '.join(one.feature for one in self.features)}")

    def to_dict(self, *, used: int | None = USED_ROWS, unused: int | None = UNUSED_ROWS) -> dict[str, Any]:
        """The explanation as plain data for JSON.

        Instants are ISO 8601 texts in UTC (of what lies beyond the years 1 to 9999 their first or last instant), durations and
        ages seconds, NaN and infinities the texts `"NaN"`, `"Infinity"`, `"-Infinity"`, bytes base64.

        Args:
            used: Most rows shown of those a feature used, the newest; None for all.
            unused: Most rows shown for each reason; None for all.

        Returns:
            `entity`, `t`, `as_of`, `provisional`, `under` (`outages`, `delays` and `seed` of each call of `transform_arrivals`),
            `notes`, and `features`: for each `feature`, `view`, `provider`, `kind`, `declared`,
            `value`, `type`, `status`, `position`, `event_from` and `event_until` (what it looks at, both ends included),
            `used` rows and `used_count`, `unused` rows and `unused_counts` by reason, and `naive` (`value`, `status`,
            `differs`, `read_at`, `rows`, `row_count`).

            A row has `row` (its number in the frame that was given, of a log its `log_sequence`), `log_sequence`, `provider`,
            `event_time`, `issue_time`, `published_time`, `received_time`, `arrival_time`, `given_arrival_time` (where
            arrivals were moved), `arrival_kind`, `is_retraction`, `revision` (1 is the first of its key) of `revisions`,
            `event_age`, `arrival_age`, `issue_age` and `value`; an unused one also `reason` (one of `REASONS`), `by` (the
            `row` that took its part) and `text`.
        """
        return {
            "entity": plain(self.entity),
            "t": plain(self.t),
            "as_of": plain(self.as_of),
            "provisional": self.provisional,
            "under": [plain(moves) for moves in self.under],
            "notes": list(self.notes),
            "features": [one.to_dict(used=used, unused=unused) for one in self.features],
        }

    def to_text(self, *, used: int | None = USED_ROWS, unused: int | None = UNUSED_ROWS) -> str:
        """The explanation as plain tables; see `to_dict` for the arguments."""
        return as_text(self.to_dict(used=used, unused=unused))

    def to_html(self, *, used: int | None = USED_ROWS, unused: int | None = UNUSED_ROWS) -> str:
        """A page of its own: no scripts, nothing loaded from elsewhere, light or dark as the reader prefers.

        See `to_dict` for the arguments.
        """
        return as_html(self.to_dict(used=used, unused=unused))

    def _repr_html_(self) -> str:
        return notebook_html(self.to_dict())

    def __str__(self) -> str:
        return self.to_text(used=TEXT_ROWS)

    def __repr__(self) -> str:
        return f"Explanation({len(self.features)} features, entity={dict(self.entity)}, t={self.t.isoformat()})"


def _writable(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows whose instants Python can write: `EARLIEST` and `LATEST` for what lies beyond."""
    times = [name for name, kind in ROW_COLUMNS.items() if isinstance(kind, pl.Datetime)]
    return rows.with_columns(pl.col(times).clip(EARLIEST, LATEST))


def _nearest(places: npt.NDArray[np.int64], keys: Keys, most: int | None) -> npt.NDArray[np.int64]:
    """Those of the places with the least keys, in that order; at most so many."""
    if most is not None:
        places = places[_least(most, *(key[places] for key in keys))]
    return places[np.lexsort([key[places] for key in reversed(keys)])][:most]


def _least(most: int, *keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where the `most` least are, by the keys in turn, and perhaps a few that equal the last of them."""
    found = np.arange(len(keys[0]))
    sure: list[npt.NDArray[np.int64]] = []
    for key in keys:
        wanted = most - sum(map(len, sure))
        if wanted >= len(found) or wanted <= 0:
            break
        values = key[found]
        edge = np.partition(values, wanted - 1)[wanted - 1]
        sure.append(found[values < edge])
        found = found[values == edge]
    return np.concatenate([*sure, found])


def plain(value: Any) -> Any:
    """A value as JSON knows it; see `Explanation.to_dict`.

    Example:
        >>> plain([1.5, float("nan"), timedelta(minutes=1)])
        [1.5, 'NaN', 60.0]
    """
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value / timedelta(seconds=1)
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, pl.Series | list | tuple):
        return [plain(item) for item in value]
    return str(value)
