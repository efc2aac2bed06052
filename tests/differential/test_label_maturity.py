"""Label maturity against plain loops over small random revision histories."""

from __future__ import annotations

import math
from collections import Counter
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import DELAYS, INSTANT, PLAIN

import alignment as al

VALUES = [10.0, 10.5, 11.0, 0.0, None, math.nan, -10.0]
TOLERANCES = {"0%": (0.0, 0.0), "5%": (0.05, 0.0), "0.5": (0.0, 0.5)}
AGES = ["0s", "10m", "30m", "1h", "1d"]


@st.composite
def histories(draw):
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["a", "b"]),
                st.sampled_from(PLAIN),
                st.sampled_from(DELAYS),
                st.sampled_from(VALUES),
                st.sampled_from([False, False, False, True]),
            ),
            min_size=1,
            max_size=25,
        )
    )
    return pl.DataFrame(
        {
            "station": [row[0] for row in rows],
            "event_time": pl.Series([row[1] for row in rows], dtype=INSTANT),
            "arrival_time": pl.Series([row[1] + row[2] for row in rows], dtype=INSTANT),
            "temp": pl.Series([None if row[4] else row[3] for row in rows], dtype=pl.Float64),
            "is_retraction": [row[4] for row in rows],
            "log_sequence": list(range(len(rows))),
        }
    )


def near(value, final, tolerance):
    if value is None:
        return False
    if math.isnan(value) or math.isnan(final):
        return math.isnan(value) and math.isnan(final)
    share, absolute = TOLERANCES[tolerance]
    return abs(value - final) <= share * abs(final) + absolute


def known_at(revisions, instant):
    """The value after the last row that had arrived: None where there is none, it is null or retracted."""
    value = None
    for row in revisions:
        if row["arrival_time"] <= instant:
            value = None if row["is_retraction"] else row["temp"]
    return value


def least_by_which(ages, share):
    ages = sorted(ages)
    return ages[math.ceil(share * len(ages)) - 1]


def by_hand(frame, share, tolerance, as_of):
    """Events that count as {key: (age, settled, first near for good, revisions, final)}, the watch, and those left out."""
    histories = {}
    for row in sorted(frame.to_dicts(), key=lambda row: (row["arrival_time"], row["log_sequence"])):
        if row["arrival_time"] <= as_of:
            histories.setdefault((row["station"], row["event_time"]), []).append(row)
    begin = min(row["arrival_time"] for revisions in histories.values() for row in revisions)
    events, left_out = {}, Counter()
    for key, revisions in histories.items():
        final = known_at(revisions, as_of)
        if revisions[-1]["is_retraction"]:
            left_out["retracted"] += 1
        elif final is None:
            left_out["no_value"] += 1
        elif key[1] < begin:
            left_out["before_log"] += 1
        else:
            settled = None
            for row in revisions:
                good = not row["is_retraction"] and near(row["temp"], final, tolerance)
                settled = None if not good else settled or row
            at_once = all(not row["is_retraction"] and near(row["temp"], final, tolerance) for row in revisions)
            events[key] = (as_of - key[1], settled["arrival_time"] - key[1], at_once, revisions, final)
    watch = timedelta(0)
    while True:
        old = [settled for age, settled, *_ in events.values() if age >= watch]
        if not old:
            return events, None, left_out
        longer = 2 * least_by_which(old, share)
        if longer <= watch:
            break
        watch = longer
    left_out["too_young"] = sum(age < watch for age, *_ in events.values())
    return {key: event for key, event in events.items() if event[0] >= watch}, watch, left_out


@given(
    histories(),
    st.sampled_from([0.5, 0.9, 1.0]),
    st.sampled_from(list(TOLERANCES)),
    st.sampled_from([*PLAIN[5:], None]),
)
def test_reports_are_what_plain_loops_find(frame, share, tolerance, as_of):
    end = as_of or frame["arrival_time"].max()
    if frame["arrival_time"].min() > end:
        return
    events, watch, left_out = by_hand(frame, share, tolerance, end)
    ages = [
        age
        for age in AGES
        if watch is None or al.label("x", "1us", release=age).release.total_us <= watch / timedelta(microseconds=1)
    ]
    observations = al.Observations(frame, ["station"])
    report = al.label_maturity(observations, "temp", share=share, within=tolerance, as_of=as_of, ages=ages)
    assert report.events == len(events)
    assert report.watched == (watch if events else None)
    assert {name: count for name, count in report.left_out.items() if count} == {n: c for n, c in left_out.items() if c}
    settled = [settled for _, settled, *_ in events.values()]
    assert report.settled.max == (max(settled).total_seconds() if settled else None)
    if watch is not None and not all(at_once for _, _, at_once, *_ in events.values()):
        wait = al.label("x", "1us", release=report.release).release.total_us * timedelta(microseconds=1)
        assert wait >= least_by_which(settled, share)
        assert sum(age <= wait for age in settled) >= share * len(settled)
    else:
        assert report.release == ("first" if watch is not None else None)
    for point in report.curve.filter(pl.col("age").is_not_null()).iter_rows(named=True):
        check_point(point, [event for event in events.items() if event[1][0] >= point["age"]], tolerance)
    for row in report.series.iter_rows(named=True):
        own = [event for (station, _), event in events.items() if station == row["station"]]
        assert row["events"] == len(own)
        assert row["settled_share"] == least_by_which([settled for _, settled, *_ in own], share)
        assert row["first_within"] == pytest.approx(sum(at_once for _, _, at_once, *_ in own) / len(own))


def check_point(point, events, tolerance):
    values = [(known_at(revisions, event + point["age"]), final) for (_, event), (*_, revisions, final) in events]
    assert point["events"] == len(events)
    if not events:
        return
    assert point["present"] == pytest.approx(sum(value is not None for value, _ in values) / len(values))
    assert point["within"] == pytest.approx(sum(near(value, final, tolerance) for value, final in values) / len(values))
    assert point["settled"] == pytest.approx(
        sum(settled <= point["age"] for _, (_, settled, *_) in events) / len(events)
    )
    errors = [
        value - final for value, final in values if value is not None and math.isfinite(value) and math.isfinite(final)
    ]
    if errors:
        assert point["bias"] == pytest.approx(sum(errors) / len(errors), abs=1e-12)
        assert point["mae"] == pytest.approx(sum(map(abs, errors)) / len(errors), abs=1e-12)
    else:
        assert point["bias"] is None
