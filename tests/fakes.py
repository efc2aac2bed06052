"""A log that lives in a frame: what `alignment` needs of one, without a disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import polars as pl


@dataclass
class FrameLog:
    """Observation rows with a `log_sequence`, offered as a log offers them.

    With `eager=True` it skips all that it is allowed to skip (rows outside the event range), else nothing.
    """

    frame: pl.DataFrame
    provider: str
    entities: list[str]
    kind: Literal["measurement", "forecast"] = "measurement"
    key: list[str] | None = None
    clock_tolerance: str = "5s"
    since: dict[str, int] = field(default_factory=dict)
    through: datetime | None = None
    eager: bool = False

    def position(self) -> int:
        """The greatest log_sequence."""
        return -1 if self.frame.is_empty() else int(self.frame["log_sequence"].max())  # type: ignore[arg-type]

    def observed_through(self) -> datetime | None:
        """Up to when everything is known to be here."""
        return self.through

    def column_since(self) -> dict[str, int]:
        """First sequence that could carry a column."""
        return dict(self.since)

    def scan(
        self,
        *,
        position: int | None = None,
        as_of: datetime | None = None,
        event_from: datetime | None = None,
        event_until: datetime | None = None,
        columns: Sequence[str] | None = None,
        after: int | None = None,
    ) -> pl.LazyFrame:
        """The rows up to a position that had arrived by `as_of`."""
        rows = self.frame.lazy()
        if after is not None:
            rows = rows.filter(pl.col("log_sequence") > after)
        if position is not None:
            rows = rows.filter(pl.col("log_sequence") <= position)
        if as_of is not None:
            rows = rows.filter(pl.col("arrival_time") <= as_of)
        if self.eager and event_from is not None:
            rows = rows.filter(pl.col("event_time").is_null() | (pl.col("event_time") >= event_from))
        if self.eager and event_until is not None:
            rows = rows.filter(pl.col("event_time").is_null() | (pl.col("event_time") <= event_until))
        if columns is not None:
            names = self.frame.columns
            fixed = ["event_time", "arrival_time", "issue_time", "is_retraction", "log_sequence", "arrival_kind"]
            wanted = [*self.entities, *(self.key or []), *fixed, *columns]
            rows = rows.select([name for name in dict.fromkeys(wanted) if name in names])
        return rows


@dataclass
class PolledLog(FrameLog):
    """A log that also knows when its provider was polled in vain: `empty` has `arrival_time` and `log_sequence`."""

    empty: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(
            schema={"arrival_time": pl.Datetime("us", "UTC"), "log_sequence": pl.Int64()}
        )
    )

    def position(self) -> int:
        """The greatest log_sequence, of rows or of polls."""
        last = self.empty["log_sequence"].max()
        return max(super().position(), -1 if last is None else int(last))  # type: ignore[arg-type]

    def heartbeats(self, *, position: int | None = None, as_of: datetime | None = None) -> pl.DataFrame:
        """Batches and empty polls up to a position."""
        beats = pl.concat([self.frame.select("arrival_time", "log_sequence"), self.empty]).sort("arrival_time")
        if position is not None:
            beats = beats.filter(pl.col("log_sequence") <= position)
        return beats if as_of is None else beats.filter(pl.col("arrival_time") <= as_of)
