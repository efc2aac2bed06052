"""Explanations of drawn questions: what they call used is what the value is made of, and the rest has its true reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import oracle
import polars as pl
from compare import same
from fakes import FrameLog
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from oracle_clock import micros_of
from oracle_frames import Source, flat, rows_of, spec_of, view_of
from strategies import Question, questions

import alignment as al
from alignment.errors import AmbiguousRevisionsError
from alignment.naive import naive_view

SOME = settings(max_examples=max(1, settings().max_examples // 3))
SPINE_ROWS = 2
WHEN_ARRIVED = ("not_arrived", "after_as_of")
FOR_STATUS = ("retraction", "retracted", "null_skipped", "expired")
"""Reasons of rows that make no value but say why there is none (R20)."""


def explained(question: Question, source: Source, place: int, position: int | None = None) -> Any:
    """The explanation of one spine row, and the entity that it is about."""
    key = question.spine.row(place, named=True)
    view = view_of(source) if position is None else view_of(source, logged(source))
    entity = {name: key[name] for name in view.spine_entities}
    found = al.explain(view, entity, key["prediction_time"], as_of=question.as_of, position=position)
    return found, key


def logged(source: Source) -> FrameLog:
    return FrameLog(source.frame, source.name, list(source.entities), source.kind, list(source.key or []) or None)


def joined(question: Question, view: al.FeatureView, place: int, position: int | None = None) -> pl.DataFrame:
    return al.point_in_time_join(
        question.spine[place : place + 1], view, as_of=question.as_of, status=True, positions=position, threads=1
    )


def rows_of_entity(source: Source, key: dict[str, Any]) -> pl.DataFrame:
    mine = source.frame.with_row_index("@row")
    for asked, name in zip(view_of(source).spine_entities, source.entities, strict=True):
        mine = mine.filter(pl.col(name) == pl.lit(key[asked], source.frame.schema[name]))
    return mine


def same_value(column: pl.Series, value: Any) -> bool:
    """Whether the column's one value has the bits of an explanation's."""
    return same(listed(column[0]), listed(value))


def listed(value: Any) -> Any:
    return [listed(item) for item in value] if isinstance(value, pl.Series | list) else value


def frame_rows(source: Source, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of the source's own frame that an explanation names."""
    if "log_sequence" in source.frame.columns and rows["log_sequence"].null_count() == 0 and rows.height:
        named = rows["row"].sort() if rows["row"].equals(rows["log_sequence"]) else None
        if named is not None and named.is_in(source.frame["log_sequence"].to_list()).all():
            return source.frame.filter(pl.col("log_sequence").is_in(named.to_list()))
    return source.frame[rows["row"].sort()]


def each(question: Question, position: int | None = None) -> Any:
    """Each explained feature of the first spine rows: the source, its declaration, the row's place and key, what was found."""
    for source in question.sources:
        for place in range(min(SPINE_ROWS, question.spine.height)):
            try:
                found, key = explained(question, source, place, position)
            except AmbiguousRevisionsError:  # two drawn entities without entity columns are one series
                reject()
            for feature, one in zip(flat(source.features), found.features, strict=True):
                yield source, feature, place, key, one


@SOME
@given(questions())
def test_values_and_statuses_are_those_of_the_join(question):
    for source, _, place, _, one in each(question):
        answer = joined(question, view_of(source), place)
        assert same_value(answer[one.feature], one.value)
        assert answer[f"{one.feature}__status"][0] == one.status


@SOME
@given(questions())
def test_the_used_rows_alone_give_the_same_value(question):
    for source, feature, place, _, one in each(question):
        only = replace(source, frame=frame_rows(source, one.used), features=(feature,))
        assert same_value(joined(question, view_of(only), place)[one.feature], one.value)


@SOME
@given(questions())
def test_with_what_was_taken_away_they_give_the_same_status(question):
    for source, feature, place, _, one in each(question):
        told = one.unused.filter(pl.col("reason").is_in(FOR_STATUS))
        rows = pl.concat([one.used.select("row", "log_sequence"), told.select("row", "log_sequence")])
        only = replace(source, frame=frame_rows(source, rows), features=(feature,))
        answer = joined(question, view_of(only), place)
        assert same_value(answer[one.feature], one.value)
        assert answer[f"{one.feature}__status"][0] == one.status


@SOME
@given(questions())
def test_the_used_rows_are_those_that_plain_loops_use(question):
    for source, feature, _, key, one in each(question):
        rows = [one_row(source, place) for place in one.used["row"]]
        assert sorted(map(identity, rows)) == sorted(loops_use(source, feature, key, question.as_of))


def one_row(source: Source, place: int) -> oracle.Row:
    (row,) = rows_of(replace(source, frame=source.frame[place : place + 1]))
    return row


def identity(row: oracle.Row) -> str:
    return repr({name: value for name, value in row.items() if name != "place"})


def loops_use(source: Source, feature: Any, key: dict[str, Any], as_of: datetime | None) -> list[str]:
    """What the oracle picks, asked by giving every row its own name as its value."""
    spec = spec_of(feature, source)
    column = spec.column or "x"
    if spec.what.endswith("_age"):
        spec = oracle.Feature("latest", name=spec.name, column=column)
    keeps_null = not (spec.skip_null or spec.what == "window")
    named = [
        {**row, "values": {column: identity(row) if keeps_null or row["values"][column] is not None else None}}
        for row in rows_of(source)
    ]
    back = {own: theirs for theirs, own in source.entity_map.items()}
    entity = tuple(key[back.get(name, name)] for name in source.entities)
    if None in entity:
        return []
    t, limit = micros_of(key["prediction_time"]), None if as_of is None else micros_of(as_of)
    if spec.what == "window":
        known = oracle.counting([row for row in named if row["entity"] == entity], t, limit)
        low, high = oracle.window_range(source.view, spec, t)
        inside = oracle.between(oracle.current(known, source.kind)[0], low, high, low_counts=False)
        return oracle.window_values(inside, spec)[1]
    found = oracle.answer(named, source.view, spec, entity, t, as_of=limit).value
    return [name for name in (found if isinstance(found, list) else [found]) if name is not None]


@SOME
@given(questions())
def test_every_row_of_the_entity_is_told_once(question):
    for source, _, _, key, one in each(question):
        mine = rows_of_entity(source, key)
        told = [*one.used["row"], *one.unused["row"]]
        assert sorted(told) == mine["@row"].to_list()
        assert sum(one.unused_counts.values()) + one.used.height == mine.height
        shown = one.to_dict(unused=1)
        assert shown["unused_counts"] == one.unused_counts
        assert [row["reason"] for row in shown["unused"]] == list(
            one.unused_counts
        )  # one of each, in the order of reasons
        assert len(one.to_dict(unused=None)["unused"]) == one.unused.height


@SOME
@given(questions())
def test_only_rows_that_arrived_later_are_told_to_have(question):
    for _, _, _, _, one in each(question):
        limit = one.t if one.as_of is None else min(one.t, one.as_of)
        late = pl.col("reason").is_in(WHEN_ARRIVED)
        unused = one.unused
        assert (unused.filter(late)["arrival_time"] > limit).all()
        assert (unused.filter(~late)["arrival_time"] <= limit).all()
        assert (one.used["arrival_time"] <= limit).all()
        assert (unused.filter(pl.col("reason") == "not_arrived")["arrival_time"] > one.t).all()
        assert (unused.filter(pl.col("reason") == "after_as_of")["arrival_time"] <= one.t).all()


@SOME
@given(questions())
def test_what_took_a_rows_part_had_arrived_and_is_of_the_same_event_or_id(question):
    for source, _, _, _, one in each(question):
        limit = one.t if one.as_of is None else min(one.t, one.as_of)
        rows = {row["row"]: row for row in one.rows.to_dicts()}
        for row in one.unused.to_dicts():
            if row["by"] is None:
                assert row["reason"] not in ("superseded", "retracted", "older_issue", "older_event")
                continue
            other, one_of, two_of = rows[row["by"]], one_row(source, row["row"]), one_row(source, row["by"])
            assert other["arrival_time"] <= limit
            assert other["row"] != row["row"]
            if row["reason"] == "superseded":
                assert oracle.subject(one_of) == oracle.subject(two_of)
                assert one_of["issue"] == two_of["issue"]
                assert not two_of["gone"]
                assert other["revision"] > row["revision"]
            elif row["reason"] == "retracted":
                assert oracle.subject(one_of) == oracle.subject(two_of)
                assert two_of["gone"]
                assert two_of["issue"] in (None, one_of["issue"])
                assert other["arrival_time"] >= row["arrival_time"]
            elif row["reason"] == "older_issue":
                assert one_of["event"] == two_of["event"]
                assert one_of["issue"] < two_of["issue"]
            else:
                assert row["reason"] == "older_event"
                assert oracle.event_order(one_of) <= oracle.event_order(two_of)
                assert row["by"] in one.used["row"] or one.status == "expired"


@SOME
@given(questions(), st.integers(-1, 40))
def test_a_log_is_explained_at_its_position(question, position):
    logs = [source for source in question.sources if "log_sequence" in source.frame.columns]
    for source, feature, place, key, one in each(replace(question, sources=logs), position):
        answer = joined(question, view_of(source, logged(source)), place, position)
        assert same_value(answer[one.feature], one.value)
        assert answer[f"{one.feature}__status"][0] == one.status
        assert one.rows["row"].equals(one.rows["log_sequence"], null_equal=True)
        assert one.rows["row"].sort().equals(rows_of_entity(source, key)["log_sequence"].sort())
        beyond = one.unused.filter(pl.col("reason") == "beyond_position")
        assert (beyond["log_sequence"] > position).all()
        known = one.unused.filter(~pl.col("reason").is_in(["beyond_position", *WHEN_ARRIVED]))
        assert (known["log_sequence"] <= position).all()
        assert (one.used["log_sequence"] <= position).all()
        only = replace(source, frame=frame_rows(source, one.used), features=(feature,))
        assert same_value(joined(question, view_of(only), place)[one.feature], one.value)


@SOME
@given(questions())
def test_naive_is_the_naive_join_from_the_rows_it_names(question):
    for source, feature, place, _, one in each(question):
        lenient = replace(source, on_tie="last", features=(feature,))
        read_at, asked = micros_of(one.naive.read_at or one.t), question.spine[place : place + 1]
        whole = al.point_in_time_join(asked, naive_view(view_of(lenient), read_at, threads=1), status=True, threads=1)
        assert same_value(whole[one.feature], one.naive.value)
        assert whole[f"{one.feature}__status"][0] == one.naive.status
        only = replace(lenient, frame=frame_rows(source, one.naive.rows))
        alone = al.point_in_time_join(asked, naive_view(view_of(only), read_at, threads=1), threads=1)
        assert same_value(alone[one.feature], one.naive.value)


@SOME
@given(questions(), st.sampled_from([timedelta(minutes=10), timedelta(hours=1)]), st.booleans())
def test_views_with_moved_arrivals_are_explained_as_they_are_joined(question, length, lost):
    start = datetime(2026, 1, 5, 10, 20, tzinfo=UTC)
    for source in question.sources:
        outage = al.Outage(source.name, start, start + length, lost=lost)
        try:
            (view,) = al.transform_arrivals(view_of(source), outages=[outage])
            for place in range(min(SPINE_ROWS, question.spine.height)):
                key = question.spine.row(place, named=True)
                entity = {name: key[name] for name in view.spine_entities}
                found = al.explain(view, entity, key["prediction_time"], as_of=question.as_of)
                answer = joined(question, view, place)
                for one in found.features:
                    assert same_value(answer[one.feature], one.value)
                    moved = one.rows.filter(pl.col("arrival_kind") == "modelled")
                    assert (moved["arrival_time"] >= start + length).all()
        except AmbiguousRevisionsError:
            reject()
