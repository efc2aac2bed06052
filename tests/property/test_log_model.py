"""Random lives of a log against a plain list: the same rows at every position, whatever was done in between."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import FixedDelay
from ingestion import ObservationLog, create_log, open_log

START = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE, MICRO = timedelta(minutes=1), timedelta(microseconds=1)
MARGIN, RETENTION = timedelta(seconds=1), 20 * MINUTE

PEOPLE = st.sampled_from(["ann", "bob", "cyd"])
ROWS = st.lists(st.tuples(PEOPLE, st.integers(-6, 1), st.sampled_from([None, 1.0, 2.0, float("nan")])), max_size=4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), ROWS),
        st.tuples(st.just("late"), ROWS),
        st.tuples(st.just("given"), ROWS),
        st.tuples(st.just("history"), ROWS),
        st.tuples(st.just("repeat"), st.integers(0, 9)),
        st.tuples(st.just("compact"), st.booleans()),
        st.tuples(st.just("retire"), st.none()),
        st.tuples(st.just("erase"), PEOPLE),
        st.tuples(st.just("restart"), st.none()),
    ),
    min_size=1,
    max_size=9,
)


@dataclass
class Model:
    """The log as a list of rows and the records between them, with the rules written out."""

    now: datetime = START
    last_stamp: datetime | None = None
    next_sequence: int = 0
    rows: list[dict[str, object]] = field(default_factory=list)
    restamps: list[tuple[int, str, datetime]] = field(default_factory=list)
    removed: set[int] = field(default_factory=set)
    batches: list[tuple[str, pl.DataFrame]] = field(default_factory=list)

    def stamp(self) -> datetime:
        earliest = self.now + MARGIN
        return earliest if self.last_stamp is None else max(earliest, self.last_stamp + MICRO)

    def take(self, frame: pl.DataFrame, batch: str, arrivals: list[datetime] | None, kind: str) -> None:
        stamp = self.stamp()
        bad = 0
        for number, row in enumerate(frame.iter_rows(named=True)):
            arrival = stamp if arrivals is None else arrivals[number]
            if row["event_time"] - arrival > timedelta(seconds=5):
                bad += 1
                continue
            if kind == "declared" and any(
                (old["person"], old["event_time"], old["arrival_kind"])
                == (row["person"], row["event_time"], "measured")
                for old in self.rows
                if old["log_sequence"] not in self.removed
            ):
                continue
            self.rows.append(
                {
                    **row,
                    "arrival_time": max(arrival, row["event_time"]),
                    "log_sequence": self.next_sequence,
                    "batch": batch,
                    "arrival_kind": kind,
                }
            )
            self.next_sequence += 1
        self.next_sequence += bad
        if arrivals is None:
            self.last_stamp = stamp
        elif kind == "measured":
            kept = [row["arrival_time"] for row in self.rows if row["batch"] == batch]
            known = [instant for instant in (self.last_stamp, *kept) if isinstance(instant, datetime)]
            self.last_stamp = max(known, default=None)

    def restamp(self, batch: str, instant: datetime) -> None:
        self.restamps.append((self.next_sequence, batch, instant))
        self.next_sequence += 1
        self.last_stamp = instant

    def remove(self, gone: list[int]) -> None:
        if gone:
            self.removed.update(gone)
            self.next_sequence += 1

    def answer(self, position: int) -> list[tuple[object, ...]]:
        found = []
        for row in self.rows:
            sequence = row["log_sequence"]
            assert isinstance(sequence, int)
            if sequence > position or sequence in self.removed:
                continue
            later = [instant for n, batch, instant in self.restamps if n <= position and batch == row["batch"]]
            arrival = max([row["arrival_time"], *later])  # type: ignore[type-var]
            found.append((sequence, row["person"], row["event_time"], arrival, str(row["value"]), row["arrival_kind"]))
        return found


def log_answer(log: ObservationLog, position: int) -> list[tuple[object, ...]]:
    names = ["log_sequence", "person", "event_time", "arrival_time", "value", "arrival_kind"]
    rows = log.scan(position=position).sort("log_sequence").select(names).collect().rows()
    return [(*row[:4], str(row[4]).replace("NaN", "nan"), row[5]) for row in rows]


@settings(max_examples=25)
@given(steps=STEPS)
def test_every_position_answers_as_a_plain_list_does(steps: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        schema = {"person": pl.String, "value": pl.Float64}
        log = create_log(
            root, "p", entities=["person"], schema=schema, publish_margin="1s", retention="20m", clock=lambda: START
        )
        model = Model()
        for number, (what, argument) in enumerate(steps):
            model.now += 4 * MINUTE
            log = step(log, model, root, f"batch-{number}", what, argument)
        assert log.position() == model.next_sequence - 1
        for position in range(-1, model.next_sequence):
            assert log_answer(log, position) == model.answer(position)


def step(log: ObservationLog, model: Model, root: str, batch: str, what: str, argument: object) -> ObservationLog:
    now = model.now
    if what in ("append", "late", "given", "history"):
        assert isinstance(argument, list)
        frame = pl.DataFrame(
            [(person, now + minutes * MINUTE, value) for person, minutes, value in argument],
            schema={"person": pl.String, "event_time": pl.Datetime("us", "UTC"), "value": pl.Float64},
            orient="row",
        )
        append(log, model, frame, batch, what)
    elif what == "repeat" and model.batches:
        assert isinstance(argument, int)
        name, frame = model.batches[argument % len(model.batches)]
        assert log.append(frame, batch_id=name, clock=lambda: now).duplicates == frame.height
    elif what == "compact":
        log.compact(rows_per_file=4, vacuum=bool(argument))
    elif what == "retire":
        gone = [
            row["log_sequence"]
            for row in model.rows
            if row["event_time"] < now - RETENTION and row["log_sequence"] not in model.removed  # type: ignore[operator]
        ]
        log.retire(now=now)
        model.remove(gone)  # type: ignore[arg-type]
    elif what == "erase":
        gone = [
            row["log_sequence"]
            for row in model.rows
            if row["person"] == argument and row["log_sequence"] not in model.removed
        ]
        report = log.erase({"person": argument})
        assert sum(held.rows for held in report.holdings if held.place == "log") == len(gone)
        if report.removal is not None:
            model.removed.update(gone)  # type: ignore[arg-type]
            model.next_sequence += 1
    elif what == "restart":
        return open_log(root, "p", clock=lambda: START)
    return log


def append(log: ObservationLog, model: Model, frame: pl.DataFrame, batch: str, what: str) -> None:
    now = model.now
    model.batches.append((batch, frame))
    if what == "append":
        model.take(frame, batch, None, "measured")
        log.append(frame, batch_id=batch, clock=lambda: now)
    elif what == "late":
        model.take(frame, batch, None, "measured")
        confirmed = now + 3 * MINUTE
        clock = iter([now, confirmed, confirmed, confirmed])
        report = log.append(frame, batch_id=batch, clock=lambda: next(clock, confirmed))
        assert report.restamped is not None
        model.restamp(batch, report.restamped)
        assert report.restamped > confirmed
    elif what == "given":
        arrivals = [now - 2 * MINUTE] * frame.height
        model.take(frame, batch, arrivals, "measured")
        given_frame = frame.with_columns(arrival_time=pl.lit(now - 2 * MINUTE))
        model.batches[-1] = (batch, given_frame)
        log.append(given_frame, batch_id=batch, clock=lambda: now)
    else:
        arrivals = [event + MINUTE for event in frame["event_time"]]
        model.take(frame, batch, arrivals, "declared")
        log.append(frame, batch_id=batch, backfill=True, delay=FixedDelay("1m"), clock=lambda: now)
