"""Polls against a plain model: two jobs, a provider that fails, a store that fails before or after it commits, a bad clock."""

from __future__ import annotations

import json
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import ingestion
from ingestion.errors import SourceError
from ingestion.jobs import poll_once
from ingestion.providers import Contract, Provider, PythonSource
from ingestion.sources.base import Fetched, Payload, Progress
from ingestion.table import LogTable

START = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)  # the night in which Europe's clocks go forward
FIRST_EVENT = START - timedelta(days=3)  # so that no clock calls it the future
KEYS = st.tuples(st.sampled_from("ab"), st.integers(0, 3))
TOO_HOT = 100


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


class Sender:
    """What the provider has now; it forgets what it had."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], int | None] = {}
        self.sent: set[tuple[str, int, int | None]] = set()

    def set(self, key: tuple[str, int], value: int | None) -> None:
        self.rows[key] = value

    def body(self) -> bytes:
        self.sent |= {(meter, minute, value) for (meter, minute), value in self.rows.items()}
        return json.dumps([[meter, minute, value] for (meter, minute), value in self.rows.items()]).encode()


class Fake:
    """A source that does what the machine tells it, in the order in which it is asked."""

    kind = "python"

    def __init__(self, sender: Sender, clock: Clock) -> None:
        self.sender, self.clock = sender, clock
        self.before_answer: list[Any] = []
        self.fault = ""
        self.cursors: list[dict[str, Any] | None] = []

    def fetch(self, progress: Progress, *, now: datetime) -> Fetched:
        self.cursors.append(progress.cursor)
        if self.fault == "reset":
            raise SourceError("meters", "http://meters", "the connection was reset")
        body = self.sender.body()
        if self.before_answer:
            self.before_answer.pop(0)()  # another job polls while this answer is under way
        if self.fault == "cut":
            body = body[: len(body) // 2]
        count = (progress.cursor or {"count": 0})["count"] + 1
        return Fetched(
            payloads=(Payload(content=body, label="http://meters", received_time=now),), cursor={"count": count}
        )

    def parse(self, payload: Payload) -> pl.DataFrame:
        try:
            rows = json.loads(payload.content)
        except ValueError as error:
            raise ingestion.PayloadError("meters", payload.label, f"no JSON: {error}") from error
        return pl.DataFrame(
            {
                "meter": [meter for meter, _, _ in rows],
                "event_time": [FIRST_EVENT + timedelta(minutes=minute) for _, minute, _ in rows],
                "kw": [value for _, _, value in rows],
            },
            schema={"meter": pl.String, "event_time": pl.Datetime("us", "UTC"), "kw": pl.Int64},
        )

    def close(self) -> None:
        return


def provider(state: str) -> Provider:
    return Provider(
        name="meters",
        entities=("meter",),
        state=state,
        contract=Contract(columns={"kw": {"dtype": "Int64", "max": TOO_HOT}}),
        source=PythonSource(fetch="tests:nothing", parse="tests:nothing"),
        drop_unchanged=True,
        publish_margin="1ms",
    )


class Polling(RuleBasedStateMachine):
    state = "rows"

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.clock, self.sender = Clock(), Sender()
        self.provider = provider(self.state)
        self.known: dict[tuple[str, int], int | None] = {}
        self.jobs = {name: self.start() for name in ("left", "right")}
        self.successes = 0

    def start(self) -> tuple[ingestion.ObservationLog, Fake]:
        return self.provider.open(self.root, clock=self.clock), Fake(self.sender, self.clock)

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    # ------------------------------------------------------------------------------------------------------ what happens

    @rule(key=KEYS, value=st.one_of(st.none(), st.integers(0, 3), st.just(TOO_HOT + 1)))
    def correct(self, key: tuple[str, int], value: int | None) -> None:
        self.sender.set(key, value)

    @precondition(lambda self: self.state == "whole" and len(self.sender.rows) > 1)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        del self.sender.rows[data.draw(st.sampled_from(sorted(self.sender.rows)))]

    @rule(minutes=st.sampled_from([-60.0, 0.0, 0.001, 1.0, 60.0]))
    def clock_moves(self, minutes: float) -> None:
        self.clock.now += timedelta(minutes=minutes)

    @rule(name=st.sampled_from(["left", "right"]))
    def restart(self, name: str) -> None:
        self.jobs[name] = self.start()

    @rule(name=st.sampled_from(["left", "right"]), fault=st.sampled_from(["reset", "cut"]))
    def fails(self, name: str, fault: str) -> None:
        log, source = self.jobs[name]
        source.fault = fault
        report = poll_once(self.provider, log, source, clock=self.clock)
        source.fault = ""
        if fault == "reset":
            assert report.outcome == "failed"
        else:
            assert report.outcome == "refused"
            self.successes += 1

    @rule(
        name=st.sampled_from(["left", "right"]),
        overtaken=st.booleans(),
        news=st.tuples(KEYS, st.integers(0, 3)),
        store=st.sampled_from(["", "", "before", "after"]),
    )
    def polls(self, name: str, *, overtaken: bool, news: tuple[tuple[str, int], int], store: str) -> None:
        log, source = self.jobs[name]
        other_log, other = self.jobs["right" if name == "left" else "left"]

        def overtake() -> None:
            self.sender.set(*news)
            assert poll_once(self.provider, other_log, other, clock=self.clock).outcome in {"rows", "empty", "refused"}
            self.successes += 1
            self.learn()

        if overtaken and self.sender.rows:
            source.before_answer.append(overtake)
        with broken_store(store):
            report = poll_once(self.provider, log, source, clock=self.clock)
        source.before_answer.clear()
        if self.sender.rows or self.state == "rows":
            assert report.outcome in {"rows", "empty", "refused"}, report
            self.successes += 1
            self.learn()

    def learn(self) -> None:
        """What the log should say now: of a value that breaks the contract, what it said before."""
        if self.state == "whole":
            self.known = {key: value for key, value in self.known.items() if key in self.sender.rows}
        good = {key: v for key, v in self.sender.rows.items() if v is None or v <= TOO_HOT}
        self.known |= good

    # --------------------------------------------------------------------------------------------------- what must hold

    def minute(self, event: datetime) -> int:
        return (event - FIRST_EVENT) // timedelta(minutes=1)

    @invariant()
    def what_must_hold(self) -> None:
        log = ingestion.open_log(self.root, "meters")
        rows = log.scan().sort("log_sequence").collect()
        self.the_log_says_what_the_provider_said_last(rows)
        self.every_revision_was_sent_and_differs_from_the_one_before(rows)
        self.stamps_go_forward_and_numbers_have_no_gaps(log, rows)
        # the cursor counts the polls that were stored
        assert (log.progress().cursor or {"count": 0})["count"] == self.successes

    def the_log_says_what_the_provider_said_last(self, rows: pl.DataFrame) -> None:
        last = rows.sort("arrival_time", "log_sequence").group_by("meter", "event_time", maintain_order=True).last()
        alive = last.filter(~pl.col("is_retraction")).select("meter", "event_time", "kw")
        assert {(meter, minute_of(event)): kw for meter, event, kw in alive.iter_rows()} == self.known

    def every_revision_was_sent_and_differs_from_the_one_before(self, rows: pl.DataFrame) -> None:
        before: dict[tuple[str, int], tuple[int | None, bool]] = {}
        for meter, event, kw, gone in rows.select("meter", "event_time", "kw", "is_retraction").iter_rows():
            key = meter, minute_of(event)
            assert gone or (*key, kw) in self.sender.sent
            assert before.get(key) != (kw, gone)
            before[key] = kw, gone

    def stamps_go_forward_and_numbers_have_no_gaps(self, log: ingestion.ObservationLog, rows: pl.DataFrame) -> None:
        assert rows["arrival_time"].is_sorted()
        polls = log.polls()
        assert polls.filter(pl.col("outcome") != "failed").height == self.successes
        records = rows.height + polls.height + log.quarantine().height + log.restamps().height
        assert log.position() + 1 == records


def minute_of(event: datetime) -> int:
    return (event - FIRST_EVENT) // timedelta(minutes=1)


class broken_store:  # noqa: N801 - reads as what it is
    """The next commit fails before it is made, or its answer is lost."""

    def __init__(self, when: str) -> None:
        self.when = when
        self.patches: list[Any] = []

    def __enter__(self) -> None:
        if not self.when:
            return
        real, left = LogTable.commit, [1]

        def commit(table: LogTable, *args: Any, **more: Any) -> None:
            if left[0]:
                left[0] -= 1
                if self.when == "after":
                    real(table, *args, **more)
                raise OSError(28, "No space left on device")
            real(table, *args, **more)

        self.patches = [patch.object(LogTable, "commit", commit), patch("ingestion.jobs.polling.time.sleep")]
        for each in self.patches:
            each.start()

    def __exit__(self, *_: object) -> None:
        for each in self.patches:
            each.stop()


class WholeStates(Polling):
    state = "whole"


FEW = settings(settings.default, max_examples=max(10, settings.default.max_examples // 3), stateful_step_count=20)
TestPollingOfRows = Polling.TestCase
TestPollingOfRows.settings = FEW
TestPollingOfWholeStates = WholeStates.TestCase
TestPollingOfWholeStates.settings = FEW
