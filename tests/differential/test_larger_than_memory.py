"""A join with a memory limit against the join in one piece: the same bytes, however small the portions are."""

from __future__ import annotations

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
from alignment.larger import Larger
from alignment.memory import Portions

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


def joined(question: Question, views: list[al.FeatureView], portions: Portions, *, status: bool) -> pl.DataFrame:
    as_of_us = None if question.as_of is None else instant_us(question.as_of, "as_of")
    asked = Larger(views, as_of_us, status=status, prediction_time="prediction_time")
    try:
        return pl.concat([frame for frame, _ in asked.parts(question.spine, portions)])
    except MemoryLimitError:  # more at one instant than so small a portion holds
        event("refused")
        reject()


@given(questions(views=2), PORTIONS, st.booleans(), st.booleans())
@settings(max_examples=40)
def test_portions_change_nothing(question, portions, logs, status):
    views = views_of(question, logs=logs)
    expected = al.point_in_time_join(question.spine, views, as_of=question.as_of, status=status)
    equal(joined(question, views, portions, status=status), expected)
