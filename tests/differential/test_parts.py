"""A join in parts against the join in one piece: buckets of entities, stretches of time with what is carried over, labels."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest
from fakes import FrameLog
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_frames import Source, view_of
from polars.testing import assert_frame_equal
from strategies import Question, questions

import alignment as al
from alignment.carrying import carried
from alignment.durations import instant_us
from alignment.join import columns_of, known_until
from alignment.parts import Pass, answers_in, bucket_of, plan_passes
from alignment.spine import check_spine

ROW = "@row"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def as_log(source: Source) -> al.FeatureView:
    frame = source.frame.sort("log_sequence")
    return view_of(
        source,
        FrameLog(frame, source.name, list(source.entities), source.kind, list(source.key) if source.key else None),
    )


def views_of(question: Question, *, logs: bool) -> list[al.FeatureView]:
    return [
        as_log(source) if logs and "log_sequence" in source.frame.columns else view_of(source)
        for source in question.sources
    ]


def cuts_of(spine: pl.DataFrame, parts: int) -> list[int]:
    """Ends of stretches: instants of the spine, the last one its last."""
    instants = sorted({instant_us(t, "t") for t in spine["prediction_time"]})
    step = max(1, len(instants) // parts)
    return [*instants[step - 1 : -1 : step], instants[-1]]


def removals_after(rows: pl.DataFrame, after_us: int) -> int:
    late = pl.col("arrival_time").dt.epoch("us") > after_us
    return rows.filter(late & pl.col("is_retraction").fill_null(value=False)).height


def answer_in_stretches(
    one: Pass, spine: pl.DataFrame, frames: list[pl.DataFrame], as_of_us: int | None, stretches: int, fold: str
) -> list[pl.DataFrame]:
    """Each stretch of prediction times from its own arrivals and what was carried to its begin."""
    found = []
    readers = [[v for v, place in zip(one.views, one.reads, strict=True) if place == n] for n in range(len(frames))]
    kept = [frame.clear() for frame in frames]
    cuts = cuts_of(spine, stretches)
    # An arrival of a row may be raised to its event, by the tolerance at most.
    arrivals = [
        pl.max_horizontal("arrival_time", pl.when(pl.col("event_time").is_not_null()).then("event_time"))
        if readers[n] and readers[n][0].kind == "measurement"
        else pl.col("arrival_time")
        for n in range(len(frames))
    ]
    for before, after in pairwise([None, *cuts]):
        assert after is not None
        own = [
            frame.filter(
                arrivals[n].dt.epoch("us") <= after,
                *([] if before is None else [arrivals[n].dt.epoch("us") > before]),
            )
            for n, frame in enumerate(frames)
        ]
        t = pl.col("prediction_time").dt.epoch("us")
        asked = spine.filter(t <= after, *([] if before is None else [t > before]))
        together = [pl.concat(pair) for pair in zip(kept, own, strict=True)]
        if asked.height:
            answers = one.answer(
                asked,
                together,
                as_of_us=as_of_us,
                status=True,
                label_rows=frames[one.label_reads] if one.label else None,
            )
            found.append(asked.select(ROW).hstack(answers))
        for n, views in enumerate(readers):
            removals = removals_after(frames[n], after)
            if not views:
                continue
            if fold == "running":
                kept[n] = together[n].filter(
                    carried(views, together[n], after_us=after, as_of_us=as_of_us, removals=removals)
                )
            else:  # each stretch by itself; what is left of it is put to what is left of those before
                left = carried(views, own[n], after_us=after, as_of_us=as_of_us, removals=removals, alone=True)
                kept[n] = pl.concat([kept[n], own[n].filter(left)])
    return found


def in_parts(
    question: Question,
    views: list[al.FeatureView],
    *,
    buckets: int,
    stretches: int,
    fold: str,
    label: al.Label | None = None,
    as_of_us: int | None = None,
) -> pl.DataFrame:
    spine = question.spine.with_row_index(ROW)
    whole = check_spine(question.spine, [], "prediction_time")
    columns = {}
    for one in plan_passes(views, label=label):
        one.check_keys(spine.schema)
        frames = [read.rows(as_of_us=as_of_us).collect() for read in one.inputs]
        bare = one.detached()
        answered = []
        for bucket in range(buckets):
            mine = [
                frame.filter(bucket_of(frame, read.keys, buckets) == bucket)
                for frame, read in zip(frames, one.inputs, strict=True)
            ]
            asked = spine.filter(bucket_of(spine, one.keys, buckets) == bucket)
            if asked.height:
                answered += answer_in_stretches(bare, asked, mine, as_of_us, stretches, fold)
        together = pl.concat(answered).sort(ROW).drop(ROW)
        columns |= {name: together[name] for name in together.columns}
    answers = pl.DataFrame(columns)
    found = columns_of(
        whole, answers_in(answers, views), None, until_us=known_until(views, as_of_us), status=True, sources=False
    )
    return found if label is None else found.hstack(answers.select(label.columns))


def equal(got: pl.DataFrame, expected: pl.DataFrame) -> None:
    assert_frame_equal(got, expected, check_exact=True)
    assert repr(got.rows()) == repr(expected.rows())  # tells -0.0 from 0.0


@given(questions(views=2), st.integers(1, 3), st.booleans())
def test_buckets_answer_as_the_whole_does(question, buckets, logs):
    if not question.spine.height:
        return
    views = views_of(question, logs=logs)
    as_of_us = None if question.as_of is None else instant_us(question.as_of, "as_of")
    expected = al.point_in_time_join(question.spine, views, as_of=question.as_of, status=True)
    equal(in_parts(question, views, buckets=buckets, stretches=1, fold="running", as_of_us=as_of_us), expected)


@settings(max_examples=2 * settings().max_examples)
@given(questions(views=1), st.integers(1, 5), st.sampled_from(["running", "apart"]))
def test_stretches_of_time_answer_from_what_was_carried_over(question, stretches, fold):
    if not question.spine.height or question.sources[0].on_tie == "last":
        return
    views = views_of(question, logs=True)
    as_of_us = None if question.as_of is None else instant_us(question.as_of, "as_of")
    expected = al.point_in_time_join(question.spine, views, as_of=question.as_of, status=True)
    equal(in_parts(question, views, buckets=1, stretches=stretches, fold=fold, as_of_us=as_of_us), expected)


MINUTES = [0, 10, 20, 30, 60, 90]
MOVING = st.tuples(
    st.sampled_from("ppq"),  # id
    st.sampled_from(MINUTES),  # event
    st.sampled_from([-60, 0, 30]),  # issue
    st.sampled_from([0, 10, 40]),  # how long after the issue it arrived
    st.integers(1, 9),
    st.sampled_from([False, False, False, True]),
)


def after_noon(minutes: list[int]) -> pl.Series:
    return pl.Series([NOON + timedelta(minutes=one) for one in minutes], dtype=pl.Datetime("us", "UTC"))


@pytest.mark.parametrize("kind", ["forecast", "measurement"])
@given(
    given_rows=st.lists(MOVING, min_size=2, max_size=5),
    stretches=st.integers(2, 4),
    fold=st.sampled_from(["running", "apart"]),
)
def test_ids_whose_events_move_are_carried_over(kind, given_rows, stretches, fold):
    ids, events, issues, waits, values, gone = (list(column) for column in zip(*given_rows, strict=True))
    arrivals = [issue + wait for issue, wait in zip(issues, waits, strict=True)]
    if kind == "measurement":
        arrivals = [event + wait for event, wait in zip(events, waits, strict=True)]
    frame = pl.DataFrame(
        {
            "site": "a",
            "id": ids,
            "event_time": after_noon(events),
            **({"issue_time": after_noon(issues)} if kind == "forecast" else {}),
            "arrival_time": after_noon(arrivals),
            "is_retraction": gone,
            "log_sequence": range(len(ids)),
            "x": [float(value) for value in values],
        }
    )
    view = al.FeatureView("v", ["site"], frame, [al.window("x", "sum", "70m")], kind=kind, key=["id"])
    spine = pl.DataFrame({"site": "a", "prediction_time": after_noon(list(range(0, 181, 15)))})
    expected = al.point_in_time_join(spine, [view], status=True)
    question = Question([], spine, None)
    equal(in_parts(question, [view], buckets=1, stretches=stretches, fold=fold), expected)


@settings(max_examples=max(1, settings().max_examples // 2))
@given(
    questions(views=2, kind="measurement"),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from(["final", "first", "10m"]),
    st.booleans(),
)
def test_labels_in_parts_are_those_of_the_whole(question, buckets, stretches, release, own):
    views = views_of(question, logs=True)
    if any(source.on_tie == "last" for source in question.sources) or question.as_of is None:
        return
    observed = views[0].observations if own and not views[0].entity_map else views[0]
    label = al.label("x", "30m", tolerance="10m", release=release, observations=observed)
    expected = al.build_dataset(question.spine, views, label=label, as_of=question.as_of).frame
    as_of_us = instant_us(question.as_of, "as_of")
    got = in_parts(
        *(question, views),
        buckets=buckets,
        stretches=stretches,
        fold="running",
        label=label,
        as_of_us=as_of_us,
    )
    columns = [name for name in expected.columns if name != "provisional"]
    equal(got.select(columns), expected.select(columns))


@given(questions(views=1), questions(views=1, calendar="plain"))
def test_views_with_nothing_in_common_take_a_pass_each(left, right):
    sources = [left.sources[0], replace(right.sources[0], name="power")]
    views = [view_of(source) for source in sources]
    passes = plan_passes(views)
    together = bool(set(views[0].spine_entities) & set(views[1].spine_entities))
    together = together or not (views[0].spine_entities or views[1].spine_entities)
    assert len(passes) == (1 if together else 2)
    for one in passes:
        assert all(set(one.keys) <= set(view.spine_entities) for view in one.views)
