"""A join with a memory limit against the join in one piece: the same bytes, however small the portions are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl
from fakes import FrameLog
from hypothesis import event, given, reject, settings
from hypothesis import strategies as st
from oracle_frames import Source, view_of
from polars.testing import assert_frame_equal
from strategies import Question, questions

import alignment as al
from alignment.durations import instant_us
from alignment.errors import MemoryLimitError
from alignment.hashing import frame_hash
from alignment.larger import Larger, Part
from alignment.memory import Portions

FEW = settings(max_examples=max(1, settings().max_examples // 4))
PORTIONS = st.builds(
    Portions,
    batch=st.sampled_from([1, 300, 1_000, 1 << 20]),
    group=st.sampled_from([1 << 8, 1 << 9, 1 << 10, 4 << 10, 1 << 20]),
    out=st.sampled_from([1, 500, 2_000, 1 << 20]),
)


def views_of(question: Question, *, logs: bool) -> list[al.FeatureView]:
    return [
        as_log(source) if logs and "log_sequence" in source.frame.columns else view_of(source)
        for source in question.sources
    ]


def as_log(source: Source) -> al.FeatureView:
    frame = source.frame.sort("log_sequence")
    key = list(source.key) if source.key else None
    return view_of(source, FrameLog(frame, source.name, list(source.entities), source.kind, key))


def equal(got: pl.DataFrame, expected: pl.DataFrame) -> None:
    assert_frame_equal(got, expected, check_exact=True)
    assert frame_hash(got) == frame_hash(expected)


def in_parts(question: Question, views: list[al.FeatureView], portions: Portions, **more: Any) -> list[Part]:
    as_of_us = None if question.as_of is None else instant_us(question.as_of, "as_of")
    asked = Larger(views, as_of_us, prediction_time="prediction_time", **more)
    try:
        return list(asked.parts(question.spine, portions))
    except MemoryLimitError:  # more at one instant than so small a portion holds
        event("refused")
        reject()


@given(questions(views=2), PORTIONS, st.booleans(), st.booleans())
@FEW
def test_portions_change_nothing(question, portions, logs, status):
    views = views_of(question, logs=logs)
    expected = al.point_in_time_join(question.spine, views, as_of=question.as_of, status=status)
    equal(pl.concat([frame for frame, _ in in_parts(question, views, portions, status=status)]), expected)


@given(questions(views=1, kind="measurement"), questions(views=1), PORTIONS, st.booleans())
@FEW
def test_views_of_other_entities_are_put_together_by_row(left, right, portions, logs):
    other = Question([replace(right.sources[0], name="power")], right.spine, left.as_of)
    if {"site", *left.spine.columns} & set(right.spine.columns) - {"prediction_time", "carried", "station"}:
        reject()
    shared = [name for name in right.spine.columns if name not in left.spine.columns]
    rows = min(left.spine.height, right.spine.height)
    spine = left.spine.head(rows).hstack(right.spine.head(rows).select(shared))
    views = [*views_of(left, logs=logs), *views_of(other, logs=logs)]
    both = Question([*left.sources, *other.sources], spine, left.as_of)
    if any(name not in spine.columns for view in views for name in view.spine_entities):
        reject()
    expected = al.point_in_time_join(spine, views, as_of=left.as_of, status=True)
    equal(pl.concat([frame for frame, _ in in_parts(both, views, portions, status=True)]), expected)


@given(
    questions(views=2, kind="measurement"),
    PORTIONS,
    st.sampled_from(["final", "first", "10m", "1d", "as_known"]),
    st.sampled_from(["view", "own"]),
)
@FEW
def test_labels_in_parts_are_those_of_the_whole(question, portions, release, home):
    views = views_of(question, logs=True)
    if question.as_of is None:
        reject()
    observed = views[0].observations if home == "own" and not views[0].entity_map else views[0]
    label = al.label("x", "30m", tolerance="10m", release=release, observations=observed)
    expected = al.build_dataset(question.spine, views, label=label, as_of=question.as_of).frame
    parts = in_parts(question, views, portions, status=False, label=label)
    got = pl.concat([frame.hstack(labels.get_columns()) for frame, labels in parts])
    equal(got, expected.select(got.columns))
