"""Engines against the oracle: over drawn observations, features and spines (R1 to R22)."""

from __future__ import annotations

import os

import polars as pl
import pytest
from compare import check, check_loosely
from fakes import FrameLog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle_frames import view_of
from strategies import Question, questions

import alignment as al

SOAK = settings(
    max_examples=max(1, int(3000 * float(os.environ.get("ASKNOWN_SOAK", "1")))),
    deadline=None,
    derandomize=False,
    suppress_health_check=list(HealthCheck),
)


def views_of(question: Question) -> list[al.FeatureView]:
    return [view_of(source) for source in question.sources]


def join(question: Question, **arguments: object) -> pl.DataFrame:
    return al.point_in_time_join(question.spine, views_of(question), as_of=question.as_of, status=True, **arguments)


def local_equals_oracle(question: Question) -> None:
    check(join(question), question.spine, question.sources, as_of=question.as_of)


@given(questions(kind="measurement"))
def test_the_local_engine_answers_measurements_as_the_oracle_does(question):
    local_equals_oracle(question)


@given(questions(kind="forecast"))
def test_the_local_engine_answers_forecasts_as_the_oracle_does(question):
    local_equals_oracle(question)


@given(questions(calendar="spring"))
def test_the_local_engine_agrees_around_the_night_clocks_go_forward(question):
    local_equals_oracle(question)


@given(questions(calendar="autumn"))
def test_the_local_engine_agrees_around_the_night_clocks_go_back(question):
    local_equals_oracle(question)


@given(questions(views=3, max_rows=8))
def test_the_local_engine_agrees_over_several_views(question):
    local_equals_oracle(question)


@settings(max_examples=max(1, settings().max_examples // 2))
@given(questions())
def test_the_duckdb_engine_chooses_the_same_rows_and_its_sums_are_as_near_as_r17_asks(question):
    check_loosely(join(question, engine="duckdb"), question.spine, question.sources, as_of=question.as_of)


@given(questions(views=2), st.integers(-1, 45), st.booleans())
def test_positions_of_logs_are_answered_as_the_oracle_does(question, position, eager):
    sources = [source for source in question.sources if "log_sequence" in source.frame.columns]
    sources = sources or [sequenced(question.sources[0])]
    logs = [
        FrameLog(
            source.frame,
            source.name,
            list(source.entities),
            source.kind,
            list(source.key) if source.key else None,
            eager=eager,
        )
        for source in sources
    ]
    views = [view_of(source, log) for source, log in zip(sources, logs, strict=True)]
    joined = al.point_in_time_join(
        question.spine,
        views,
        as_of=question.as_of,
        status=True,
        positions={source.name: position for source in sources},
    )
    check(
        joined, question.spine, sources, as_of=question.as_of, positions={source.name: position for source in sources}
    )


def sequenced(source):
    """The source with a log_sequence, in the frame's order."""
    frame = source.frame.with_columns(log_sequence=pl.int_range(pl.len(), dtype=pl.Int64) * 2)
    return type(source)(**{**vars(source), "frame": frame, "on_tie": "error"})


@pytest.mark.soak
@SOAK
@given(questions())
def test_soak_local(question):
    local_equals_oracle(question)


@pytest.mark.soak
@SOAK
@given(questions(views=2))
def test_soak_duckdb(question):
    check_loosely(join(question, engine="duckdb"), question.spine, question.sources, as_of=question.as_of)
