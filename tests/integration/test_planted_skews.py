"""Kinds of skew that real servers have, planted one by one: the audit catches each, and finds nothing where there is none."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import alignment as al
from alignment.rows import ARRIVAL, EVENT, ORDER, RETRACTION
from ingestion import ObservationLog, create_log
from serving.cli import run
from serving.online import Answer, AnsweredColumn, FeatureServer, OnlineSettings
from serving.online.local import LocalBackend
from serving.served import AuditReport, ServedLog, audit

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
LOST, LATE, NEW, CORRECTIONS = 5, 32, 33, [34, 35]  # log sequences, see `batches`
TICKS = [*range(1, 120, 7), *range(120, 136), 144, 155, 160]

RowFault = Callable[[pl.DataFrame], pl.DataFrame]
AnswerFault = Callable[[Answer], Answer]
ViewFault = Callable[[ObservationLog], al.FeatureView]


def view_of(log: ObservationLog, *, length: str = "1h", max_event_age: str | None = "25m") -> al.FeatureView:
    features = [
        al.latest("temp"),
        al.latest("code"),
        al.window("temp", "sum", length, name="sum"),
        al.window("temp", "count", length, name="count"),
        al.sequence("temp", 3),
        al.event_age(),
    ]
    return al.FeatureView("weather", observations=log, features=features, max_event_age=max_event_age)


def rows(*cells: tuple[str, float, float, float | None], gone: bool = False) -> pl.DataFrame:
    """Rows of (station, event, arrival, temp); instants in minutes after the start."""
    return pl.DataFrame(
        {
            "station": [cell[0] for cell in cells],
            "event_time": [START + timedelta(minutes=cell[1]) for cell in cells],
            "arrival_time": [START + timedelta(minutes=cell[2]) for cell in cells],
            "temp": pl.Series([cell[3] for cell in cells], dtype=pl.Float64),
            "code": [None if gone else f"code-{cell[1]}" for cell in cells],
            "is_retraction": [gone] * len(cells),
        }
    )


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def batches() -> Iterator[pl.DataFrame]:
    """What arrives, in the order of arrival: two stations every ten minutes, and then what usually goes wrong."""
    for place in range(12):  # log sequences 0 to 23
        minute = 10.0 * place
        yield rows(
            ("a", minute, minute + 1, 0.1 * place + 1 / 3), ("b", minute, minute + 1, -0.0 if place % 2 else 7.25)
        )
    yield rows(("a", 115, 122, float("nan")), ("b", 115, 122, None))  # 24, 25
    yield rows(("a", 119, 123, 4.0), ("b", 119, 123, 16777217.0), ("c", 119, 123, 1.0))  # 26, 27, 28
    yield rows(("a", 119, 125, None), ("b", 119, 125, None), ("c", 119, 125, None), gone=True)  # 29, 30, 31
    yield rows(("b", 95, 127, 50.0))  # 32: late
    yield rows(("b", 120, 128, 1.0))  # 33
    yield rows(("b", 110, 129, 2.0), ("b", 120, 129, -3.0))  # 34, 35: corrections
    yield rows(("a", 131, 132, 8.0))  # 36; then nothing of b, which expires


def serve(
    root: Path,
    *,
    row_fault: RowFault | None = None,
    answer_fault: AnswerFault | None = None,
    view_fault: ViewFault | None = None,
) -> None:
    """A server follows the log and answers every minute; what it answers is kept."""
    clock = Clock()
    log = create_log(root, "weather", entities=["station"], publish_margin="1m", clock=clock)
    pending = list(batches())
    log.append(pending.pop(0).drop("arrival_time"))
    declared = view_of(log)
    view = declared if view_fault is None else view_fault(log)
    settings = OnlineSettings(clock_allowance="0s")
    server = FeatureServer([view], settings=settings, clock=clock, backend=Faulty(row_fault))
    with ServedLog(root, [declared], replica="one", clock=clock) as served:
        for minute in TICKS:
            while pending and pending[0]["arrival_time"].max() <= START + timedelta(minutes=minute + 1):
                clock.now = pending[0]["arrival_time"].max() - timedelta(minutes=1)  # a minute before it is visible
                log.append(pending.pop(0).drop("arrival_time"))
            clock.now = START + timedelta(minutes=minute)
            server.catch_up()
            answer = server.read(None, {"station": ["a", "b", "c", "nowhere"]})
            served.offer(answer if answer_fault is None else answer_fault(answer))
        served.flush()
        assert served.counts.logged == 4 * len(TICKS)
    server.close()


class Faulty(LocalBackend):
    """An online state that changes rows before it takes them in."""

    def __init__(self, fault: RowFault | None) -> None:
        super().__init__()
        self._fault = fault or (lambda rows: rows)

    def load(self, compiled, definition, rows, position):
        super().load(compiled, definition, self._fault(rows), position)

    def take_in(self, compiled, rows, restamps, *, previous, position):
        super().take_in(compiled, self._fault(rows), restamps, previous=previous, position=position)


def columns_changed(change: Callable[[AnsweredColumn], AnsweredColumn]) -> AnswerFault:
    return lambda answer: dataclasses.replace(answer, columns=[change(column) for column in answer.columns])


def values_changed(change: Callable[[float], float | None]) -> AnswerFault:
    """Every float, also those in sequences, goes through `change`."""

    def one(value):
        if isinstance(value, list | tuple):
            return [one(inner) for inner in value]
        return change(value) if isinstance(value, float) else value

    return columns_changed(lambda column: dataclasses.replace(column, values=[one(value) for value in column.values]))


def turned(column: AnsweredColumn) -> AnsweredColumn:
    """The answers of one station for the other."""
    order = [1, 0, 2, 3]
    values, status = [column.values[place] for place in order], [column.status[place] for place in order]
    return dataclasses.replace(column, values=values, status=status)


def without(sequence: int) -> RowFault:
    return lambda rows: rows.filter(pl.col(ORDER) != sequence)


def ten_minutes_on(answer: Answer) -> Answer:
    return dataclasses.replace(answer, t=answer.t + timedelta(minutes=10))


ROW_FAULTS: dict[str, RowFault] = {
    "stale state: what came after the first twenty rows is not taken in": lambda rows: rows.filter(pl.col(ORDER) < 20),
    "a lost row": without(LOST),
    "a late row is dropped, as an event-time store does": without(LATE),
    "a superseded revision is served": lambda rows: rows.filter(~pl.col(ORDER).is_in(CORRECTIONS)),
    "retractions are ignored": lambda rows: rows.filter(~pl.col(RETRACTION)),
    "rows count before they arrived": lambda rows: rows.with_columns(pl.col(EVENT).alias(ARRIVAL)),
    "NaN as null": lambda rows: rows.with_columns(pl.col("temp").fill_nan(None)),
    "null as zero": lambda rows: rows.with_columns(pl.col("temp").fill_null(0.0)),
    "float32 rounding": lambda rows: rows.with_columns(pl.col("temp").cast(pl.Float32).cast(pl.Float64)),
    "the sign of zero is lost": lambda rows: rows.with_columns(
        pl.when(pl.col("temp") != 0).then("temp").otherwise(pl.col("temp").abs()).alias("temp")
    ),
}
ANSWER_FAULTS: dict[str, AnswerFault] = {
    "another entity's values": columns_changed(turned),
    "another t than was evaluated": ten_minutes_on,
    "the last bit of a sum": values_changed(lambda value: math.nextafter(value, math.inf)),
    "a status is not that of the value": columns_changed(
        lambda column: dataclasses.replace(
            column, status=["missing" if word == "retracted" else word for word in column.status]
        )
    ),
    "a sequence is turned round": columns_changed(
        lambda column: dataclasses.replace(
            column, values=[value[::-1] if isinstance(value, list | tuple) else value for value in column.values]
        )
    ),
}
VIEW_FAULTS: dict[str, ViewFault] = {
    "another definition: windows of two hours": lambda log: view_of(log, length="2h"),
    "the edge of a window is off by one": lambda log: view_of(log, length="3600000001us"),
    "age limits are not applied online": lambda log: view_of(log, max_event_age=None),
}


def test_a_server_without_a_fault_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serve(tmp_path)
    report = audit(str(tmp_path))
    # 36 minutes times 4 stations, 6 features each
    assert (report.vectors, report.values) == (144, 864)
    assert (report.differences, report.head_differences, report.unexplained) == (0, 0, 0)
    assert report.ok
    assert run(["audit", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("144 served vectors, 864 values at ")


def check_caught(root: Path) -> AuditReport:
    report = audit(str(root))
    assert not report.ok
    assert report.differences > 0
    assert sum(report.by_feature.values()) == report.differences
    return report


@pytest.mark.parametrize("fault", ROW_FAULTS.values(), ids=ROW_FAULTS)
def test_a_fault_of_the_online_state_is_caught(fault: RowFault, tmp_path: Path) -> None:
    serve(tmp_path, row_fault=fault)
    check_caught(tmp_path)


@pytest.mark.parametrize("fault", ANSWER_FAULTS.values(), ids=ANSWER_FAULTS)
def test_a_fault_of_the_answer_is_caught(fault: AnswerFault, tmp_path: Path) -> None:
    serve(tmp_path, answer_fault=fault)
    check_caught(tmp_path)


@pytest.mark.parametrize("fault", VIEW_FAULTS.values(), ids=VIEW_FAULTS)
def test_a_fault_of_the_definition_is_caught(fault: ViewFault, tmp_path: Path) -> None:
    serve(tmp_path, view_fault=fault)
    check_caught(tmp_path)


def test_a_difference_says_what_was_served_and_what_training_says(tmp_path: Path) -> None:
    serve(tmp_path, row_fault=without(NEW))
    found = check_caught(tmp_path).first[0]
    # 128 minutes after the start b's event of minute 120 arrives, which the faulty server never gets: it knows the one of 115
    assert (found.entity, found.t, found.feature) == (
        {"station": "b"},
        START + timedelta(minutes=128),
        "weather__temp",
    )
    assert (found.served, found.trained) == ((None, "null"), (1.0, "present"))
    assert "served None (null), trained 1.0 (present)" in str(found)
    assert run(["audit", str(tmp_path)]) == 1
