"""The naive side of the leak report against plain loops: today's table, visible from its events on."""

from __future__ import annotations

import oracle
from compare import differences
from hypothesis import given, reject
from oracle_clock import micros_of
from oracle_frames import Source, flat, rows_of, spec_of, view_of
from strategies import Question, questions

import alignment as al
from alignment.errors import AmbiguousRevisionsError
from alignment.naive import naive_view

LAST = 4_102_444_800_000_000  # the year 2100


def present(rows: list[oracle.Row], kind: str) -> list[oracle.Row]:
    """The last row of every key, in order of arrival, unless it is withdrawn; of forecasts all issues."""
    last: dict[object, oracle.Row] = {}
    order = sorted(rows, key=lambda row: (*oracle.revision_order(row), row["id"] or ()))
    for rank, row in enumerate(order):
        key = (row["entity"], oracle.subject(row), row["issue"])
        if not row["gone"]:
            visible = row["issue"] if kind == "forecast" else row["event"]
            last[key] = {**row, "arrival": visible, "given": visible, "sequence": rank, "place": 0}
        elif kind == "forecast" and row["issue"] is None:
            last = {known: kept for known, kept in last.items() if known[:2] != key[:2]}
        else:
            last.pop(key, None)
    return list(last.values())


def expected(question: Question, source: Source, as_of: int) -> dict[str, list[oracle.Answer]]:
    rows = present([row for row in rows_of(source) if row["arrival"] <= as_of], source.kind)
    back = {own: theirs for theirs, own in source.entity_map.items()}
    found: dict[str, list[oracle.Answer]] = {}
    for feature in flat(source.features):
        spec = spec_of(feature, source)
        column = found.setdefault(spec.name, [])
        for key in question.spine.to_dicts():
            entity = tuple(key[back.get(name, name)] for name in source.entities)
            mine = [] if None in entity else rows
            column.append(oracle.answer(mine, source.view, spec, entity, micros_of(key["prediction_time"])))
    return found


def naive_equals_loops(question: Question) -> None:
    as_of = LAST if question.as_of is None else micros_of(question.as_of)
    for source in question.sources:
        try:
            view = naive_view(view_of(source), as_of)
        except (
            AmbiguousRevisionsError
        ):  # two drawn entities without entity columns are one series, and may contradict each other
            reject()
        joined = al.point_in_time_join(question.spine, view)
        wrong = differences(joined, expected(question, source, as_of), status=False)
        assert not wrong, "\n".join(wrong[:10])


@given(questions(kind="measurement"))
def test_measurements_are_there_from_their_event_on_in_their_last_revision(question):
    naive_equals_loops(question)


@given(questions(kind="forecast"))
def test_forecasts_are_there_from_their_issue_on_and_older_issues_too(question):
    naive_equals_loops(question)
