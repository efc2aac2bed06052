"""How late, how often revised, how complete: a provider's habits, read from its log.

One sort brings the revisions of every key together; everything else is arithmetic on neighbours. Of a forecast, all
issues of one event count as its revisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from alignment.settling import (
    FIRST,
    KEY,
    QUANTILE_NAMES,
    Quantiles,
    final_rows,
    human,
    near,
    quantiles,
    settled_rows,
    side_by_side,
)
from ingestion.log import ObservationLog

if TYPE_CHECKING:
    from pathlib import Path

_SHOWN = 5
_BULK_ROWS, _BULK_FACTOR, _GAP_FACTOR = 1_000, 20, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnProfile:
    """One value column.

    Attributes:
        column: Its name.
        dtype: Its type.
        nulls: Rows that are no retraction and have null there.
        null_share: The same as a share of these rows.
        revised_keys: Keys whose value ever changed.
        revision_rate: The same as a share of all keys.
        first_within: Share of keys whose first value was within the tolerance of the final one.
        settled: How long after its event a value was, and stayed, within the tolerance of its final one.
        settled_after_first: The same, counted from the key's first arrival; of the keys that were revised.
    """

    column: str
    dtype: str
    nulls: int
    null_share: float
    revised_keys: int
    revision_rate: float
    first_within: float
    settled: Quantiles
    settled_after_first: Quantiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A provider's habits.

    Attributes:
        provider: Whose log.
        kind: Of measurements or forecasts.
        position: The log's position that was read.
        within_percent: The tolerance of `first_within` and `settled`.
        rows: Observations.
        keys: Distinct keys.
        retractions: Rows that withdraw.
        revision_rate: Rows after a key's first, per key.
        first_delay: Delay of each key's first arrival.
        all_delay: Delay of every row.
        issue_delay: Of forecasts, arrival after issue.
        arrival_kinds: Rows by how their arrival is known.
        arrivals: Distinct arrival instants.
        usual_gap: The median time between two, in seconds.
        gaps: The longest times without an arrival, where they are ten times the usual and more.
        bulk_loads: Instants at which twenty times the usual number of rows, and at least 1,000, arrived at once.
        clock_faults: Rows that contradict a clock, by kind.
        columns: Each value column.
    """

    provider: str
    kind: str
    position: int
    within_percent: float
    rows: int
    keys: int
    retractions: int
    revision_rate: float
    first_delay: Quantiles
    all_delay: Quantiles
    issue_delay: Quantiles | None
    arrival_kinds: dict[str, int]
    arrivals: int
    usual_gap: float | None
    gaps: tuple[dict[str, Any], ...]
    bulk_loads: tuple[dict[str, Any], ...]
    clock_faults: dict[str, int]
    columns: tuple[ColumnProfile, ...]

    def to_dict(self) -> dict[str, Any]:
        """The profile as plain values; instants as text, lengths in seconds."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def plot(self, path: str | Path | None = None) -> Any:
        """A picture of the profile; see `ingestion.profiling_plot.plot_profile`."""
        from ingestion.profiling_plot import plot_profile

        return plot_profile(self, path)

    def __str__(self) -> str:
        lines = [
            (
                f"{self.provider}: {self.rows:,} rows of {self.keys:,} keys, {self.retractions:,} retractions,"
                f" {self.revision_rate:.2f} revisions per key"
            ),
            f"  {'delay':<22}" + "".join(f"{name:>9}" for name in QUANTILE_NAMES),
            _quantile_line("first arrival", self.first_delay),
            _quantile_line("all arrivals", self.all_delay),
        ]
        if self.issue_delay is not None:
            lines.append(_quantile_line("after issue", self.issue_delay))
        lines.append(f"  within {self.within_percent:g} % of the final value")
        lines += [_quantile_line(column.column, column.settled) for column in self.columns]
        lines.append(f"  {'column':<22}{'nulls':>9}{'revised':>9}{'first ok':>9}")
        lines += [
            f"  {column.column:<22}{column.null_share:>9.1%}{column.revision_rate:>9.1%}{column.first_within:>9.1%}"
            for column in self.columns
        ]
        lines += [
            f"  gap        {gap['from']} .. {gap['until']} ({human(gap['seconds'])})" for gap in _plain(self.gaps)
        ]
        lines += [
            f"  bulk load  {load['arrival_time']}: {load['rows']:,} rows, events {load['first_event']} .. {load['last_event']}"
            for load in _plain(self.bulk_loads)
        ]
        lines += [f"  clock      {count:,} rows: {what}" for what, count in self.clock_faults.items() if count]
        return "\n".join(lines)


def profile(log: ObservationLog, *, within_percent: float = 1.0, position: int | None = None) -> Profile:
    """A provider's habits.

    Args:
        log: The log.
        within_percent: How near to its final value a number counts as settled; other types must be equal.
        position: The log position to read at; `None` reads all.

    Returns:
        The profile. Delays are `arrival_time - event_time`, negative for forecasts.

    Raises:
        PositionError: If the log has not got as far as `position`.
    """
    values = [name for name in log.columns if name not in (*log.entities, *(log.key or ()))]
    position = log.position() if position is None else position
    wanted = [*values, "received_time", "published_time"]
    rows = _sorted(log.scan(position=position, columns=wanted), log)
    delays = _delays(rows, log.kind)
    instants = rows.group_by("arrival_time").agg(
        rows=pl.len(), first_event=pl.col("event_time").min(), last_event=pl.col("event_time").max()
    )
    instants = instants.sort("arrival_time")
    keys = int(rows[FIRST].sum())
    usual, gaps = _gaps(instants)
    return Profile(
        provider=log.provider,
        kind=log.kind,
        position=position,
        within_percent=within_percent,
        rows=rows.height,
        keys=keys,
        retractions=int(rows["is_retraction"].sum()),
        revision_rate=(rows.height - keys) / keys if keys else 0.0,
        first_delay=delays[0],
        all_delay=delays[1],
        issue_delay=delays[2],
        arrival_kinds=dict(sorted(rows["arrival_kind"].value_counts().iter_rows())),
        arrivals=instants.height,
        usual_gap=usual,
        gaps=gaps,
        bulk_loads=_bulk_loads(instants),
        clock_faults=_clock_faults(rows, log.kind),
        columns=tuple(_column(rows, name, within_percent, keys) for name in values),
    )


def _sorted(scan: pl.LazyFrame, log: ObservationLog) -> pl.DataFrame:
    """All rows, revisions of a key side by side in their order, with marks for a key's first and last."""
    key = [*log.entities, *(log.key or ("event_time",))]
    rows = scan.with_columns(pl.col("is_retraction").fill_null(value=False)).collect()
    return side_by_side(rows, key, ["arrival_time", "log_sequence"])


def _delays(rows: pl.DataFrame, kind: str) -> tuple[Quantiles, Quantiles, Quantiles | None]:
    delay = rows.select((pl.col("arrival_time") - pl.col("event_time")).alias("delay")).to_series()
    issue = None
    if kind == "forecast":
        issue = quantiles(rows.select(pl.col("arrival_time") - pl.col("issue_time")).to_series())
    return quantiles(delay.filter(rows[FIRST])), quantiles(delay), issue


def _gaps(instants: pl.DataFrame) -> tuple[float | None, tuple[dict[str, Any], ...]]:
    between = instants.select(
        pl.col("arrival_time").shift(1).alias("from"),
        pl.col("arrival_time").alias("until"),
        pl.col("arrival_time").diff().dt.total_microseconds().alias("us"),
    ).drop_nulls()
    usual = between["us"].median()
    if not isinstance(usual, int | float):
        return None, ()
    long = (
        between.filter(pl.col("us") >= _GAP_FACTOR * max(usual, 1.0)).top_k(_SHOWN, by="us").sort("us", descending=True)
    )
    return usual / 1e6, tuple({"from": start, "until": end, "seconds": us / 1e6} for start, end, us in long.iter_rows())


def _bulk_loads(instants: pl.DataFrame) -> tuple[dict[str, Any], ...]:
    usual = instants["rows"].median()
    if not isinstance(usual, int | float):
        return ()
    least = max(_BULK_ROWS, _BULK_FACTOR * usual) if instants.height > 1 else _BULK_ROWS
    many = instants.filter(pl.col("rows") >= least, pl.col("last_event") > pl.col("first_event"))
    return tuple(many.top_k(_SHOWN, by="rows").sort("rows", descending=True).to_dicts())


def _clock_faults(rows: pl.DataFrame, kind: str) -> dict[str, int]:
    """Rows that contradict a clock."""
    arrival = pl.col("arrival_time")
    checks = {
        "published_time is after arrival_time": pl.col("published_time") > arrival,
        "received_time is after arrival_time": pl.col("received_time") > arrival,
    }
    if kind == "forecast":
        checks["issue_time is after arrival_time"] = pl.col("issue_time") > arrival
    else:
        checks["event_time is not before arrival_time (the arrival was raised)"] = pl.col("event_time") >= arrival
        checks["event_time is after published_time"] = pl.col("event_time") > pl.col("published_time")
    faults = {what: int(rows.select(check.sum()).item() or 0) for what, check in checks.items()}
    measured = rows.filter(pl.col("arrival_kind") == "measured").sort("log_sequence")["arrival_time"]
    back = int((measured.diff().dt.total_microseconds() < 0).sum() or 0)
    faults["arrival_time goes back in the log (given arrivals)"] = back
    return faults


def _column(rows: pl.DataFrame, name: str, within_percent: float, keys: int) -> ColumnProfile:
    value = rows[name]
    last = final_rows(rows)
    live = ~rows["is_retraction"]
    final_live = live.gather(last)
    far = (~near(value, value.gather(last), share=within_percent / 100) | ~live) & final_live
    previous = rows.select(changed=(pl.col(name).ne_missing(pl.col(name).shift(1)) & ~pl.col(FIRST)), key=pl.col(KEY))
    revised = previous.filter("changed")["key"].n_unique()
    found = settled_rows(rows, far).filter(final_live.filter(rows[FIRST]))
    arrived = rows["arrival_time"].gather(found["settled"])
    settled = quantiles(arrived - rows["event_time"].gather(found["settled"]))
    after_first = quantiles((arrived - rows["arrival_time"].gather(found["first"])).filter(found["late"]))
    first_far = int((far & rows[FIRST]).sum())
    settling_keys = int((final_live & rows[FIRST]).sum())
    nulls = int((value.is_null() & live).sum())
    return ColumnProfile(
        column=name,
        dtype=str(value.dtype),
        nulls=nulls,
        null_share=nulls / max(int(live.sum()), 1),
        revised_keys=revised,
        revision_rate=revised / keys if keys else 0.0,
        first_within=1 - first_far / settling_keys if settling_keys else 0.0,
        settled=settled,
        settled_after_first=after_first,
    )


def _quantile_line(name: str, found: Quantiles) -> str:
    return f"  {name:<22}" + "".join(f"{human(getattr(found, quantile)):>9}" for quantile in QUANTILE_NAMES)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    return value
