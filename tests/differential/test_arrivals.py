"""Moved arrivals (R23): against plain loops, and replay, join and online state against each other, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import oracle
import polars as pl
from compare import check
from fakes import FrameLog
from hypothesis import given
from hypothesis import strategies as st
from oracle_arrivals import moved
from oracle_frames import Source, view_of
from strategies import KEYS, MICROSECOND, Question, questions

import alignment as al
from alignment.durations import instant_us
from alignment.online import CompiledView, Evaluation, RowStore
from alignment.rows import ARRIVAL_KIND, ORDER, canonical, check_rows

MINUTE_US = 60_000_000
RULES: dict[str, tuple[al.DelayRule, Any]] = {
    "fixed": (
        al.FixedDelay("25m"),
        lambda row: (row["event"] if row["issue"] is None else row["issue"]) + 25 * MINUTE_US,
    ),
    "later": (al.ShiftedDelay("15m"), lambda row: row["arrival"] + 15 * MINUTE_US),
    "earlier": (al.ShiftedDelay("-30m"), lambda row: row["arrival"] - 30 * MINUTE_US),
}


@st.composite
def moves(draw: st.DrawFn, question: Question) -> tuple[list[al.Outage], str | None]:
    """Outages that begin and end at arrivals of the question's first view, or next to them, and perhaps a rule."""
    source = question.sources[0]
    instants = source.frame["arrival_time"].unique().sort().to_list() or [question.spine["prediction_time"][0]]
    keys = next(keys for keys in KEYS.values() if tuple(name for name, _, _ in keys) == source.entities)
    place = st.integers(0, len(instants) - 1)
    shift = st.sampled_from([timedelta(0), timedelta(0), MICROSECOND, -MICROSECOND])
    kind = st.sampled_from(["catch up", "catch up", "lost", "slow", "half as slow"])
    outages = []
    for one, other, before, after, how, partial in draw(
        st.lists(st.tuples(place, place, shift, shift, kind, st.integers(0, 2)), min_size=1, max_size=4)
    ):
        start, end = instants[min(one, other)] + before, instants[max(one, other)] + after
        entities: Any = [tuple(values[0] for _, _, values in keys)] if partial == 0 and keys else None
        slow = {"slow": 3.0, "half as slow": 1.5}.get(how)
        end = end if end > start else start + timedelta(minutes=20)
        outages.append(al.Outage(source.name, start, end, lost=how == "lost", slow=slow, entities=entities))
    return outages, draw(st.sampled_from([None, None, *RULES]))


asked = questions().flatmap(lambda question: st.tuples(st.just(question), moves(question)))


def transformed(view: al.FeatureView, outages: list[al.Outage], rule: str | None) -> al.FeatureView:
    delays = None if rule is None else {view.name: RULES[rule][0]}
    return al.transform_arrivals(view, outages=outages, delays=delays)[0]


def mover(outages: list[al.Outage], rule: str | None) -> Any:
    def move(rows: list[oracle.Row], source: Source) -> list[oracle.Row]:
        sequenced = "log_sequence" in source.frame.columns
        function = None if rule is None else RULES[rule][1]
        return moved(rows, source.kind, outages, function, sequenced=sequenced)

    return move


@given(asked)
def test_a_join_over_moved_rows_answers_as_the_oracle_does(drawn):
    question, (outages, rule) = drawn
    source = question.sources[0]
    view = transformed(view_of(source), outages, rule)
    joined = al.point_in_time_join(question.spine, [view], as_of=question.as_of, status=True)
    check(joined, question.spine, [source], as_of=question.as_of, move=mover(outages, rule))


def logged(source: Source) -> tuple[Source, FrameLog]:
    """A source as a log: its rows numbered in their order, where they are not."""
    frame = source.frame
    if "log_sequence" not in frame.columns:
        frame = frame.with_columns(log_sequence=pl.int_range(3, 3 + 2 * frame.height, 2, dtype=pl.Int64))
    source = replace(source, frame=frame, on_tie="error")
    key = list(source.key) if source.key else None
    return source, FrameLog(frame, source.name, list(source.entities), source.kind, key)


@given(asked)
def test_a_log_whose_rows_are_moved_answers_as_the_oracle_does(drawn):
    question, (outages, rule) = drawn
    source, log = logged(question.sources[0])
    view = transformed(view_of(source, log), outages, rule)
    joined = al.point_in_time_join(question.spine, [view], as_of=question.as_of, status=True)
    check(joined.drop("provisional"), question.spine, [source], as_of=question.as_of, move=mover(outages, rule))


@given(asked)
def test_sql_answers_over_moved_rows_as_the_oracle_does(drawn):
    question, (outages, rule) = drawn
    source, log = logged(question.sources[0])
    plain = transformed(view_of(source, log), [], None)
    view = transformed(plain, outages, rule)
    joined = al.point_in_time_join(question.spine, [view], as_of=question.as_of, status=True, engine="duckdb")
    kernel = al.point_in_time_join(question.spine, [view], as_of=question.as_of, status=True)
    names = [name for name in joined.columns if name.endswith(("__status", "_age"))]
    assert joined.select(names).equals(kernel.select(names))


FITTED = al.EmpiricalDelay(
    provider="weather",
    travels="event",
    origins_ms=tuple(range(0, 86_400_000, 1_800_000)),
    delays_ms=tuple(60_000 * (7 * place % 50) for place in range(48)),
    stretch_ms=(0, 2 * 86_400_000),
)


@given(asked, st.sampled_from(["10m", "30m", "1h"]), st.integers(1, 40), st.booleans(), st.integers(0, 3))
def test_replay_join_and_online_state_agree_bit_for_bit(drawn, every, batch_rows, as_log, seed):
    question, (outages, rule) = drawn
    source, log = logged(question.sources[0])
    view = view_of(source, log) if as_log else view_of(source)
    instants = sorted(question.spine["prediction_time"].unique())
    start, end = instants[0], min(instants[-1], instants[0] + timedelta(hours=4)) + MICROSECOND
    entities = question.spine.select(view.spine_entities).unique(maintain_order=True)
    arguments: dict[str, Any] = {"as_of": question.as_of, "outages": outages}
    fitted = {view.name: replace(FITTED, seed=seed)} if seed else None
    arguments["delays"] = fitted if rule is None else {view.name: RULES[rule][0]}
    replayed = list(al.replay_batches([view], entities, start, end, every, batch_rows=batch_rows, **arguments))
    whole = pl.concat(replayed)
    assert whole.equals(al.replay([view], entities, start, end, every, **arguments))

    spine = al.make_spine(entities, start, end, every)
    other = al.transform_arrivals(view, outages=outages, delays=arguments["delays"])[0]
    joined = al.point_in_time_join(spine, [other], as_of=question.as_of, status=True)
    assert repr(whole.select(joined.columns).rows()) == repr(joined.rows())

    if as_log and question.as_of is None:
        online_agrees(other, whole, log.position())


def online_agrees(view: al.FeatureView, replayed: pl.DataFrame, position: int) -> None:
    """What the online state returns at each tick, from the same rows."""
    compiled = CompiledView(view)
    found = canonical(compiled.view.observations, compiled.columns, position=position)
    rows = check_rows(compiled.view.observations, found.drop(ARRIVAL_KIND, strict=False).collect())[0].sort(ORDER)
    store = RowStore(compiled, rows)
    for (t,), part in replayed.group_by("prediction_time", maintain_order=True):
        entities = part.select(view.spine_entities)
        keys = entities.to_series().to_list() if entities.width == 1 else entities.rows() or [()] * part.height
        numbers = [store.number_of(key) for key in keys]
        answers = Evaluation(compiled, store, numbers, instant_us(t, "t"), {}).run()
        for feature in view.features:
            name = view.column_name(feature)
            values = pl.Series(name, answers[feature.name].values, dtype=compiled.dtypes[feature.name])
            assert repr(values.to_list()) == repr(part[name].to_list()), name
            assert answers[feature.name].status == part[f"{name}__status"].to_list(), name


@given(asked)
def test_outages_move_no_row_earlier_and_keep_revisions_in_order(drawn):
    question, (outages, _) = drawn
    source, log = logged(question.sources[0])
    view = transformed(view_of(source, log), outages, None)
    moved_rows = view.observations.lazy().collect()
    both = log.frame.join(moved_rows.select("log_sequence", new="arrival_time"), on="log_sequence")
    assert (both["new"] >= both["arrival_time"]).all()
    if source.kind == "forecast":
        return  # the issue decides there, and rows of one issue are compared with the oracle above
    both = both.with_columns(counts_from=pl.max_horizontal("arrival_time", "event_time"))
    for _, rows in both.group_by(*source.entities, *(source.key or ["event_time"])):
        before, after = (rows.sort(instant, "log_sequence")["log_sequence"] for instant in ("counts_from", "new"))
        assert before.to_list() == after.to_list()


@given(asked, st.randoms(use_true_random=False))
def test_where_a_row_stands_does_not_matter_to_its_arrival(drawn, random):
    question, (outages, rule) = drawn
    source, log = logged(question.sources[0])
    order = list(range(log.frame.height))
    random.shuffle(order)
    shuffled = FrameLog(log.frame[order], log.provider, log.entities, log.kind, log.key)
    one, other = (
        transformed(view_of(source, rows), outages, rule).observations.lazy().collect().sort("log_sequence")
        for rows in (log, shuffled)
    )
    assert one.equals(other)
