"""The online evaluator against the join: the same rows, a few entities, one instant; rows in batches, trimmed in between."""

from __future__ import annotations

from datetime import datetime

import polars as pl
from fakes import FrameLog
from hypothesis import given
from hypothesis import strategies as st
from oracle_frames import Source, view_of
from strategies import Question, questions

import alignment as al
from alignment.durations import instant_us
from alignment.online import CompiledView, Evaluation, RowStore
from alignment.rows import ARRIVAL_KIND, ORDER, canonical, check_rows


def sequenced(source: Source) -> pl.DataFrame:
    if "log_sequence" in source.frame.columns:
        return source.frame.sort("log_sequence")
    return source.frame.with_columns(log_sequence=pl.int_range(3, 3 + 2 * source.frame.height, 2, dtype=pl.Int64))


def log_of(source: Source, frame: pl.DataFrame) -> FrameLog:
    return FrameLog(frame, source.name, list(source.entities), source.kind, list(source.key) if source.key else None)


def rows_between(compiled: CompiledView, after: int | None, position: int) -> pl.DataFrame:
    found = canonical(compiled.view.observations, compiled.columns, position=position, after=after)
    return check_rows(compiled.view.observations, found.drop(ARRIVAL_KIND, strict=False).collect())[0].sort(ORDER)


def compare(store: RowStore, compiled: CompiledView, spine: pl.DataFrame, position: int, oldest: int | None) -> None:
    """Answers of the store at every instant of the spine that may be asked at, against the join at that position."""
    view = compiled.view
    joined = al.point_in_time_join(spine, [view], status=True, positions=position)
    for (t,), part in joined.group_by("prediction_time", maintain_order=True):
        assert isinstance(t, datetime)
        moment = instant_us(t, "t")
        if oldest is not None and moment < oldest:
            continue
        entities = part.select(view.spine_entities)
        keys = entities.to_series().to_list() if entities.width == 1 else entities.rows() or [()] * part.height
        numbers = [store.number_of(key) for key in keys]
        evaluation = Evaluation(compiled, store, numbers, moment, {})
        found = evaluation.run()
        for place in evaluation.too_deep:
            whole = rows_between(compiled, None, position)
            names = view.observations.entities
            same = [pl.col(n).eq(pl.lit(entities[s][place])) for n, s in zip(names, entities.columns, strict=True)]
            store.restore(whole.filter(*same) if same else whole, numbers[place])
        if evaluation.too_deep:
            again = Evaluation(compiled, store, numbers, moment, {})
            found = again.run()
            assert not again.too_deep
        for feature in view.features:
            name = view.column_name(feature)
            values = pl.Series(name, found[feature.name].values, dtype=compiled.dtypes[feature.name])
            assert values.dtype == part[name].dtype
            assert repr(values.to_list()) == repr(part[name].to_list()), name  # bit for bit: repr tells -0.0 and NaN
            assert found[feature.name].status == part[f"{name}__status"].to_list(), name


def check(question: Question, cuts: list[int], keep: int | None) -> None:
    source = question.sources[0]
    frame = sequenced(source)
    compiled = CompiledView(view_of(source, log_of(source, frame)))
    spine = question.spine
    instants = sorted(instant_us(t, "t") for t in spine["prediction_time"].unique())
    positions = sorted({*(cut for cut in cuts if cut < 2 * frame.height + 3), 2 * frame.height + 3})
    store = RowStore(compiled, rows_between(compiled, None, positions[0]))
    oldest = None
    before = positions[0]
    for step, position in enumerate(positions):
        if position > before:
            store.switch(store.take_in(rows_between(compiled, before, position)))
        before = position
        if keep is not None:
            oldest = instants[min(step, len(instants) - 1)]
            store = store.trimmed(oldest=oldest, keep_events=keep)
        compare(store, compiled, spine, position, oldest)


@given(questions(kind="measurement"), st.lists(st.integers(2, 40), max_size=3))
def test_rows_taken_in_by_batches_give_the_measurements_of_the_join_at_each_position(question, cuts):
    check(question, cuts, None)


@given(questions(kind="forecast"), st.lists(st.integers(2, 40), max_size=3))
def test_rows_taken_in_by_batches_give_the_forecasts_of_the_join_at_each_position(question, cuts):
    check(question, cuts, None)


@given(questions(), st.lists(st.integers(2, 40), max_size=3), st.integers(1, 3))
def test_trimmed_rows_are_never_missed(question, cuts, keep):
    check(question, cuts, keep)


@given(questions(), st.lists(st.tuples(st.integers(0, 17), st.integers(1, 90)), min_size=1, max_size=3))
def test_rows_that_get_a_later_arrival_count_from_it(question, late):
    source = question.sources[0]
    frame = sequenced(source)
    log = log_of(source, frame)
    compiled = CompiledView(view_of(source, log))
    end = 2 * frame.height + 3
    store = RowStore(compiled, rows_between(compiled, None, end))
    moved = {place: minutes for place, minutes in late if place < frame.height}
    later = pl.Series([moved.get(place, 0) for place in range(frame.height)], dtype=pl.Int64)
    log.frame = frame.with_columns(pl.col("arrival_time") + pl.duration(minutes=later))
    if source.kind == "forecast" and "issue_time" not in frame.columns:
        return  # each arrival is its own issue there: the rows would be others
    again = rows_between(compiled, None, end)
    chosen = again.filter(pl.Series([place in moved for place in range(frame.height)], dtype=pl.Boolean))
    store.restamp(chosen[ORDER].to_numpy(), chosen["@arrival"].to_numpy())
    compare(store, compiled, question.spine, end, None)
