"""`python -m benchmarks.delay_models`: which delay rule is best on measured stamps that it has not seen.

Rules are fitted to the first half of the measured time of two real providers; the stamps of the second half are hidden, and
known only to the judge. The data are those of `ASKNOWN_SHARED` (default `../shared`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

import alignment as al
from alignment.delay_fitting import cut_of

SHARED = Path(os.environ.get("ASKNOWN_SHARED") or Path(__file__).resolve().parents[2] / "shared")
HALF = 0.5


@dataclass(frozen=True, slots=True)
class Feed:
    """A provider.

    Attributes:
        name: What it is called.
        rows: Its observations.
        column: The values that features are made of.
        lookback: How old rows may be that are counted, and the length of windows.
        by: What empirical delays are fitted by, one rule each.
    """

    name: str
    rows: al.Observations
    column: str
    lookback: str
    by: tuple[tuple[str, ...], ...]


def wind(shared: Path = SHARED) -> Feed:
    """Wind power forecasts for Great Britain; a run was captured 14 to 218 minutes after its issue."""
    frame = pl.read_parquet(shared / "data/energy_neso_wind/observations.parquet").drop("commit", "capacity_mw")
    rows = al.Observations(frame, ["zone"], "forecast", on_tie="last")
    return Feed("neso_wind", rows, "wind_forecast_mw", "6h", ((), ("hour",), ("weekday",)))


def quakes(shared: Path = SHARED) -> Feed:
    """Earthquakes by network: half within the hour, a tenth after days; an id is a quake, its origin time moves."""
    frame = pl.read_parquet(shared / "data/quakes_usgs/observations.parquet")
    frame = frame.select(
        *("net", "quake_id", "mag"),
        pl.col("event_time", "arrival_time").dt.cast_time_unit("us"),
        (pl.col("op") == "delete").alias("is_retraction"),
    )
    rows = al.Observations(frame, ["net"], key=["quake_id"], on_tie="last")
    return Feed("usgs_quakes", rows, "mag", "24h", ((), ("hour",), ("net",)))


FEEDS: tuple[Callable[[], Feed], ...] = (wind, quakes)


def compare(feed: Feed, *, times: int = 2000, draws: int = 5) -> al.DelayReport:
    """All rules on the second half of a provider's stamps."""
    since = cut_of(feed.rows, HALF)
    rules: dict[str, al.DelayRule] = {
        "FixedDelay (median)": al.fit_fixed_delay(feed.rows, until=since),
        "PublishSchedule (nearest)": al.fit_publish_schedule(feed.rows, until=since),
    }
    for by in feed.by:
        name = " ".join(["EmpiricalDelay", *(["by"] if by else []), *by])
        rules[name] = al.fit_delay(feed.rows, by=by, until=since, provider=feed.name)
    return al.assess_delay(
        rules,
        feed.rows,
        since=since,
        lookback=feed.lookback,
        column=feed.column,
        times=times,
        draws=draws,
        provider=feed.name,
    )


def main() -> int:
    """Print the tables; 3 if the data are not there."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.delay_models", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--times", type=int, default=2000, help="prediction times")
    parser.add_argument("--draws", type=int, default=5, help="draws of each empirical rule")
    chosen = parser.parse_args()
    if not (SHARED / "data").is_dir():
        print(f"{SHARED}: the data are not there; set ASKNOWN_SHARED to their folder", file=sys.stderr)
        return 3
    reports = [compare(feed(), times=chosen.times, draws=chosen.draws) for feed in FEEDS]
    print("\n\n".join(str(report) for report in reports))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps([report.to_dict() for report in reports], indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
