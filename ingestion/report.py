"""What an append did, as one object; text and JSON come from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendReport:
    """What an append did.

    Attributes:
        provider: Whose log.
        batch_id: The batch; give the same one again to be sure that it is in.
        rows: Observations that were appended.
        duplicates: Rows left out because the batch is in the log already.
        quarantined: Rows set aside, with their reason.
        reasons: How many rows each reason set aside.
        unchanged: Rows left out because they repeat their key's current revision, or a row that was set aside before.
        skipped_measured: Rows of history left out because their key has a measured revision.
        moved: Retractions added because an id came under another entity.
        clock_raised: Rows whose event was later than their arrival, within the tolerance; their arrival was raised.
        position: The log's position after the batch.
        arrival_time: The batch's stamp; the greatest arrival of rows that brought their own; `None` if there are no rows.
        restamped: The later instant, if the commit was confirmed only after the stamp.
        attempts: How many commits were tried.
        new: Rows whose key had no event; counted for polls only, like the next two.
        revised: Rows whose key had one.
        retracted: Rows that withdraw.
        confirmed_time: When the commit was confirmed: less `received_time` it is the store's own part of the delay.
        outcome: What the ledger calls the poll; `None` if it was none.
    """

    provider: str
    batch_id: str
    rows: int = 0
    duplicates: int = 0
    quarantined: int = 0
    reasons: dict[str, int]
    unchanged: int = 0
    skipped_measured: int = 0
    moved: int = 0
    clock_raised: int = 0
    position: int
    arrival_time: datetime | None = None
    restamped: datetime | None = None
    attempts: int = 1
    new: int | None = None
    revised: int | None = None
    retracted: int | None = None
    confirmed_time: datetime | None = None
    outcome: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values; instants as text."""
        plain = asdict(self)
        for name in ("arrival_time", "restamped", "confirmed_time"):
            plain[name] = plain[name].isoformat() if plain[name] is not None else None
        return plain

    def __str__(self) -> str:
        arrival = f", arrival {self.arrival_time:%Y-%m-%d %H:%M:%S.%f} UTC" if self.arrival_time else ""
        lines = [f"{self.provider}: {self.rows:,} rows appended, position {self.position}{arrival}"]
        if self.restamped:
            lines.append(
                f"  restamped to {self.restamped:%Y-%m-%d %H:%M:%S.%f} UTC: the commit took longer than the margin"
            )
        counts = {
            "already in the log (same batch)": self.duplicates,
            "unchanged, not stored": self.unchanged,
            "history of measured keys, skipped": self.skipped_measured,
            "retractions for moved ids": self.moved,
            "arrivals raised to the event": self.clock_raised,
        }
        lines += [f"  {count:,} {what}" for what, count in counts.items() if count]
        worst = sorted(self.reasons.items(), key=lambda item: -item[1])
        lines += [f"  {count:,} quarantined: {reason}" for reason, count in worst[:_SHOWN]]
        return "\n".join(lines)
