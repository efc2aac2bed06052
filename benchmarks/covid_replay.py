"""`python -m benchmarks.covid_replay`: revised epidemic data, and a 7-day mean as it was known on every version date.

Prints the delay and revision profile of the Delphi archive of COVID signals, when its values settle, and how long one replay
takes that gives every state's 7-day mean at every version date, beside a plain recomputation version by version. A second
archive carries such means of its own, computed inside each version: a witness that none of us wrote. The data are those of
`ASKNOWN_SHARED` (default `../shared`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

import alignment as al
import ingestion

SHARED = Path(os.environ.get("ASKNOWN_SHARED") or Path(__file__).resolve().parents[2] / "shared")
DAILY, MONTHLY = "observations.parquet", "case_death_rate_archive.parquet"
SIGNALS = ("percent_cli", "case_rate_7d_av")
RATES = ("case_rate", "death_rate")
DAY = timedelta(days=1)
OLDEST = 31
"""Days: versions of the second archive are a month apart, so that a version's new events are at most so old."""
MEAN, COUNT = "percent_cli_mean_7d", "percent_cli_count_7d"


def read(name: str, shared: Path = SHARED) -> pl.DataFrame:
    """One of the archives; a date is its midnight in UTC."""
    frame = pl.read_parquet(shared / "data/epi_delphi_covid" / name)
    return frame.with_columns(pl.col("event_time", "arrival_time").dt.cast_time_unit("us"))


def profiled(frame: pl.DataFrame) -> ingestion.Profile:
    """How late and how often revised the daily archive is."""
    with tempfile.TemporaryDirectory() as folder:
        log = ingestion.create_log(folder, "delphi", entities=["geo_value"])
        log.append(frame.sort("arrival_time"))
        return ingestion.profile(log)


def maturities(frame: pl.DataFrame) -> dict[str, al.LabelMaturity]:
    """When each signal of the daily archive settles, within 1 % and within 5 %."""
    rows = al.Observations(frame, ["geo_value"])
    return {
        f"{signal} within {within}": al.label_maturity(rows, signal, within=within, horizon="7d")
        for signal in SIGNALS
        for within in ("1%", "5%")
    }


def version_means(frame: pl.DataFrame) -> pl.DataFrame:
    """The 7-day mean of `percent_cli` at every version date and place: one replay, whose ticks are the version dates."""
    view = al.FeatureView("cli", ["geo_value"], frame, [al.window("percent_cli", ["mean", "count"], "7d")])
    places = {"geo_value": sorted(frame["geo_value"].unique())}
    dates = frame["arrival_time"]
    ticks = al.replay(view, places, dates.min(), dates.max() + DAY, "1d", status=False, ages=False)  # type: ignore[operator, arg-type]
    versions = dates.unique()
    return ticks.filter(pl.col("prediction_time").is_in(versions.implode())).rename(
        {f"cli__{name}": name for name in (MEAN, COUNT)}
    )


def plain_means(frame: pl.DataFrame, every: int = 1) -> pl.DataFrame:
    """The same without asknown: every `every`-th version is put together anew, and averaged."""
    found = []
    for version in frame["arrival_time"].unique().sort().gather_every(every):
        known = frame.filter(pl.col("arrival_time") <= version).sort("arrival_time")
        snapshot = known.group_by("geo_value", "event_time").last()
        week = snapshot.filter(pl.col("event_time") > version - 7 * DAY, pl.col("event_time") <= version)
        means = week.group_by("geo_value").agg(
            pl.col("percent_cli").mean().alias(MEAN), pl.col("percent_cli").count().cast(pl.Int64).alias(COUNT)
        )
        found.append(means.with_columns(prediction_time=pl.lit(version)))
    return pl.concat(found)


def difference(replayed: pl.DataFrame, plain: pl.DataFrame) -> dict[str, Any]:
    """How far two ways to the same means are apart."""
    both = plain.join(replayed, on=["geo_value", "prediction_time"], suffix=" replayed", how="left")
    far = (both[MEAN] - both[f"{MEAN} replayed"]).abs()
    return {
        "compared": both.height,
        "empty": both[MEAN].null_count(),
        "differing_counts": int((both[COUNT].ne_missing(both[f"{COUNT} replayed"])).sum()),
        "differing_nulls": int((both[MEAN].is_null() != both[f"{MEAN} replayed"].is_null()).sum()),
        "greatest_difference": far.max(),
    }


def against_the_archive(archive: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Means of the second archive's rates against those that it carries itself, for events up to a month old.

    One replay with a window per age: the mean over the 7 days that end at the event of that age.
    """
    ages = range(1, OLDEST + 1)
    windows = [al.window(rate, ["mean", "count"], "7d", f"{age}d") for rate in RATES for age in ages]
    view = al.FeatureView("rates", ["geo_value"], archive, windows)
    places = {"geo_value": sorted(archive["geo_value"].unique())}
    dates = archive["arrival_time"]
    ticks = al.replay(view, places, dates.min(), dates.max() + DAY, "1d", status=False, ages=False)  # type: ignore[operator, arg-type]
    found = {}
    for rate in RATES:
        long = pl.concat(
            ticks.select(
                "geo_value",
                pl.col("prediction_time").alias("arrival_time"),
                (pl.col("prediction_time") - age * DAY).alias("event_time"),
                pl.col(f"rates__{rate}_mean_7d_offset_{age}d").alias("mean"),
                pl.col(f"rates__{rate}_count_7d_offset_{age}d").alias("count"),
            )
            for age in ages
        )
        carried = f"{rate}_7d_av"
        both = long.join(archive, on=["geo_value", "event_time", "arrival_time"]).filter(pl.col(carried).is_not_null())
        found[rate] = {
            "compared": both.height,
            "incomplete_weeks": int((both["count"] != 7).sum()),
            "greatest_difference": (both["mean"] - both[carried]).abs().max(),
        }
    return found


def timed(call: Callable[[], Any], times: int = 1) -> tuple[Any, float]:
    """What a call returns, and the least time it took in seconds."""
    best, answer = float("inf"), None
    for _ in range(times):
        begin = time.perf_counter()
        answer = call()
        best = min(best, time.perf_counter() - begin)
    return answer, best


def main() -> int:
    """Print the figures; 3 if the data are not there."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.covid_replay", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--picture", type=Path, help="also draw how percent_cli matures, to this file")
    chosen = parser.parse_args()
    if not (SHARED / "data").is_dir():
        print(f"{SHARED}: the data are not there; set ASKNOWN_SHARED to their folder", file=sys.stderr)
        return 3
    daily, monthly = read(DAILY), read(MONTHLY)
    profile, settling = profiled(daily), maturities(daily)
    replayed, took = timed(lambda: version_means(daily), times=4)  # the first one compiles
    plain, plainly = timed(lambda: plain_means(daily))
    answer = difference(replayed, plain)
    archive = against_the_archive(monthly)
    print(profile)
    for name, report in settling.items():
        print(f"\n--- {name}\n\n{report}")
    versions = daily["arrival_time"].n_unique()
    print(
        f"\n7-day mean at {versions} version dates x {daily['geo_value'].n_unique()} places, {daily.height:,} rows: one replay "
        f"{took:.3f} s, version by version {plainly:.1f} s ({plainly / took:,.0f} times as long)"
    )
    print(f"against the plain recomputation: {answer}")
    print(f"against the archive's own means: {archive}")
    if chosen.picture is not None:
        settling["percent_cli within 1%"].plot().savefig(chosen.picture, dpi=110)
    if chosen.json is not None:
        figures = {
            "profile": profile.to_dict(),
            "maturity": {name: report.to_dict() for name, report in settling.items()},
            "replay": {"rows": replayed.height, "versions": versions, "seconds": took, "plain_seconds": plainly},
            "against_plain": answer,
            "against_archive": archive,
        }
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
