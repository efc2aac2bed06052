"""Cases of other projects' test suites (epiprocess, OpenSTEF, timely-beliefs), restated through the public API.

Every case is either computed here or named in `NOT_COMPUTED` with the reason; a case that is in neither fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import alignment as al
from ingestion import create_log

INSTANT = pl.Datetime("us", "UTC")
AMSTERDAM = "Europe/Amsterdam"
Case = dict[str, Any]
COMPUTED: dict[str, Callable[[Case], None]] = {}

NOT_COMPUTED = {
    "epiprocess_unit/missing_versions_na": "versions nobody observed do not turn values null here: such rows are marked provisional (R1)",
    "epiprocess_unit/merge_sync_na": "as above: beyond observed_through rows are provisional, values stay what was last known",
    "epiprocess_unit/revision_stats_drop_null": "statistics per event; `asknown log profile` reports per provider and column",
    "epiprocess_unit/revision_stats_keep_null": "statistics per event; `asknown log profile` reports per provider and column",
    "epiprocess_unit/revision_stats_overall": "a summary of statistics per event; `asknown log profile` has its own",
    "epiprocess_unit/lag_near_latest_rule": "an index into one series of revisions; `asknown log profile` reports times, per column",
    "timely_beliefs/availability_rule_yearly": "PublishSchedule knows days and weekdays, no day of the year",
    "timely_beliefs/availability_rule_yearly_dst": "PublishSchedule knows days and weekdays, no day of the year",
}

GRIDS_NOT_COMPUTED = {
    ("2022-01-01 22:00+01", "PT30M", "interpolate"): "no feature interpolates between events",
    (
        "2022-03-27 00:00+01",
        "PT2H",
        None,
    ): "there 02:00, which does not exist, is left out; here it is the transition instant (R15)",
    (
        "2022-03-27 01:00+01",
        "PT2H",
        None,
    ): "there 02:00, which does not exist, is left out; here it is the transition instant (R15)",
    (
        "2022-03-27 01:00+01",
        "PT2H",
        "first",
    ): "there 02:00, which does not exist, is left out; here it is the transition instant (R15)",
    (
        "2022-10-30 00:00+02",
        "PT2H",
        None,
    ): "there 02:00 counts twice; here a doubled local time is its first pass (R15)",
    (
        "2022-10-30 01:00+02",
        "PT2H",
        "first",
    ): "there 02:00 counts twice; here a doubled local time is its first pass (R15)",
}


def cases_of(folder: Path, project: str) -> list[Case]:
    found = json.loads((folder / "peer_cases" / project / "cases.json").read_text())
    for case in found["cases"]:
        case.setdefault("default_input", found.get("default_input"))
    return found["cases"]


PROJECTS = {"epiprocess_unit": 29, "openstef": 9, "timely_beliefs": 16}


@pytest.mark.parametrize("project", PROJECTS)
def test_every_case_is_computed_or_has_a_reason_why_not(shared, project):
    names = [f"{project}/{case['id']}" for case in cases_of(shared, project)]
    assert len(names) == PROJECTS[project]
    assert sorted(names) == sorted(name for name in [*COMPUTED, *NOT_COMPUTED] if name.startswith(f"{project}/"))


def computes(project: str, *names: str) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    """Register a function as what computes some cases."""

    def register(function: Callable[[Case], None]) -> Callable[[Case], None]:
        COMPUTED.update({f"{project}/{name}": function for name in names})
        return function

    return register


# --- helpers --------------------------------------------------------------------------------------------------------


def instant(text: str) -> datetime:
    """A date or an instant of a case, UTC unless it says otherwise."""
    moment = datetime.fromisoformat(text)
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).astimezone(UTC)


def observations(
    rows: list[Case], *, versions: bool = False, value: str = "value", kind: str = "measurement"
) -> al.Observations:
    """Rows (event, version or arrival) as observations; with `versions` every row has an id, so that all are events."""
    frame = pl.DataFrame(
        {
            "entity": [row.get("entity", row.get("series", "one")) for row in rows],
            "event_time": pl.Series([instant(row["event"]) for row in rows], dtype=INSTANT),
            "arrival_time": pl.Series(
                [instant(row.get("version") or row.get("arrival") or row["available_at"]) for row in rows],
                dtype=INSTANT,
            ),
            value: cells([row[value] for row in rows]),
            "row": range(len(rows)),
        }
    )
    return al.Observations(
        frame if versions else frame.drop("row"), entities=["entity"], kind=kind, key=["row"] if versions else None
    )


def cells(values: list[Any]) -> pl.Series:
    """Values as a column; integers among floats are floats."""
    return pl.Series(values, dtype=pl.Float64 if any(isinstance(value, float) for value in values) else None)


def spine(*instants: datetime, entity: str = "one") -> pl.DataFrame:
    return pl.DataFrame(
        {"entity": [entity] * len(instants), "prediction_time": pl.Series(list(instants), dtype=INSTANT)}
    )


def joined(
    source: al.Observations,
    *features: Any,
    at: list[datetime],
    entity: str = "one",
    as_of: datetime | None = None,
    **arguments: Any,
) -> pl.DataFrame:
    view = al.FeatureView("v", observations=source, features=list(features), **arguments)
    return al.point_in_time_join(spine(*at, entity=entity), [view], as_of=as_of, status=True)


# --- epiprocess -----------------------------------------------------------------------------------------------------


@computes("epiprocess_unit", "as_of_basic", "missing_versions_locf")
def snapshot_as_of(case: Case) -> None:
    got = al.snapshot(observations(case["input"]), instant(case["query"]["as_of"])).sort("event_time")
    expected = [(row["entity"], instant(row["event"]), row["value"]) for row in case["expected"]]
    assert got.select("entity", "event_time", "value").rows() == expected


@computes("epiprocess_unit", "truncate_versions_after", "truncate_at_latest_is_identity")
def history_until(case: Case) -> None:
    # With an id per row every version is an event of its own, so a snapshot holds the whole history.
    got = al.snapshot(observations(case["input"], versions=True), instant(case["query"]["max_version"])).sort("row")
    expected = [(instant(row["event"]), instant(row["version"]), row["value"]) for row in case["expected"]]
    assert got.select("event_time", "arrival_time", "value").rows() == expected


@computes("epiprocess_unit", "as_of_current")
def now_is_the_last_version(case: Case) -> None:
    view = al.FeatureView("v", observations=observations(case["input"]), features=[al.latest("value")])
    dataset = al.build_dataset(spine(instant("2020-06-03"), entity="ca"), [view], label=al.label("value", horizon="1d"))
    assert instant(dataset.manifest["as_of"]) == instant(case["expected_as_of"])  # R12: None is the greatest arrival


@computes("epiprocess_unit", "as_of_future_refused", "versions_end_bound")
def beyond_what_was_observed(case: Case) -> None:
    """Refused there; here the row is answered and marked provisional (R1)."""
    from fakes import FrameLog

    frame = observations(case["input"]).frame.with_columns(log_sequence=pl.int_range(pl.len(), dtype=pl.Int64))
    last = frame["arrival_time"].max()
    log = FrameLog(frame, "archive", ["entity"], through=last)
    query = case["query"]
    fine = [instant(text) for text in query.get("ok", [])] or [last]
    refused = [instant(text) for text in query.get("error", [query.get("as_of")])]
    view = al.FeatureView("v", observations=log, features=[al.latest("value")])
    got = al.point_in_time_join(spine(*fine, *refused, entity=frame["entity"][0]), [view], status=True)
    assert got["provisional"].to_list() == [False] * len(fine) + [True] * len(refused)
    assert None not in got["v__value"].to_list()


@computes("epiprocess_unit", "rolling_sum_as_of_each_version_before2", "rolling_sum_all_versions_before2")
def rolling_sum(case: Case) -> None:
    # Events from v - 2 days on, inclusive: of daily events those in (v - 3 days, v].
    source = observations(case["input"], versions=case["kind"] == "slide_all_versions")
    versions = [instant(text) for text in case["query"]["versions"]]
    got = joined(source, al.window("value", "sum", "3d"), at=versions, entity="ak")
    assert got["v__value_sum_3d"].to_list() == [row["value"] for row in case["expected"]]


@computes("epiprocess_unit", "history_row_counts")
def history_counts(case: Case) -> None:
    source = observations(case["input"], versions=True)
    for row in case["expected"]:
        known = al.snapshot(source, instant(row["version"]))
        assert (known.height, known["arrival_time"].n_unique()) == (row["n_rows"], row["n_versions"])


MERGES = (
    "merge1",
    "merge2",
    "merge3",
    "merge_full_with_null_revision",
    "merge_doc_example1",
    "merge_doc_example2",
    "merge_doc_example3",
)


@computes("epiprocess_unit", *MERGES, "merge_sync_locf", "merge_sync_truncate")
def merged(case: Case) -> None:
    """At every version at which either signal of an event changed, both signals as known then."""
    until = instant("9999-01-01")
    if case["query"]["sync"] == "truncate":
        until = min(instant(text) for text in case["query"]["observed_through"].values())
    # A version may be older than the day it is about: those are forecasts.
    signals = {name: observations(rows, value=name, kind="forecast") for name, rows in case["input"].items()}
    changes = sorted({(row["event"], row["version"]) for rows in case["input"].values() for row in rows})
    got = []
    for event, version in changes:
        if instant(version) > until:
            continue
        # One question per change: t is the version, the event lies exactly `t - event` before it.
        row = {"entity": case["input"]["signal1"][0]["entity"], "event": event, "version": version}
        for name, source in signals.items():
            known = al.snapshot(source, instant(version)).filter(pl.col("event_time") == instant(event))
            row[name] = known[name][0] if known.height else None
        got.append(row)
    assert got == case["expected"]


@computes("epiprocess_unit", "merge_sync_forbid")
def merge_beyond_what_was_observed(case: Case) -> None:
    """An error there; here the join marks rows later than the first provider's observed_through as provisional."""
    from fakes import FrameLog

    views = []
    for name, rows in case["input"].items():
        frame = observations(rows, value=name).frame.with_columns(log_sequence=pl.int_range(pl.len(), dtype=pl.Int64))
        log = FrameLog(frame, name, ["entity"], through=instant(case["query"]["observed_through"][name]))
        views.append(al.FeatureView(name, observations=log, features=[al.latest(name)]))
    got = al.point_in_time_join(spine(instant("2020-01-04"), instant("2020-01-06"), entity="ak"), views, status=True)
    assert got["provisional"].to_list() == [False, True]


def stored(rows: list[Case], folder: Path, kind: str = "measurement") -> pl.DataFrame:
    """What a log that drops unchanged rows keeps of versions appended one after the other."""
    log = create_log(
        str(folder),
        "archive",
        entities=["entity"],
        kind=kind,
        schema={"entity": pl.String, "value": pl.Float64},
        drop_unchanged=True,
    )
    for row in rows:
        frame = observations([row]).frame.with_columns(pl.col("value").cast(pl.Float64))
        log.append(frame)
    return log.scan().sort("log_sequence").collect()


@computes("epiprocess_unit", "compactify_constant_value", "compactify_null_chain", "compactify_tolerance_keeps_keys")
def compacted(case: Case, folder: Path) -> None:
    # The tolerance case holds one version per event: whatever the tolerance, none may go.
    def dated(row: Case) -> Case:
        return {
            name: f"2026-01-{cell:02d}" if name in ("event", "version") and isinstance(cell, int) else cell
            for name, cell in row.items()
        }

    kept = stored([dated(row) for row in case["input"]], folder)
    expected = [(instant(row["event"]), instant(row["version"]), row["value"]) for row in map(dated, case["expected"])]
    assert kept.select("event_time", "arrival_time", "value").rows() == expected


# --- OpenSTEF -------------------------------------------------------------------------------------------------------


def parts(case: Case) -> list[Case]:
    return case["default_input"]["part_a"] + case["default_input"]["part_b"]


def versions_of(frame: pl.DataFrame) -> dict[str, list[float]]:
    """Values per series, by event, within an event newest version first."""
    ordered = frame.sort("event_time", "arrival_time", descending=[False, True])
    return {
        name: ordered.filter(pl.col("entity") == name)["value"].to_list() for name in ordered["entity"].unique().sort()
    }


@computes("openstef", "latest_version")
def latest_versions(case: Case) -> None:
    assert versions_of(al.snapshot(observations(parts(case)), instant("2024-01-01"))) == case["expected"]


@computes("openstef", "available_before_12_30")
def available_before(case: Case) -> None:
    known = al.snapshot(observations(parts(case), versions=True), instant(case["query"]["available_before"]))
    assert versions_of(known) == case["expected_versions"]


@computes("openstef", "available_at_D0_13_00")
def available_at_one_o_clock(case: Case) -> None:
    known = al.snapshot(
        observations(parts(case), versions=True), instant("2023-01-01T13:00:00Z")
    )  # all events are of that day
    assert versions_of(known) == case["expected_versions"]


@computes("openstef", "range_10_to_13")
def half_open_range(case: Case) -> None:
    # [10:00, 13:00) there is (10:00 - 1 us, 13:00 - 1 us] here; all versions known the day after.
    t, end = instant("2023-01-02"), instant(case["query"]["end"])
    offset = t - end + timedelta(microseconds=1)
    source = observations(parts(case), versions=True)
    for series, expected in case["expected_versions"].items():
        got = joined(source, al.window("value", ["count", "sum"], "3h", offset, name=None), at=[t], entity=series)
        count, total = got.select(pl.selectors.numeric()).row(0)
        assert (count, total) == (len(expected), sum(expected))


@computes("openstef", "lead_time_at_least_minus_10min")
def within_ten_minutes(case: Case) -> None:
    # Arrived at most ten minutes after its event: what was current at event + 10 min, the label release "10m".
    source = observations(parts(case))
    events = sorted({instant(row["event"]) for row in parts(case)})
    for series, expected in case["expected_versions"].items():
        view = al.FeatureView("v", observations=source, features=[al.latest("value")])
        asked = spine(*(event - timedelta(hours=1) for event in events), entity=series)
        dataset = al.build_dataset(asked, [view], label=al.label("value", horizon="1h", release="10m"))
        assert dataset.frame["label"].drop_nulls().to_list() == expected


@computes("openstef", "forecast_and_actual_at_noon")
def forecast_and_actual(case: Case) -> None:
    noon = instant(case["query"]["available_before"])
    events = sorted({row["event"] for row in case["input"]})
    for series, expected in case["expected"].items():
        rows = [row for row in case["input"] if row["series"] == series]
        known = al.snapshot(observations(rows, kind="forecast" if series == "forecast" else "measurement"), noon)
        values = dict(known.select("event_time", "value").rows())
        assert [values.get(instant(event)) for event in events] == expected


@computes("openstef", "horizons")
def forecasts_at_leads(case: Case) -> None:
    source = observations(case["input"], kind="forecast")
    events = sorted({instant(row["event"]) for row in case["input"]})
    for hours in case["query"]["lead_hours"]:
        lead = timedelta(hours=hours)
        got = joined(
            source, al.forecast("value", lead, name="at_lead"), at=[event - lead for event in events], entity="feature"
        )
        assert got["v__at_lead"].to_list() == case["expected"][str(hours)]


@computes("openstef", "lags")
def lags(case: Case) -> None:
    events = [instant(row["event"]) for row in case["input"]]
    got = joined(observations(case["input"]), al.lag("value", ["1h", "2h"], "0s"), at=events, entity="load")
    assert {f"lag_{hours}h": got[f"v__value_lag_{hours}h"].to_list() for hours in (1, 2)} == case["expected"]


@computes("openstef", "lag_picks_version_by_deadline")
def lag_by_deadline(case: Case) -> None:
    target, lead = instant("2025-02-01"), case["query"]["lead_days"]
    days = [target - timedelta(days=back) for back in range(30)]
    rows = [
        {"event": day.isoformat(), "arrival": (day + timedelta(days=wait)).isoformat(), "value": word}
        for day in days
        for wait, word in ((3, "bad"), (5, "okay"), (10, "best"))
    ]
    for lag, expected in case["expected"].items():
        # Asked at T - H, the event T - L lies L - H back.
        feature = al.lag("value", f"{int(lag) - lead}d", "0s", name="lagged")
        got = joined(observations(rows), feature, at=[target - timedelta(days=lead)])
        assert got["v__lagged"].to_list() == [expected]


# --- timely-beliefs -------------------------------------------------------------------------------------------------


@computes("timely_beliefs", "fixed_viewpoint")
def fixed_viewpoint(case: Case) -> None:
    known = al.snapshot(observations(case["input"], kind="forecast"), instant(case["query"]["as_of"]))
    assert known.sort("event_time")["value"].to_list() == case["expected"]


@computes("timely_beliefs", "fixed_viewpoint_max_age")
def fixed_viewpoint_max_age(case: Case) -> None:
    t = instant(case["query"]["as_of"])
    events = sorted({instant(row["event"]) for row in case["input"]})
    age = t - instant(case["query"]["not_before"])
    features = [
        al.forecast("value", event - t, max_issue_age=age, name=f"e{place}") for place, event in enumerate(events)
    ]
    row = joined(observations(case["input"], kind="forecast"), *features, at=[t]).select(pl.selectors.numeric()).row(0)
    assert [value for value in row if value is not None] == case["expected"]


@computes("timely_beliefs", "rolling_lead_49h", "rolling_lead_48h")
def rolling_viewpoint(case: Case) -> None:
    # Known at least so many hours before event + 15 min: asked that long before, of the event that far ahead.
    lead = timedelta(hours=case["query"]["horizon_hours"]) - timedelta(minutes=15)
    events = sorted({instant(row["event"]) for row in case["input"]})
    got = joined(
        observations(case["input"], kind="forecast"),
        al.forecast("value", lead, name="known"),
        at=[event - lead for event in events],
        as_of=instant(case["query"]["arrivals_until"]),
    )
    assert got["v__known"].drop_nulls().to_list() == case["expected"]


@computes("timely_beliefs", "history_of_one_event")
def history_of_one_event(case: Case) -> None:
    source = observations(case["input"], versions=True, kind="forecast")
    just_before = timedelta(microseconds=1)
    known = instant(case["query"]["knowledge_time"])
    start, end = (instant(text) for text in case["query"]["window"])

    def count(until: datetime) -> int:
        return al.snapshot(source, until).height

    assert count(known) == case["expected"]["all"]
    assert count(end) - count(start - just_before) == case["expected"]["in_window"]
    recent = known - timedelta(hours=case["query"]["max_hours_before"])
    assert count(known) - count(recent - just_before) == case["expected"]["within_2_5h"]
    newest_first = al.snapshot(source, known).sort("arrival_time", descending=True)["value"].to_list()
    assert newest_first == case["expected"]["values_desc_by_arrival"]


@computes("timely_beliefs", *(f"unchanged_versions_{number}" for number in range(1, 5)))
def unchanged_versions(case: Case, folder: Path) -> None:
    rows = [
        {"event": "2026-01-01", "arrival": f"2026-01-{2 + place:02d}", "value": value}
        for place, value in enumerate(case["input"])
    ]
    changed = [value for value, repeated in zip(case["input"], case["expected"], strict=True) if repeated is None]
    assert stored(rows, folder)["value"].to_list() == changed


@computes("timely_beliefs", "availability_rule_day_ahead_noon_amsterdam")
def day_ahead_noon(case: Case) -> None:
    query = case["query"]
    rule = al.PublishSchedule(at=f"{query['hour']}:00", zone=query["tz"], days=-query["days"])
    events = pl.DataFrame(
        {"event_time": pl.Series([instant(row["event_start"]) for row in case["expected"]], dtype=INSTANT)}
    )
    ahead = events["event_time"] - rule.arrival_times(events)
    assert ahead.dt.total_hours().to_list() == [row["hours_before_event"] for row in case["expected"]]


@computes("timely_beliefs", "availability_rule_ex_post")
def ex_post(case: Case) -> None:
    # A period of 15 minutes published 5 minutes before its end: 10 minutes after its start.
    minutes = case["query"]["event_resolution_min"] + case["query"]["ex_post_horizon_min"]
    start = pl.DataFrame({"event_time": pl.Series([instant("2026-01-01")], dtype=INSTANT)})
    known = al.FixedDelay(timedelta(minutes=minutes)).arrival_times(start)
    assert (known - start["event_time"]).dt.total_minutes().to_list() == [case["expected"]["known_minutes_after_start"]]


@computes("timely_beliefs", "availability_rule_fixed_date")
def fixed_date(case: Case) -> None:
    known = instant(case["query"]["known_at"])
    rows = [
        {"event": row["event_start"], "arrival": case["query"]["known_at"], "value": row["days"]}
        for row in case["expected"]
    ]
    source = observations(rows, kind="forecast")
    features = [
        al.lag("value", "1d", "0s", name="d_minus"),
        al.forecast("value", "0s", name="d0"),
        al.forecast("value", "1d", name="d_plus"),
    ]
    got = joined(source, *features, at=[known - timedelta(microseconds=1), known])
    values = got.select("v__d_minus", "v__d0", "v__d_plus").rows()
    assert values[0] == (None, None, None)
    assert values[1] == tuple(row["days"] for row in case["expected"])


@computes("timely_beliefs", "single_publication_date")
def single_publication(case: Case) -> None:
    leads = [f"{days}d" for days in case["expected_days"]]
    known = instant(case["input"][0]["arrival"])
    got = joined(
        observations(case["input"], kind="forecast"),
        al.forecast("value", leads),
        at=[known - timedelta(microseconds=1), known],
    )
    rows = got.select([f"v__value_forecast_{lead}" for lead in leads]).rows()
    assert rows == [(None, None), tuple(row["value"] for row in case["input"])]


STEPS = {
    "PT30M": timedelta(minutes=30),
    "PT2H": timedelta(hours=2),
    "PT12H": timedelta(hours=12),
    "P1D": timedelta(days=1),
}


@computes("timely_beliefs", "grid_resampling_across_dst")
def grids(case: Case) -> None:
    done = []
    for grid in case["expected"]:
        name = (grid["start"], grid["step"], grid["method"])
        if name in GRIDS_NOT_COMPUTED:
            continue
        done.append(name)
        assert resampled(grid) == grid["values"], name
    assert len(done) + len(GRIDS_NOT_COMPUTED) == len(case["expected"])


def resampled(grid: Case) -> list[Any]:
    """Hourly values on a wall-clock grid in Amsterdam: exact, first or greatest of a slot, or carried forward."""
    start = instant(grid["start"][:-3] + grid["start"][-3:] + ":00")
    rows = [
        {
            "event": (start + timedelta(hours=n)).isoformat(),
            "arrival": (start + timedelta(hours=n)).isoformat(),
            "value": n + 1,
        }
        for n in range(grid["periods"])
    ]
    end = start + timedelta(hours=grid["periods"] - 1)
    step = STEPS[grid["step"]]
    points = wall_clock_points(start, end, step)
    source, just_before = observations(rows), timedelta(microseconds=1)
    if grid["method"] is None:
        feature, at = al.window("value", "last", "1us", name="value"), points
    elif grid["method"] == "ffill":
        feature, at = al.latest("value"), points
    else:  # over the slot that begins at each point: asked just before the next one
        at = [point - just_before for point in [*points[1:], points[-1] + step]]
        span = "1d" if grid["step"] == "P1D" else step
        feature = al.window("value", grid["method"], span, name="value")
        if grid["step"] == "PT12H":  # half days are 11 or 13 hours long when clocks change: as long as each slot is
            slots = zip(points, [*points[1:], points[-1] + step], strict=True)
            return [
                joined(
                    source, al.window("value", grid["method"], after - point, name="value"), at=[after - just_before]
                )["v__value"][0]
                for point, after in slots
            ]
    return joined(source, feature, at=at, zone=AMSTERDAM)["v__value"].to_list()


def wall_clock_points(start: datetime, end: datetime, step: timedelta) -> list[datetime]:
    """Grid points from the last one at or before start to end: so many a day, each at its own local time of day."""
    midnight = datetime(2022, 1, 1, tzinfo=UTC) - timedelta(hours=1)
    times = [midnight + step * number for number in range(max(1, timedelta(days=1) // step))]
    days = [
        al.make_spine({"entity": ["one"]}, time, end + timedelta(microseconds=1), "1d", zone=AMSTERDAM)[
            "prediction_time"
        ]
        for time in times
    ]
    points = sorted({point for day in days for point in day})
    first = max((point for point in points if point <= start), default=points[0])
    return [point for point in points if point >= first]


# --- running them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_case(name, shared, tmp_path):
    project, identifier = name.split("/")
    case = next(case for case in cases_of(shared, project) if case["id"] == identifier)
    function = COMPUTED[name]
    if function in (compacted, unchanged_versions):
        function(case, tmp_path)
    else:
        function(case)
