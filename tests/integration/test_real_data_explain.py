"""Explanations over the reference data: late forecast runs, and quakes whose ids move and are withdrawn."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

import alignment as al


def holds(view: al.FeatureView, frame: pl.DataFrame, entity: dict[str, str], t) -> dict[str, al.FeatureExplanation]:
    """The values are the join's, and each feature's used rows alone give it again."""
    asked = pl.DataFrame([entity | {"prediction_time": t}])
    joined = al.point_in_time_join(asked, view, status=True)
    found = al.explain(view, entity, t)
    for one, feature in zip(found.features, view.features, strict=True):
        assert one.status == joined[f"{one.feature}__status"][0]
        assert one.used.height + sum(one.unused_counts.values()) == frame.height
        few = al.FeatureView(
            view.name,
            list(entity),
            frame[one.used["row"].sort()],
            [feature],
            kind=view.kind,
            key=view.observations.key,
            on_tie="last",
        )
        alone = al.point_in_time_join(asked, few)
        assert_frame_equal(alone, joined.select(alone.columns), check_exact=True)
    return {one.feature: one for one in found.features}


def test_a_late_run_is_told_from_the_one_that_was_there(shared: Path):
    frame = pl.read_parquet(shared / "data/energy_neso_wind/observations.parquet")
    features = [
        *(
            al.forecast("wind_forecast_mw", "6h", "4h"),
            al.forecast("wind_forecast_mw", "6h", "4h", "12h", name="noticed"),
        ),
        *(al.window("wind_forecast_mw", ["mean", "q90"], "24h", "-24h"), al.sequence("wind_forecast_mw", 4)),
    ]
    view = al.FeatureView("wind", ["zone"], frame, features, kind="forecast", on_tie="last")
    t = frame["arrival_time"].unique().sort()[60] - timedelta(microseconds=1)
    found = holds(view, frame, {"zone": "GB"}, t)
    used = found["wind__wind_forecast_mw_forecast_6h"].used.row(0, named=True)
    noticed = found["wind__noticed"].used.row(0, named=True)
    assert used["issue_time"] > noticed["issue_time"]  # an older run had to do, since it had arrived 12 h before
    assert noticed["event_time"] - noticed["arrival_time"] >= timedelta(hours=12)
    late = found["wind__noticed"].unused.filter(pl.col("reason") == "short_notice")
    assert used["row"] in late["row"]


def test_a_quake_that_was_withdrawn_names_its_retraction(shared: Path):
    frame = pl.read_parquet(shared / "data/quakes_usgs/observations.parquet")
    frame = frame.with_columns(is_retraction=pl.col("op") == "delete").drop("op", "commit", "source_updated")
    gone = frame.filter("is_retraction").join(frame.filter(~pl.col("is_retraction")), on="quake_id", how="semi")
    net, quake, left = gone.sort("arrival_time", "quake_id").select("net", "quake_id", "arrival_time").row(-1)
    rows = frame.filter(pl.col("net") == net)
    features = [al.latest("mag"), al.window("mag", ["count", "max"], "24h"), al.sequence("mag", 5)]
    view = al.FeatureView("quakes", ["net"], rows, features, key=["quake_id"], on_tie="last")
    found = holds(view, rows, {"net": net}, left)["quakes__mag"]
    mine = rows.with_row_index("row").filter(pl.col("quake_id") == quake).sort("arrival_time")
    told = {row["row"]: row for row in found.unused.to_dicts()}
    withdrawn = [row for row in mine["row"] if told[row]["reason"] == "retraction"]
    earlier = [row for row in mine["row"] if row not in withdrawn]
    assert {(told[row]["reason"], told[row]["by"]) for row in earlier} == {("retracted", withdrawn[-1])}
