"""What an audit found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One served value that training would not have given.

    Attributes:
        entity: Entity columns and values.
        t: The instant that was answered for.
        position: Position in the provider's log.
        provider: Whose log.
        feature: The column.
        served: The value that was served, and its status.
        trained: What it should have been.
        served_time: When it was answered.
        served_by: By which replica.
        rows: Of the second audit: the `log_sequence` of the rows behind it; empty if there is none.
    """

    entity: dict[str, Any]
    t: datetime
    position: int
    provider: str
    feature: str
    served: tuple[Any, str]
    trained: tuple[Any, str]
    served_time: datetime
    served_by: str
    rows: Sequence[int] = ()

    def to_dict(self) -> dict[str, Any]:
        """The difference as plain values."""
        return {
            "entity": {name: _plain(value) for name, value in self.entity.items()},
            "t": self.t.isoformat(),
            "position": self.position,
            "provider": self.provider,
            "feature": self.feature,
            "served": _plain(self.served[0]),
            "served_status": self.served[1],
            "trained": _plain(self.trained[0]),
            "trained_status": self.trained[1],
            "served_time": self.served_time.isoformat(),
            "served_by": self.served_by,
            "rows": list(self.rows),
        }

    def __str__(self) -> str:
        who = ", ".join(f"{name} {value}" for name, value in self.entity.items())
        return (
            f"{self.feature}  {who}  t {self.t.isoformat()}  position {self.position}:"
            f" served {_shown(*self.served)}, trained {_shown(*self.trained)}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What became of holding served vectors against what training says.

    Attributes:
        root: Where the logs are.
        vectors: How many served vectors were looked at.
        values: How many values and statuses.
        positions: How many distinct positions they were served at, over all providers.
        evaluations: How many joins were needed instead.
        differences: First audit, at (t, position): values that differ. There must be none.
        by_feature: The same by feature.
        first: The first of them.
        beyond: Values served at a position that the log has not, or no longer; they count among the differences.
        head_differences: Second audit, at (t, head): values that differ.
        unexplained: Of these, those behind which there is no row that came after the answer. There must be none.
        first_late: The first explained ones, and which rows are behind them.
        first_unexplained: The first unexplained ones.
        late: The rows behind the others: provider, `log_sequence`, `key`, event, arrival, `why`, `vectors` (how many it is behind).
        removals: What has been retired or erased since, which no audit can see any more.
    """

    root: str
    vectors: int
    values: int
    positions: int
    evaluations: int
    differences: int
    by_feature: dict[str, int]
    first: list[Difference]
    beyond: int
    head_differences: int
    unexplained: int
    first_late: list[Difference]
    first_unexplained: list[Difference]
    late: pl.DataFrame
    removals: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether serving answered what training says, and every later change has its rows."""
        return not self.differences and not self.unexplained

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values; late rows are all in it."""
        return {
            "root": self.root,
            "ok": self.ok,
            "vectors": self.vectors,
            "values": self.values,
            "positions": self.positions,
            "evaluations": self.evaluations,
            "as_served": {
                "differences": self.differences,
                "beyond": self.beyond,
                "by_feature": self.by_feature,
                "first": [found.to_dict() for found in self.first],
            },
            "as_known_now": {
                "differences": self.head_differences,
                "unexplained": self.unexplained,
                "first": [found.to_dict() for found in self.first_late],
                "first_unexplained": [found.to_dict() for found in self.first_unexplained],
                "late_rows": [{name: _plain(value) for name, value in row.items()} for row in self.late.to_dicts()],
            },
            "removals": self.removals,
        }

    def __str__(self) -> str:
        lines = [
            f"{self.vectors:,} served vectors, {self.values:,} values at {self.positions:,} positions",
            f"at (t, position): {self.differences:,} differences",
        ]
        lines += [f"  {name}: {count:,}" for name, count in sorted(self.by_feature.items())]
        lines += [f"  {found}" for found in self.first]
        if self.beyond:
            lines.append(f"  {self.beyond:,} of them at positions that the log has not")
        lines.append(
            f"at (t, head): {self.head_differences:,} differences, {self.unexplained:,} of them without a row behind them"
        )
        lines += [f"  {found}" for found in self.first_unexplained]
        lines += [f"  {_late(row)}" for row in self.late.head(SHOWN).to_dicts()]
        if self.late.height > SHOWN:
            lines.append(f"  and {self.late.height - SHOWN:,} more rows (--json names them all)")
        lines += [f"  {text}" for text in self.removals]
        return "\n".join(lines)


def _late(row: dict[str, Any]) -> str:
    event = "-" if row["event_time"] is None else row["event_time"].isoformat()
    return (
        f"{row['provider']} {row['log_sequence']}  {row['key']}  event {event}"
        f"  arrival {row['arrival_time'].isoformat()}  {row['why']}  behind {row['vectors']:,} vectors"
    )


def _shown(value: Any, status: str) -> str:
    return f"{value!r} ({status})" if not isinstance(value, pl.Series) else f"{value.to_list()!r} ({status})"


def _plain(value: Any) -> Any:
    """A value for JSON, which knows neither NaN nor instants."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
