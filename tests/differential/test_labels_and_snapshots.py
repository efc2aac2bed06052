"""Labels of every release (R12) and snapshots, against the oracle over drawn observations."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import oracle
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle_clock import datetime_of, micros_of, span
from oracle_frames import rows_of, view_of
from strategies import CALENDARS, KEYS, questions, sources, spines

import alignment as al

HORIZONS = ["10m", "30m", "1h", "24h"]
RELEASES = ["final", "first", "10m", "1d"]
FEW = settings(max_examples=max(1, settings().max_examples // 2))


@st.composite
def labelled(draw: st.DrawFn, *, by_id: bool = False):
    """A measurement view, a spine before its events, and a label's arguments."""
    source = draw(
        sources(kind="measurement", calendar=draw(st.sampled_from(sorted(CALENDARS))), keys="text", by_id=by_id)
    )
    source = replace(source, features=(al.latest("n"),), max_event_age=None, max_arrival_age=None)
    instants = sorted({*source.frame["event_time"].drop_nulls(), *source.frame["arrival_time"]})
    assume(instants)
    horizon = draw(st.sampled_from([*HORIZONS, "1d"] if source.zone else HORIZONS))
    back = timedelta(microseconds=span(horizon, None).micros)
    spine = draw(spines(instants=[instant - back for instant in instants], keys=KEYS["text"]))
    tolerance = draw(st.sampled_from(["0s", "9m", "5m"]))
    as_of = draw(st.sampled_from([instants[-1], instants[-1] + timedelta(days=2), instants[len(instants) // 2]]))
    return source, spine, horizon, tolerance, as_of


def check_label(case, release: str) -> None:
    source, spine, horizon, tolerance, as_of = case
    view = view_of(source)
    declared = al.label("x", horizon=horizon, tolerance=tolerance, release=release)
    frame = al.build_dataset(spine, [view], label=declared, as_of=as_of).frame
    rows = rows_of(source)
    for asked, got in zip(spine.iter_rows(named=True), frame.iter_rows(named=True), strict=True):
        expected = oracle.Label()
        if asked["station"] is not None:
            expected = oracle.label(
                rows,
                source.view,
                "x",
                (asked["station"],),
                micros_of(asked["prediction_time"]),
                horizon=span(horizon, source.zone),
                tolerance=span(tolerance, source.zone),
                release=release if release in ("final", "first") else span(release, source.zone),
                as_of=micros_of(as_of),
            )
        instants = [None if micros is None else datetime_of(micros) for micros in (expected.event, expected.arrival)]
        assert repr([got["label"], got["label_event_time"], got["label_arrival_time"]]) == repr(
            [expected.value, *utc(instants, frame)]
        )


def utc(instants, frame):
    """Instants as the frame gives them back."""
    return pl.Series(instants, dtype=frame.schema["label_event_time"]).to_list()


@pytest.mark.parametrize("release", RELEASES)
@FEW
@given(case=labelled())
def test_labels_are_those_of_the_oracle(release, case):
    check_label(case, release)


@pytest.mark.parametrize("release", RELEASES)
@FEW
@given(case=labelled(by_id=True))
def test_labels_of_events_that_move_are_those_of_the_oracle(release, case):
    check_label(case, release)


@FEW
@given(labelled(), st.integers(0, 5))
def test_labels_as_known_are_those_current_when_the_model_was_trained(case, place):
    source, spine, horizon, tolerance, as_of = case
    arrivals = sorted(source.frame["arrival_time"])
    at = arrivals[place % len(arrivals)] + timedelta(microseconds=1)
    # Something to train on and something to test on, long before and long after the drawn rows.
    outer = [arrivals[0] - timedelta(days=9), arrivals[-1] + timedelta(days=9)]
    as_of = outer[1] + timedelta(days=1)
    source = replace(source, frame=pl.concat([source.frame, *(event_at(source.frame, instant) for instant in outer)]))
    ahead = timedelta(microseconds=span(horizon, None).micros)
    ends = pl.DataFrame({"station": ["a", "a"], "prediction_time": [instant - ahead for instant in outer]})
    spine = pl.concat([spine.drop_nulls("station").drop("carried"), ends.cast(dict(spine.drop("carried").schema))])
    declared = al.label("x", horizon=horizon, tolerance=tolerance, release="as_known")
    dataset = al.build_dataset(spine, [replaced_zone(source)], label=declared, as_of=as_of)
    split = al.split_at(dataset, at, embargo=None)
    rows = rows_of(source)
    for trained in split.train_frame(dataset).iter_rows(named=True):
        expected = oracle.label(
            rows,
            oracle.View(),
            "x",
            (trained["station"],),
            micros_of(trained["prediction_time"]),
            horizon=span(horizon, None),
            tolerance=span(tolerance, None),
            release="as_known",
            as_of=micros_of(as_of),
            trained_at=micros_of(at),
        )
        assert repr(trained["label"]) == repr(expected.value)
        assert micros_of(trained["label_arrival_time"]) == expected.arrival <= micros_of(at)


def replaced_zone(source):
    """The view of a source, its days being 24 hours."""
    return view_of(replace(source, zone=None, features=(al.latest("n"),)))


def event_at(frame: pl.DataFrame, instant) -> pl.DataFrame:
    """One more event of station a, known at once."""
    changed = frame[:1].with_columns(
        pl.lit("a").alias("station"),
        pl.lit(instant).cast(frame.schema["event_time"]).alias("event_time"),
        pl.lit(instant).cast(frame.schema["arrival_time"]).alias("arrival_time"),
        pl.lit(False).alias("is_retraction"),
        pl.lit(1.5).alias("x"),
    )
    return (
        changed.with_columns(pl.lit(999, pl.Int64).alias("log_sequence"))
        if "log_sequence" in frame.columns
        else changed
    )


@given(questions(), st.booleans())
def test_snapshots_are_those_of_the_oracle(question, later):
    source = question.sources[0]
    t = question.spine["prediction_time"][0]
    position = None
    if "log_sequence" in source.frame.columns and later:
        position = 9
    known = al.snapshot(view_of(source).observations, t, position=position)
    expected = oracle.snapshot(rows_of(source), source.kind, micros_of(t), position)
    columns = [
        *source.entities,
        *(source.key or ()),
        "event_time",
        "arrival_time",
        *(["issue_time"] if source.kind == "forecast" and "issue_time" in known.columns else []),
        "x",
        "text",
    ]
    got = sorted(repr(row) for row in known.select(columns).iter_rows())
    want = []
    for row in expected:
        cells = [*row["entity"], *(row["id"] or ()), row["event"], row["arrival"]]
        if "issue_time" in columns:
            cells.append(row["issue"])
        want.append((*cells, row["values"]["x"], row["values"]["text"]))
    places = [place for place, name in enumerate(columns) if name.endswith("_time")]
    want = [
        tuple(
            pl.Series([c], dtype=pl.Int64).cast(known.schema[columns[p]])[0] if p in places else c
            for p, c in enumerate(row)
        )
        for row in want
    ]
    assert got == sorted(repr(row) for row in want)
