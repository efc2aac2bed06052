"""One poll: what a provider sends ends in the log, in the quarantine, or nowhere because the log has it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import alignment as al
import ingestion
from ingestion import ObservationLog
from ingestion.errors import SourceError
from ingestion.jobs import PollReport, poll_once
from ingestion.providers import Contract, Provider, PythonSource
from ingestion.sources.base import Fetched, Payload, Progress
from ingestion.sources.files import FilesSource

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def now() -> datetime:
    return NOON


class Answers:
    """A source that gives the answers it was made with, one page each, and says what it was asked."""

    kind = "python"

    def __init__(self, *pages: list[dict[str, Any]] | str, fault: Exception | None = None) -> None:
        self.pages, self.fault = pages, fault
        self.asked: list[Progress] = []
        self.before_answer: Any = None

    def fetch(self, progress: Progress, *, now: datetime) -> Fetched:
        self.asked.append(progress)
        if self.fault is not None:
            raise self.fault
        if self.before_answer is not None:
            self.before_answer()
        payloads = tuple(
            Payload(
                content=(page if isinstance(page, str) else json.dumps(page)).encode(),
                label=f"page {n}",
                received_time=now,
            )
            for n, page in enumerate(self.pages, start=1)
        )
        return Fetched(payloads=payloads, cursor={"asked": len(self.asked)}, version="v1")

    def parse(self, payload: Payload) -> pl.DataFrame:
        try:
            rows = json.loads(payload.content)
        except ValueError as error:
            raise ingestion.PayloadError("meters", payload.label, f"no JSON: {error}") from error
        frame = pl.DataFrame(rows)
        return frame.with_columns(pl.col("event_time").str.to_datetime(time_zone="UTC")) if rows else frame

    def close(self) -> None:
        return


def row(meter: str = "a", minute: int = -30, **values: Any) -> dict[str, Any]:
    return {"meter": meter, "event_time": (NOON + timedelta(minutes=minute)).isoformat(), **({"kw": 1.0} | values)}


def provider(**more: Any) -> Provider:
    contract = more.pop("contract", {})
    columns = {"kw": {"dtype": "Float64", "min": 0, "max": 100, "unit": "kW"}}
    return Provider(
        name="meters",
        entities=("meter",),
        contract=Contract(**{"columns": columns, **contract}),
        source=PythonSource(fetch="tests:fetch", parse="tests:parse"),
        **{"drop_unchanged": True, **more},
    )


def poll(declared: Provider, root: Path, source: Answers) -> tuple[PollReport, ObservationLog]:
    log = declared.open(root, clock=now)
    return poll_once(declared, log, source, clock=now), log


def test_pages_become_one_batch_with_the_instant_they_were_in_hand(tmp_path: Path) -> None:
    report, log = poll(provider(), tmp_path, Answers([row("a")], [row("b"), row("c")]))
    assert report.outcome == "rows"
    stored = log.scan(columns=["kw", "received_time", "batch_id"]).collect()
    assert stored["meter"].to_list() == ["a", "b", "c"]
    assert stored["received_time"].unique().to_list() == [NOON]
    assert stored["batch_id"].n_unique() == 1
    assert log.polls().row(0, named=True)["cursor"] == '{"asked": 1}'


def test_a_row_that_breaks_its_contract_is_set_aside_as_it_came_and_the_others_are_stored(tmp_path: Path) -> None:
    report, log = poll(provider(), tmp_path, Answers([row("a"), row("b", kw=412.5), row("c", kw="twelve")]))
    assert report.outcome == "rows"
    assert log.scan().collect()["meter"].to_list() == ["a"]
    aside = log.quarantine().sort("row")
    assert aside["row"].to_list() == [1, 2]
    assert "kw=412.5" in aside["reason"][0]
    assert "100" in aside["reason"][0]
    assert json.loads(aside["payload"][1])["kw"] == "twelve"


def test_a_page_that_cannot_be_parsed_is_kept_whole_and_the_others_are_stored(tmp_path: Path) -> None:
    report, log = poll(provider(), tmp_path, Answers([row("a")], '[{"meter": "b", "ev'))
    assert (report.outcome, report.report.quarantined if report.report else None) == ("rows", 1)
    aside = log.quarantine().row(0, named=True)
    assert aside["reason"].startswith("cannot be parsed:")
    assert aside["payload"] == '[{"meter": "b", "ev'


def test_an_answer_of_which_nothing_can_be_kept_is_refused_and_the_cursor_goes_on(tmp_path: Path) -> None:
    report, log = poll(provider(), tmp_path, Answers("<html>"))
    assert report.outcome == "refused"
    assert str(report.error).startswith("cannot be parsed: provider 'meters': page 1: no JSON")
    assert log.progress().cursor == {"asked": 1}
    assert ingestion.heartbeats(log).height == 0


def test_a_lost_column_refuses_the_batch_into_the_quarantine(tmp_path: Path) -> None:
    rows = [{"meter": "a", "event_time": row()["event_time"]}]
    report, log = poll(provider(), tmp_path, Answers(rows))
    assert report.outcome == "refused"
    assert "kw" in log.quarantine()["reason"][0]
    assert json.loads(log.quarantine()["payload"][0])["meter"] == "a"


def test_a_lost_column_may_be_taken_for_null(tmp_path: Path) -> None:
    rows = [{"meter": "a", "event_time": row()["event_time"]}]
    report, log = poll(provider(contract={"on_lost_column": "null"}), tmp_path, Answers(rows))
    assert report.outcome == "rows"
    assert log.scan().collect()["kw"].to_list() == [None]
    assert any("lost column" in flag for flag in report.flags)


def test_a_new_column_is_told_and_left_out_or_added(tmp_path: Path) -> None:
    told, log = poll(provider(), tmp_path / "told", Answers([row(wind=3.0)]))
    assert any("new column" in flag for flag in told.flags)
    assert any("new column" in note for note in log.polls()["notes"][0])
    assert "wind" not in log.columns
    _, added = poll(provider(contract={"on_new_column": "add"}), tmp_path / "added", Answers([row(wind=3.0)]))
    assert added.scan().collect()["wind"].to_list() == [3.0]


def test_pages_with_other_columns_than_the_first_are_set_aside(tmp_path: Path) -> None:
    bare = Provider(
        name="meters", entities=("meter",), source=PythonSource(fetch="tests:f", parse="tests:p"), drop_unchanged=True
    )
    report, log = poll(bare, tmp_path, Answers([row("a")], [row("b", wind=1.0)]))
    assert report.outcome == "rows"
    assert log.scan().collect()["meter"].to_list() == ["a"]
    assert log.quarantine()["reason"].to_list() == ["page 2: other columns than page 1: wind"]


def test_rows_that_the_log_cannot_take_go_to_the_quarantine_one_by_one(tmp_path: Path) -> None:
    bare = Provider(
        name="meters", entities=("meter",), source=PythonSource(fetch="tests:f", parse="tests:p"), drop_unchanged=True
    )
    poll(bare, tmp_path, Answers([row("a")]))
    report, log = poll(bare, tmp_path, Answers([row("a", kw="many"), row("b", kw="few")]))
    assert report.outcome == "refused"
    assert (
        log.quarantine()["reason"][0] == "provider 'meters': column 'kw' is Float64 in the log and String in the batch"
    )
    assert [json.loads(text)["meter"] for text in log.quarantine()["payload"]] == ["a", "b"]


def test_a_provider_that_cannot_be_reached_leaves_a_failed_poll(tmp_path: Path) -> None:
    fault = SourceError("meters", "http://meters/rows", "the connection was reset")
    report, log = poll(provider(), tmp_path, Answers(fault=fault))
    assert report.outcome == "failed"
    kept = log.polls().row(0, named=True)
    assert (kept["outcome"], kept["error"]) == (
        "failed",
        "provider 'meters': http://meters/rows: the connection was reset",
    )
    assert log.observed_through() is None


def test_an_answer_without_rows_is_a_heartbeat(tmp_path: Path) -> None:
    report, log = poll(provider(), tmp_path, Answers([]))
    assert report.outcome == "empty"
    assert ingestion.heartbeats(log).height == 1


def test_a_whole_state_without_rows_fails_and_retracts_nothing(tmp_path: Path) -> None:
    whole = provider(state="whole")
    poll(whole, tmp_path, Answers([row("a"), row("b")]))
    report, log = poll(whole, tmp_path, Answers([]))
    assert (report.outcome, report.error) == ("failed", "provider 'meters': page 1: the whole state is empty")
    assert al.snapshot(al.Observations(log), NOON + timedelta(minutes=1)).height == 2


@pytest.mark.parametrize("second", ['[{"meter": ', [{"meter": "a", "event_time": row()["event_time"]}]])
def test_a_whole_state_that_could_not_be_read_whole_retracts_nothing(tmp_path: Path, second: Any) -> None:
    whole = provider(state="whole")
    poll(whole, tmp_path, Answers([row("a"), row("b")]))
    poll(whole, tmp_path, Answers([row("a")], second))
    _, log = poll(whole, tmp_path, Answers(second))
    assert al.snapshot(al.Observations(log), NOON + timedelta(minutes=1)).height == 2


def test_a_poll_that_is_overtaken_again_and_again_gives_up_and_stores_nothing(tmp_path: Path) -> None:
    declared = provider()
    rival = declared.open(tmp_path, clock=now)
    source = Answers([row("a", kw=1.0)])
    source.before_answer = lambda: poll_once(declared, rival, Answers([row("b", kw=2.0)]), clock=now)
    report, log = poll(declared, tmp_path, source)
    assert report.outcome == "superseded"
    assert log.scan().collect()["meter"].to_list() == ["b"]
    assert len(source.asked) == 5


def test_what_a_provider_repeats_is_set_aside_once_and_still_no_sign_of_life(tmp_path: Path) -> None:
    for _ in range(3):
        report, log = poll(provider(), tmp_path, Answers('[{"meter": '))
        assert report.outcome == "refused"
    assert log.quarantine().height == 1
    assert log.polls()["quarantined"].to_list() == [1, 0, 0]
    assert log.polls()["unchanged"].to_list() == [0, 1, 1]
    assert ingestion.heartbeats(log).height == 0
    for _ in range(3):
        report, log = poll(provider(), tmp_path, Answers([row("a"), row("b", kw=412.5)]))
    assert log.quarantine().height == 2
    assert log.polls()["outcome"].to_list()[3:] == ["rows", "empty", "empty"]
    report, log = poll(provider(), tmp_path, Answers([row("a"), row("b", kw=413.0)]))
    assert log.quarantine().height == 3


def test_a_whole_state_in_parts_retracts_nothing(tmp_path: Path) -> None:
    class Parts(Answers):
        def fetch(self, progress: Progress, *, now: datetime) -> Fetched:
            return replace(super().fetch(progress, now=now), more=True, partial=True)

    whole = provider(state="whole")
    poll(whole, tmp_path, Answers([row("a"), row("b")]))
    report, log = poll(whole, tmp_path, Parts([row("a")]))
    assert (report.outcome, report.error) == ("failed", "provider 'meters': page 1: a whole state came in parts")
    assert al.snapshot(al.Observations(log), NOON + timedelta(minutes=1)).height == 2


def dropping(folder: Path, updates: str = "columns", **more: Any) -> Provider:
    """A provider whose files are dropped into a folder."""
    source = FilesSource(path=str(folder), settle="0s", incomplete_for="0s", **more.pop("source", {}))
    contract = Contract(columns={"kw": "Float64", "wind": "Float64"}, updates=updates, **more.pop("contract", {}))
    return Provider(name="meters", entities=("meter",), contract=contract, source=source, **more)


def drop(folder: Path, name: str, *rows: dict[str, Any]) -> None:
    """A file of rows, older than all that come after it."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.utime(path, (int(Path(name).stem), int(Path(name).stem)))


def partial(meter: str = "a", **values: Any) -> dict[str, Any]:
    return {"meter": meter, "event_time": row()["event_time"], **values}


@pytest.mark.parametrize("together", [False, True])
def test_rows_in_files_that_lack_columns_leave_them_as_they_are(tmp_path: Path, together: bool) -> None:
    declared = dropping(tmp_path / "drop")
    log, source = declared.open(tmp_path, clock=now), declared.open_source({})
    drop(tmp_path / "drop", "1.ndjson", partial("a", kw=1, wind=1), partial("b", kw=2, wind=2))
    reports = [] if together else [poll_once(declared, log, source, clock=now)]
    drop(tmp_path / "drop", "2.ndjson", partial("a", kw=5), partial("b", wind=7))
    drop(tmp_path / "drop", "3.ndjson", partial("a", wind=None))
    reports.append(poll_once(declared, log, source, clock=now))
    assert [(report.outcome, report.error) for report in reports] == [("rows", None)] * len(reports)
    stored = log.scan().sort("log_sequence").collect()
    rows = [(1.0, 1.0), (2.0, 2.0), (5.0, 1.0), (2.0, 7.0), (5.0, None)]
    assert stored.select("kw", "wind").rows() == rows
    assert log.quarantine().is_empty()


def test_pages_of_rows_that_lack_columns_leave_them_as_they_are(tmp_path: Path) -> None:
    declared = provider(contract={"updates": "columns", "on_new_column": "add"})
    poll(declared, tmp_path, Answers([row("a", wind=1.0), row("b", wind=2.0)]))
    pages = [row("a", kw=2.0)], [row("b", kw=3.0, wind=8.0)], [row("b", kw=4.0, wind=None)], [row("a", kw=5.0)]
    report, log = poll(declared, tmp_path, Answers(*pages))
    assert (report.outcome, report.error) == ("rows", None)
    stored = log.scan().sort("log_sequence").collect().select("meter", "kw", "wind").rows()
    assert stored[2:] == [("a", 2.0, 1.0), ("b", 3.0, 8.0), ("b", 4.0, None), ("a", 5.0, 1.0)]


def test_whole_states_that_wait_in_files_are_taken_one_after_the_other(tmp_path: Path) -> None:
    declared = dropping(tmp_path / "drop", updates="row", state="whole", source={"max_files": 1})
    log, source = declared.open(tmp_path, clock=now), declared.open_source({})
    drop(tmp_path / "drop", "1.ndjson", partial("a", kw=1, wind=1), partial("b", kw=1, wind=1))
    drop(tmp_path / "drop", "2.ndjson", partial("b", kw=1, wind=1))
    reports = [poll_once(declared, log, source, clock=now) for _ in range(3)]
    assert [(report.outcome, report.error, report.more) for report in reports] == [
        ("rows", None, True),
        ("rows", None, False),
        ("empty", None, False),
    ]
    stored = log.scan(columns=["is_retraction"]).sort("log_sequence").collect()
    assert stored.select("meter", "is_retraction").rows() == [("a", False), ("b", False), ("a", True)]


def bare(**more: Any) -> Provider:
    """A provider without a contract."""
    source = PythonSource(fetch="tests:f", parse="tests:p")
    return Provider(name="meters", entities=("meter",), source=source, **{"drop_unchanged": True, **more})


@pytest.mark.parametrize(
    "error", [pl.exceptions.ComputeError("it overflows"), pl.exceptions.PanicException("it overflows")]
)
@pytest.mark.parametrize("where", ["parse", "check", "append"])
def test_what_breaks_the_reader_is_set_aside_and_the_cursor_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
) -> None:
    def broken(*_: object, **__: object) -> Any:
        raise error

    source = Answers([row("a")])
    with monkeypatch.context() as patched:
        if where == "parse":
            patched.setattr(source, "parse", broken)
        elif where == "check":
            patched.setattr("ingestion.jobs.polling.check_rows", broken)
        else:
            patched.setattr(ObservationLog, "append", broken)
        report, log = poll(provider(), tmp_path, source)
    verb = {"parse": "parsed", "check": "checked", "append": "stored"}[where]
    assert report.outcome == "refused"
    kept = log.quarantine().row(0, named=True)
    assert (kept["reason"], json.loads(kept["payload"])) == (f"cannot be {verb}: it overflows", [row("a")])
    assert log.progress().cursor == {"asked": 1}


def test_rows_that_cannot_be_compared_do_not_stop_a_provider(tmp_path: Path) -> None:
    class Bytes(Answers):
        def parse(self, payload: Payload) -> pl.DataFrame:
            return super().parse(payload).with_columns(kw=pl.lit(pl.Series([[b"\xff"]])))

    source = Bytes([row("a")])
    for asked in (1, 2):
        report, log = poll(bare(), tmp_path, source)
        assert report.outcome in {"rows", "empty", "refused"}
        assert log.progress().cursor == {"asked": asked}


def test_pages_whose_numbers_have_other_types_are_stored_if_no_value_changes(tmp_path: Path) -> None:
    report, log = poll(bare(), tmp_path, Answers([row("a", kw=1)], [row("b", kw=0.5)], [row("c", kw=2)]))
    assert (report.outcome, report.error) == ("rows", None)
    assert log.scan().collect()["kw"].to_list() == [1.0, 0.5, 2.0]


@pytest.mark.parametrize(
    ("other", "said"), [(0.5, "'kw' is Float64 and Int64 in page 1"), ("0.5", "'kw' is String and Int64 in page 1")]
)
def test_a_page_whose_type_would_change_the_values_of_others_is_set_aside(
    tmp_path: Path, other: object, said: str
) -> None:
    report, log = poll(bare(), tmp_path, Answers([row("a", kw=2**53 + 1)], [row("b", kw=other)], [row("c", kw=3)]))
    assert report.outcome == "rows"
    assert log.scan().collect()["kw"].to_list() == [2**53 + 1, 3]
    assert log.quarantine()["reason"].to_list() == [f"page 2: {said}"]


def test_rows_that_are_set_aside_are_kept_as_they_came_whatever_type_other_pages_have(tmp_path: Path) -> None:
    pages = [row("a", kw=2**53 + 1)], [row("b", kw=0.5)], [row("c", kw=[1, 2])], [row("d", kw="many")]
    report, log = poll(provider(), tmp_path, Answers(*pages))
    assert report.outcome == "rows"
    assert log.scan().collect()["meter"].to_list() == ["b"]
    kept = [json.loads(payload)["kw"] for payload in log.quarantine().sort("row")["payload"]]
    assert kept == ["9007199254740993", "[1,2]", "many"]


def test_the_reason_of_the_contract_goes_before_what_the_log_makes_of_it(tmp_path: Path) -> None:
    _, log = poll(provider(), tmp_path, Answers([row("a"), row("b") | {"meter": None}]))
    given = log.quarantine()["reason"][0]
    log.append(
        pl.DataFrame(
            {"meter": [None], "event_time": [NOON - timedelta(hours=1)], "kw": [1.0]},
            schema_overrides={"meter": pl.String},
        ),
        reasons=pl.Series(["event_time: '02.03.2026' is no instant"]),
    )
    assert given == "meter is null"
    assert log.quarantine()["reason"][1] == "event_time: '02.03.2026' is no instant"
