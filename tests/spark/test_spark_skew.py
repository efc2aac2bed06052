"""Entities cut by time answer as they do whole: pieces of any size, in any order, with what each leaves to later stretches."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers import at, table
from oracle_frames import view_of
from polars.testing import assert_frame_equal
from strategies import questions

import alignment as al
from alignment.carrying import Removals
from alignment.durations import instant_us
from alignment.engines.spark.evenness import Cut, Parts, key_hashes, plan_parts, removals_of, tally
from alignment.engines.spark.run import join
from alignment.engines.spark.splitting import (
    LabelReach,
    Routed,
    Tallied,
    may_cut,
    observations_of,
    readers,
)
from alignment.join import columns_of, known_until
from alignment.labels import label_source
from alignment.parts import Pass, answers_in, plan_passes
from alignment.spine import check_spine

ROW = "@row"
START = 1_767_225_600_000_000  # 2026-01-01T00:00Z


def as_times(us: np.ndarray) -> pl.Series:
    return pl.Series(us).cast(pl.Datetime("us", "UTC"))


def pieces(frame: pl.DataFrame, size: int) -> list[pl.DataFrame]:
    return [frame.slice(at, size) for at in range(0, frame.height, size)]


def everything_cut(one: Pass, spine: pl.DataFrame, frames: list[pl.DataFrame], stretches: int, size: int) -> Parts:
    """Every entity that is asked about is cut, at instants that are asked at."""
    instants = sorted({instant_us(t, "t") for t in spine["prediction_time"]})
    ends = tuple(instants[:: max(1, len(instants) // stretches)][: stretches - 1]) or (instants[0],)
    told = pl.concat(
        table
        for number, (frame, read) in enumerate(zip(frames, one.inputs, strict=True))
        for piece in pieces(frame, size)
        for _, table in Tallied(number, read.keys, None, observations_of(one, number)[0]).split(piece)
    )
    cuts = {}
    for place, key in enumerate(sorted({int(key) for key in key_hashes(spine, one.keys)})):
        removals = removals_of(told.filter(pl.col("key") == key))
        cuts[key] = Cut(place * (len(ends) + 1), ends, removals)
    taken = len(cuts) * (len(ends) + 1)
    return Parts(taken + 1, np.full(1, taken, np.uint32), cuts)


def in_stretches(
    one: Pass, spine: pl.DataFrame, frames: list[pl.DataFrame], stretches: int, size: int, as_of_us: int | None
):
    parts = everything_cut(one, spine, frames, stretches, size)
    of_part: dict[tuple[int, int], list[pl.DataFrame]] = defaultdict(list)
    for number, (frame, read) in enumerate(zip(frames, one.inputs, strict=True)):
        rows, views = observations_of(one, number)[0], tuple(readers(one, number))
        routed = Routed(number, read.keys, parts, observations=rows, views=views, as_of_us=as_of_us)
        for piece in pieces(frame, size):
            for part, rows in routed.split(piece):
                of_part[part, number].append(rows)
        if one.label is not None and one.label_reads == number:
            t = check_spine(spine, [], "prediction_time").t
            rows = label_source(one.label, ())[0]
            reach = LabelReach(99, read.keys, parts, one.label, rows, (int(t.min()), int(t.max())))
            for piece in pieces(frame, size):
                for part, mine in reach.split(piece):
                    of_part[part, 99].append(mine)
    answered = []
    for part, asked in Routed(-1, one.keys, parts, prediction_time="prediction_time").split(spine):
        mine = [
            pl.concat(of_part[part, number]) if of_part[part, number] else frame.clear()
            for number, frame in enumerate(frames)
        ]
        label_rows = None
        if one.label is not None and parts.cut_at(part):
            label_rows = pl.concat(of_part[part, 99] or [frames[one.label_reads].clear()])
        answered.append(
            asked.select(ROW).hstack(one.answer(asked, mine, as_of_us=as_of_us, status=True, label_rows=label_rows))
        )
    return pl.concat(answered).sort(ROW).drop(ROW)


def equal(got: pl.DataFrame, expected: pl.DataFrame) -> None:
    assert_frame_equal(got, expected, check_exact=True)
    assert repr(got.rows()) == repr(expected.rows())  # tells -0.0 from 0.0


@given(questions(views=2), st.integers(2, 5), st.integers(1, 9))
def test_an_entity_cut_by_time_answers_as_it_does_whole(question, stretches, size):
    if not question.spine.height:
        return
    views = [view_of(source) for source in question.sources]
    as_of_us = None if question.as_of is None else instant_us(question.as_of, "as_of")
    expected = al.point_in_time_join(question.spine, views, as_of=question.as_of, status=True)
    spine, columns = question.spine.with_row_index(ROW), {}
    for one in plan_passes(views):
        if not may_cut(one):
            return
        frames = [read.rows(as_of_us=as_of_us).collect() for read in one.inputs]
        found = in_stretches(one.detached(), spine, frames, stretches, size, as_of_us)
        columns |= {name: found[name] for name in found.columns}
    whole = check_spine(question.spine, [], "prediction_time")
    answers = answers_in(pl.DataFrame(columns), views)
    equal(columns_of(whole, answers, None, until_us=known_until(views, as_of_us), status=True, sources=False), expected)


def answered_in_stretches(views: list[al.FeatureView], spine: pl.DataFrame, stretches: int, size: int):
    columns = {}
    for one in plan_passes(views):
        frames = [read.rows(as_of_us=None).collect() for read in one.inputs]
        found = in_stretches(one.detached(), spine.with_row_index(ROW), frames, stretches, size, None)
        columns |= {name: found[name] for name in found.columns}
    asked = check_spine(spine, [], "prediction_time")
    answers = answers_in(pl.DataFrame(columns), views)
    return columns_of(asked, answers, None, until_us=known_until(views, None), status=True, sources=False)


@pytest.mark.parametrize("seed", range(12))
def test_sensors_of_a_site_that_is_cut_by_time_answer_as_they_do_whole(seed):
    draw = np.random.default_rng(seed)
    event = START + draw.integers(0, 40, 120) * 600_000_000
    frame = pl.DataFrame(
        {
            "site": draw.integers(0, 2, 120),
            "sensor": draw.integers(0, 3, 120),
            "event_time": as_times(event),
            "arrival_time": as_times(event + draw.integers(0, 12, 120) * 600_000_000),
            "is_retraction": draw.random(120) < 0.3,
            "log_sequence": np.arange(120),
            "load": draw.standard_normal(120),
        }
    )
    spine = pl.DataFrame(
        {
            "site": draw.integers(0, 2, 60),
            "sensor": draw.integers(0, 3, 60),
            "prediction_time": as_times(START + draw.integers(0, 60, 60) * 600_000_000),
        }
    )
    of_sensor = [al.latest("load"), al.lag("load", "1h"), al.sequence("load", 2)]
    of_site = [al.latest("load", name="newest"), al.window("load", "sum", "2h")]
    views = [
        al.FeatureView("sensor", ["site", "sensor"], frame, of_sensor),
        al.FeatureView(
            "site", ["site"], frame.unique(["site", "event_time", "arrival_time"], maintain_order=True), of_site
        ),
    ]
    expected = al.point_in_time_join(spine, views, status=True)
    equal(answered_in_stretches(views, spine, 5, 13), expected)


@given(
    questions(views=1, kind="measurement"),
    st.integers(2, 4),
    st.integers(1, 9),
    st.sampled_from(["final", "first", "10m"]),
)
def test_labels_of_an_entity_cut_by_time_are_those_of_the_whole(question, stretches, size, release):
    view = view_of(question.sources[0])
    if question.as_of is None or not question.spine.height:
        return
    label = al.label("x", "30m", tolerance="10m", release=release, observations=view)
    expected = al.build_dataset(question.spine, [view], label=label, as_of=question.as_of).frame
    as_of_us = instant_us(question.as_of, "as_of")
    (one,) = plan_passes([view], label=label)
    if not may_cut(one):
        return
    frames = [read.rows(as_of_us=None).collect() for read in one.inputs]
    found = in_stretches(one.detached(), question.spine.with_row_index(ROW), frames, stretches, size, as_of_us)
    equal(found.select(label.columns), expected.select(label.columns))


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"is_retraction": "gone"},
        {"arrival_time": "seen"},
        {"event_time": "seen"},
        {"log_sequence": "id"},
        {"key": ["id"]},
        {"on_tie": "last"},
        {"clock_tolerance": "1h"},
        {"delay": al.FixedDelay("1h")},
        {"date_zone": "Europe/Berlin"},
        {"date_means": "start"},
    ],
    ids=lambda other: "".join(other) or "same",
)
def test_readers_of_one_frame_that_read_times_order_or_retractions_differently_keep_entities_whole(other):
    header = "site id event_time arrival_time seen is_retraction gone log_sequence load"
    frame = table(header, ("a", 1, "10:00", "10:05", at("10:09"), False, False, 0, 1.5))
    readers_of_it = [al.Observations(frame, entities=["site"], **arguments) for arguments in ({}, other)]
    (one,) = plan_passes(
        [al.FeatureView(f"v{n}", None, rows, [al.latest("load")]) for n, rows in enumerate(readers_of_it)]
    )
    assert len(one.inputs) == 1
    assert may_cut(one.detached()) == (not other)


def rows_of(counts: dict[str, int]) -> tuple[pl.DataFrame, np.ndarray]:
    """So many rows of each entity, one a second."""
    names = [name for name, count in counts.items() for _ in range(count)]
    return pl.DataFrame({"site": names}), np.concatenate([np.arange(count) * 1_000_000 for count in counts.values()])


def test_an_entity_with_half_of_the_rows_takes_half_of_the_parts():
    frame, instants = rows_of({"big": 50_000} | {f"s{n}": 500 for n in range(100)})
    parts = plan_parts([(tally(frame, ["site"], instants), 1)], 10, may_cut=True)
    ((key, cut),) = parts.cuts.items()
    assert (parts.count, cut.stretches, cut.removals) == (10, 5, Removals((), ()))
    of = parts.of(key_hashes(frame, ["site"]))
    hot = key_hashes(frame, ["site"]) == np.uint64(key)
    of[hot] += cut.stretch_of(instants[hot])
    rows = np.bincount(of, minlength=10)
    assert rows.sum() == 100_000
    assert rows.max() <= 1.15 * np.median(rows)


def test_small_entities_are_dealt_out_evenly():
    frame, instants = rows_of({f"s{n}": 1_000 + n for n in range(96)})
    parts = plan_parts([(tally(frame, ["site"], instants), 1)], 8, may_cut=True)
    rows = np.bincount(parts.of(key_hashes(frame, ["site"])), minlength=8)
    assert not parts.cuts
    assert rows.max() <= 1.01 * np.median(rows)  # twelve entities each


def test_of_nothing_there_is_one_part():
    parts = plan_parts([], 8, may_cut=True)
    assert (parts.count, parts.of(np.array([1, 2**63], np.uint64)).tolist(), dict(parts.cuts)) == (1, [0, 0], {})


def test_an_entity_that_may_not_be_cut_stays_whole():
    frame, instants = rows_of({"big": 5_000, "small": 10})
    parts = plan_parts([(tally(frame, ["site"], instants), 1)], 4, may_cut=False)
    assert not parts.cuts


def test_rows_of_one_instant_are_not_torn_apart():
    frame = pl.DataFrame({"site": ["big"] * 1_000})
    parts = plan_parts([(tally(frame, ["site"], np.full(1_000, 7)), 1)], 4, may_cut=True)
    for cut in parts.cuts.values():
        assert len(set(cut.stretch_of(np.full(1_000, 7)).tolist())) == 1


def test_spark_cuts_a_heavy_entity_and_answers_as_the_local_engine_does(spark):
    draw = np.random.default_rng(7)
    site = np.where(draw.random(6_000) < 0.5, 0, draw.integers(1, 20, 6_000))
    event = START + draw.integers(0, 5_000, 6_000) * 60_000_000
    frame = pl.DataFrame(
        {
            "site": site,
            "event_time": as_times(event),
            "arrival_time": as_times(event + draw.integers(0, 200, 6_000) * 60_000_000),
            "is_retraction": draw.random(6_000) < 0.02,
            "log_sequence": np.arange(6_000),
            "load": draw.standard_normal(6_000),
        }
    )
    spine = pl.DataFrame(
        {
            "site": draw.integers(0, 20, 400),
            "prediction_time": as_times(START + draw.integers(0, 5_000, 400) * 60_000_000),
        }
    ).unique(maintain_order=True)
    view = al.FeatureView(
        "meter",
        ["site"],
        frame,
        [al.latest("load"), al.lag("load", "3h"), al.window("load", ["sum", "std"], "6h"), al.event_age()],
    )
    label = al.label("load", "2h", tolerance="30m")
    as_of_us = int(frame["arrival_time"].dt.epoch("us").max()) - 3_600_000_000
    as_of = pl.Series([as_of_us]).cast(pl.Datetime("us", "UTC"))[0]
    expected = al.build_dataset(spine, [view], label=label, as_of=as_of).frame
    made = join(spine, [view], label=label, as_of_us=as_of_us, provisional=True, buckets=6, spark=spark)
    keys = ["site", "prediction_time"]
    equal(pl.from_arrow(made.toArrow()).cast(expected.schema).sort(keys), expected.sort(keys))
