"""Laws that hold whatever the rules' details: for every engine, over drawn observations and spines."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest
from compare import column_values, same
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle_frames import Source, flat, view_of
from polars.testing import assert_frame_equal
from strategies import KEYS, PLAIN, Question, questions, sources, spines

import alignment as al

ENGINES = ["local", "duckdb"]
FEW = settings(max_examples=max(1, settings().max_examples // 4))  # SQL takes its time, and laws hold or fail early


def engines(law):
    """Run a law with every engine, over fewer examples."""
    return pytest.mark.parametrize("engine", ENGINES)(FEW(law))


def join(question: Question, engine: str = "local", **arguments: object) -> pl.DataFrame:
    arguments = {"as_of": question.as_of} | arguments
    views = [view_of(source) for source in question.sources]
    return al.point_in_time_join(question.spine, views, engine=engine, status=True, **arguments)


def assert_same_bits(left: pl.DataFrame, right: pl.DataFrame) -> None:
    """Equal in names, types, nulls and bits; a NaN equals a NaN."""
    assert left.schema == right.schema
    assert left.height == right.height
    for name in left.columns:
        for place, (one, other) in enumerate(zip(column_values(left[name]), column_values(right[name]), strict=True)):
            assert same(one, other), f"{name}[{place}]: {one!r} and {other!r}"


def feature_columns(question: Question) -> list[str]:
    return [f"{source.name}__{feature.name}" for source in question.sources for feature in flat(source.features)]


# --- the future cannot change the past ------------------------------------------------------------------------------


@engines
@given(questions(), st.integers(0, 11))
def test_rows_that_arrive_later_change_no_earlier_answer(engine, question, place):
    cut = question.spine["prediction_time"][place % question.spine.height]
    early = Question(question.sources, question.spine.filter(pl.col("prediction_time") <= cut), question.as_of)
    known = [replace(source, frame=source.frame.filter(counted_until(source) <= cut)) for source in early.sources]
    assert_same_bits(join(early, engine), join(replace(early, sources=known), engine))


def counted_until(source: Source) -> pl.Expr:
    """The arrival as it counts: a measurement's is raised to its event (R5)."""
    if source.kind == "forecast":
        return pl.col("arrival_time")
    return pl.max_horizontal("arrival_time", "event_time")


@engines
@given(questions())
def test_as_of_t_is_the_same_as_no_as_of(engine, question):
    # R1: a row counts iff it arrived by min(t, as_of), so pretending nothing arrived after the last t changes nothing.
    last = question.spine["prediction_time"].max()
    assert_same_bits(
        join(question, engine, as_of=last).drop("provisional"),
        join(question, engine, as_of=last + timedelta(days=9)).drop("provisional"),
    )


@engines
@given(questions())
def test_as_of_is_the_same_as_leaving_out_what_arrived_later(engine, question):
    assume(question.as_of is not None)
    known = [
        replace(source, frame=source.frame.filter(counted_until(source) <= question.as_of))
        for source in question.sources
    ]
    assert_same_bits(join(question, engine), join(replace(question, sources=known), engine))


@given(sources(kind="measurement", keys="text"), st.data())
def test_every_answer_was_available(source, data):
    """Whatever `latest` answers is the value of a row that had arrived."""
    source = replace(
        source, features=(al.latest("n", name="picked"), al.arrival_age()), max_arrival_age=None, max_event_age=None
    )
    spine = data.draw(spines(instants=PLAIN, keys=KEYS["text"]))
    joined = al.point_in_time_join(spine, [view_of(source)])
    for row in joined.iter_rows(named=True):
        age = row[f"{source.name}__arrival_age"]
        if age is None:
            assert row[f"{source.name}__picked"] is None
            continue
        assert age >= timedelta(0)
        mine = source.frame.filter(
            *(pl.col(name).eq_missing(pl.lit(row[name], source.frame.schema[name])) for name in source.entities)
        )
        known = mine.filter(counted_until(source) <= row["prediction_time"])
        assert row[f"{source.name}__picked"] in known["n"].to_list()
        assert row["prediction_time"] - age in known.select(counted_until(source)).to_series().to_list()


# --- the spine ------------------------------------------------------------------------------------------------------


@engines
@given(questions(views=2))
def test_the_spine_comes_back_with_its_rows_order_and_columns(engine, question):
    joined = join(question, engine)
    assert_frame_equal(joined.select(question.spine.columns), question.spine)
    assert joined.columns[: question.spine.width] == question.spine.columns


@engines
@given(questions(), st.randoms(use_true_random=False))
def test_the_order_of_the_spine_decides_nothing_but_the_order_of_the_answers(engine, question, random):
    order = list(range(question.spine.height))
    random.shuffle(order)
    shuffled = replace(question, spine=question.spine[order])
    assert_same_bits(join(question, engine)[order], join(shuffled, engine))


@engines
@given(questions())
def test_one_row_alone_gets_the_answer_it_gets_among_others(engine, question):
    whole = join(question, engine)
    for place in range(min(question.spine.height, 3)):
        alone = join(replace(question, spine=question.spine[place : place + 1]), engine)
        assert_same_bits(alone, whole[place : place + 1])


# --- the observations -----------------------------------------------------------------------------------------------


@engines
@given(questions(), st.randoms(use_true_random=False))
def test_the_order_of_the_observations_is_irrelevant(engine, question, random):
    assume(all(source.on_tie == "error" for source in question.sources))
    shuffled = []
    for source in question.sources:
        order = list(range(source.frame.height))
        random.shuffle(order)
        shuffled.append(replace(source, frame=source.frame[order]))
    assert_same_bits(join(question, engine), join(replace(question, sources=shuffled), engine))


@engines
@given(questions())
def test_one_entity_cannot_touch_another(engine, question):
    source = question.sources[0]
    assume(source.entities and not source.entity_map)
    asked = question.spine.drop_nulls(list(source.entities))
    assume(asked.height)
    key = asked.row(0, named=True)
    mine = [pl.col(name).eq_missing(pl.lit(key[name], asked.schema[name])) for name in source.entities]
    one = Question([replace(source, frame=source.frame.filter(*mine))], asked.filter(*mine), question.as_of)
    assert_same_bits(join(replace(question, spine=one.spine), engine), join(one, engine))


@engines
@given(questions(), st.integers(2, 3))
def test_rows_in_several_chunks_are_the_rows(engine, question, parts):
    chunked = []
    for source in question.sources:
        frame, size = source.frame, max(1, source.frame.height // parts)
        pieces = [frame[start : start + size] for start in range(0, max(frame.height, 1), size)]
        chunked.append(replace(source, frame=pl.concat(pieces, rechunk=False)))
    assert_same_bits(join(question, engine), join(replace(question, sources=chunked), engine))


@given(questions(views=2))
def test_one_thread_and_two_give_the_same_bits(question):
    assert_same_bits(join(question, threads=1), join(question, threads=2))


@engines
@given(questions(views=3, max_rows=8))
def test_views_joined_together_are_the_views_joined_alone_side_by_side(engine, question):
    together = join(question, engine)
    alone = [join(replace(question, sources=[source]), engine) for source in question.sources]
    width = question.spine.width
    side_by_side = pl.concat([question.spine, *(frame[:, width:-1] for frame in alone)], how="horizontal")
    assert_same_bits(together.drop("provisional"), side_by_side)


@given(questions())
def test_features_asked_together_are_the_features_asked_alone(question):
    together = join(question)
    source = question.sources[0]
    for feature in flat(source.features):
        alone = join(replace(question, sources=[replace(source, features=(feature,))]))
        assert_same_bits(alone.drop("provisional"), together.select(alone.columns[:-1]))


@given(questions())
def test_status_changes_no_value(question):
    views = [view_of(source) for source in question.sources]
    bare = al.point_in_time_join(question.spine, views, as_of=question.as_of)
    assert bare.columns == [*question.spine.columns, *feature_columns(question)]
    assert_same_bits(bare, join(question).select(bare.columns))


@given(questions(kind="measurement"))
def test_a_log_sequence_in_the_order_of_arrival_changes_nothing(question):
    source = question.sources[0]
    assume("log_sequence" not in source.frame.columns and source.on_tie == "error" and source.key is None)
    ordered = source.frame.sort("arrival_time", maintain_order=True).with_columns(
        log_sequence=pl.int_range(pl.len(), dtype=pl.Int64)
    )
    assert_same_bits(join(question), join(replace(question, sources=[replace(source, frame=ordered)])))


# --- snapshot and join tell the same story --------------------------------------------------------------------------


@given(sources(keys="text"), st.data())
def test_latest_is_the_newest_past_event_of_the_snapshot(source, data):
    source = replace(
        source, features=(al.latest("n"),), max_event_age=None, max_arrival_age=None, max_issue_age=None, zone=None
    )
    spine = data.draw(
        spines(instants=sorted(set(source.frame["arrival_time"].drop_nulls())) or PLAIN, keys=KEYS["text"])
    )
    joined = al.point_in_time_join(spine, [view_of(source)])
    observations = view_of(source).observations
    for row in joined.iter_rows(named=True):
        known = al.snapshot(observations, row["prediction_time"])
        mine = known.filter(
            pl.col("station") == pl.lit(row["station"], pl.String), pl.col("event_time") <= row["prediction_time"]
        )
        if source.key and mine.height:  # events of one instant: the join's order of R4 is finer than a sort by event
            mine = mine.filter(pl.col("event_time") == pl.col("event_time").max())
            assert row[f"{source.name}__n"] in mine["n"].to_list()
        elif mine.height:
            assert row[f"{source.name}__n"] == mine.sort("event_time")["n"][-1]
        else:
            assert row[f"{source.name}__n"] is None
