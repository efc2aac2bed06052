"""What becomes of quarantined rows: looked at, released once, dropped with a reason, never deleted."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

import alignment as al
from ingestion import (
    BatchError,
    ColumnTypeError,
    CommitError,
    ObservationLog,
    QuarantineError,
    create_log,
    drop_quarantined,
    heartbeats,
    is_down,
    open_log,
    quarantine_reasons,
    release_quarantined,
)
from ingestion import quarantine as module
from ingestion.append import Attempt, append_batch
from ingestion.batch import payloads, prepare_batch
from ingestion.checks import check_rows
from ingestion.providers import load_providers
from ingestion.table import LogTable
from serving.cli import run

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


class Hands:
    """A clock that goes on by a millisecond when it is read, and can be set."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def log(tmp_path: Path, clock: Hands) -> ObservationLog:
    return create_log(
        tmp_path, "weather", entities=["station"], schema={"station": pl.String, "temp": pl.Float64}, clock=clock
    )


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 1, 5, hour, minute, tzinfo=UTC)


def batch(*rows: tuple[str | None, datetime | None, float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        rows,
        schema={"station": pl.String, "event_time": pl.Datetime("us", "UTC"), "temp": pl.Float64},
        orient="row",
    )


def values(log: ObservationLog) -> list[tuple[str, int, float]]:
    rows = log.scan().sort("log_sequence").collect()
    return rows.select("station", pl.col("event_time").dt.hour().cast(pl.Int64), "temp").rows()


def test_reasons_are_counted_with_first_and_last_and_an_example(log: ObservationLog, clock: Hands) -> None:
    log.append(batch((None, at(10), 1.0), ("a", at(11), 2.0)))
    clock.now = at(13)
    log.append(batch((None, at(12), 3.0), ("a", None, 4.0)))
    reasons = quarantine_reasons(log).to_dicts()
    assert [(row["reason"], row["rows"], row["first_sequence"]) for row in reasons] == [
        ("station is null", 2, 1),
        ("event_time is null", 1, 3),
    ]
    assert reasons[0]["first_received"] < at(13) < reasons[0]["last_received"]
    assert '"temp":1.0' in reasons[0]["example"]


def test_a_released_row_arrives_when_it_is_released_and_keeps_when_it_was_received(
    log: ObservationLog, clock: Hands
) -> None:
    log.append(batch(("a", at(18), 3.0)))  # six hours ahead of the clock: set aside
    received = log.quarantine()["received_time"].item()
    clock.now = at(19)
    report = release_quarantined(log)
    assert (report.chosen, report.released, report.rows, report.held) == (1, 1, 1, {})
    row = log.scan(columns=["received_time", "temp"]).collect().row(0, named=True)
    assert row["arrival_time"] == report.arrival_time
    assert row["arrival_time"] > at(19)
    assert row["received_time"] == received < at(13)
    assert row["arrival_kind"] == "measured"
    assert al.snapshot(al.Observations(log), at(18, 59)).height == 0


def test_a_release_is_no_sign_of_life(log: ObservationLog, clock: Hands) -> None:
    log.append(batch(("a", at(10), 1.0), ("a", at(18), 3.0)))
    clock.now = at(19)
    release_quarantined(log)
    assert heartbeats(log)["arrival_time"].dt.hour().to_list() == [12]
    assert is_down(log, at(19, 30), "1h")


def test_a_row_is_released_once(log: ObservationLog, clock: Hands) -> None:
    log.append(batch(("a", at(18), 3.0)))
    clock.now = at(19)
    release_quarantined(log)
    again = release_quarantined(log)
    assert (again.chosen, again.rows, again.batch_id) == (0, 0, None)
    assert values(log) == [("a", 18, 3.0)]
    with pytest.raises(QuarantineError) as caught:
        release_quarantined(log, [0])
    assert str(caught.value) == (
        "provider 'weather': row 0 was released already (record 2)\n\n"
        "hint: name open rows only; asknown quarantine show lists them."
    )


def test_positions_survive_a_release(log: ObservationLog, clock: Hands) -> None:
    log.append(batch(("a", at(10), 1.0), ("a", at(18), 3.0)))
    before = log.scan(position=1).collect()
    clock.now = at(19)
    release_quarantined(log)
    assert log.scan(position=1).collect().equals(before)
    log.compact()
    assert log.scan(position=1).collect().equals(before)
    assert log.quarantine(all=True).select("log_sequence", "state", "decided_by").rows() == [(1, "released", 3)]


def test_columns_can_be_set_and_renamed(log: ObservationLog) -> None:
    log.append(batch((None, at(10), 1.0)))
    report = release_quarantined(log, changes={"station": "b", "temp": "1.5"})
    assert report.rows == 1
    assert values(log) == [("b", 10, 1.5)]


def test_a_payload_with_other_columns_is_held_until_they_are_renamed(log: ObservationLog) -> None:
    log.append(batch(("z", at(9), 0.0)))
    other = batch(("a", at(10), 1.0)).rename({"temp": "temperature"})
    aside = Attempt(aside=(("refused: the column 'temp' is gone", json.loads(payloads(other, pl.Series([0]))[0])),))
    append_batch(log.table, prepare_batch(batch(), log.definition), "refused", attempt=aside)
    assert release_quarantined(log).held == {"the row has no column 'temp', and absent is not null": 1}
    report = release_quarantined(log, changes={"temp": ""})
    assert report.held == {"the log has no column 'temperature'": 1}
    assert release_quarantined(log, rename={"temperature": "temp"}).rows == 1
    assert values(log) == [("z", 9, 0.0), ("a", 10, 1.0)]


def test_rows_that_still_break_a_rule_stay_and_say_why(log: ObservationLog) -> None:
    log.append(batch((None, at(10), 1.0), ("a", at(18), 2.0), ("a", None, 3.0)))
    report = release_quarantined(log)
    assert (report.chosen, report.released) == (3, 0)
    assert report.held == {
        "station is null": 1,
        "event_time is null": 1,
        "event_time is more than 5s after arrival_time": 1,
    }
    assert log.quarantine().height == 3
    assert log.position() == 2  # nothing was written
    assert str(report) == (
        "weather: 0 of 3 rows released\n"
        "  1 stay: station is null\n"
        "  1 stay: event_time is more than 5s after arrival_time\n"
        "  1 stay: event_time is null"
    )


def test_a_value_of_another_type_holds_the_row(log: ObservationLog) -> None:
    log.append(batch((None, at(10), 1.0)))
    with pytest.raises(ColumnTypeError, match="the value 'warm': column 'temp' has type Float64"):
        release_quarantined(log, changes={"station": "a", "temp": "warm"})


def test_the_contract_as_it_is_now_decides(log: ObservationLog) -> None:
    log.append(batch(("a", at(9), 0.0)))
    prepared = prepare_batch(batch(("a", at(10), 99.0)), log.definition, reasons=pl.Series(["temp is above 60"]))
    append_batch(log.table, prepared, "hot")

    def check(limit: float):
        def checked(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
            above = pl.when(pl.col("temp") > limit).then(pl.lit(f"temp is above {limit:g}"))
            return frame, frame.select(above).to_series()

        return checked

    assert release_quarantined(log, check=check(60)).held == {"temp is above 60": 1}
    assert release_quarantined(log, check=check(100)).rows == 1
    assert values(log) == [("a", 9, 0.0), ("a", 10, 99.0)]


def test_a_row_does_not_displace_a_newer_revision_of_its_key(log: ObservationLog, clock: Hands) -> None:
    log.append(batch(("a", at(13), 1.0)))  # an hour ahead: set aside
    clock.now = at(14)
    log.append(batch(("a", at(13), 2.0)))  # the provider's own correction
    clock.now = at(15)
    report = release_quarantined(log)
    assert report.held == {"the log has a revision of the same key that was received later": 1}
    assert values(log) == [("a", 13, 2.0)]
    assert release_quarantined(log, over_newer=True).rows == 1
    assert values(log) == [("a", 13, 2.0), ("a", 13, 1.0)]


def test_a_value_that_may_have_come_again_unchanged_is_not_displaced(tmp_path: Path, clock: Hands) -> None:
    log = create_log(tmp_path / "other", "weather", entities=["station"], drop_unchanged=True, clock=clock)
    for temp, reason in ((5.0, None), (50.0, "too hot"), (5.0, None)):  # the third is dropped as unchanged
        log.append(batch(("a", at(10), temp)), reasons=pl.Series([reason], dtype=pl.String))
    why = "the log has another value of the same key, which may have come again and been dropped as unchanged"
    assert release_quarantined(log).held == {why: 1}
    assert values(log) == [("a", 10, 5.0)]
    assert release_quarantined(log, over_newer=True).rows == 1
    # a withdrawn key has no value that could have come again
    log.append(batch(("a", at(10), None)).with_columns(is_retraction=pl.lit(value=True)))
    log.append(batch(("a", at(10), 60.0)), reasons=pl.Series(["too hot"]))
    assert release_quarantined(log).rows == 1


def test_an_older_revision_does_not_hold_a_row(log: ObservationLog, clock: Hands) -> None:
    log.append(batch(("a", at(11), 1.0)))
    clock.now = at(13)
    log.append(batch((None, at(11), 2.0)))
    assert release_quarantined(log, changes={"station": "a"}).rows == 1
    assert values(log) == [("a", 11, 1.0), ("a", 11, 2.0)]


def test_rows_of_one_key_are_released_in_the_order_in_which_they_came(log: ObservationLog, clock: Hands) -> None:
    log.append(batch(("a", at(13), 1.0)))
    log.append(batch(("a", at(13), 2.0)))
    clock.now = at(14)
    assert release_quarantined(log).rows == 2
    assert al.snapshot(al.Observations(log), at(15))["temp"].to_list() == [2.0]


def test_payloads_that_could_not_be_parsed_are_parsed_again(log: ObservationLog) -> None:
    text = "station;temp\na;1,5\n;2,5\n"
    empty = prepare_batch(batch(), log.definition)
    append_batch(log.table, empty, "p", attempt=Attempt(aside=(("cannot be parsed: no comma", text),)))
    report = release_quarantined(log)
    assert report.held == {
        "cannot be parsed: no comma; name the providers' declaration, so that it can be parsed again": 1
    }

    def parse(payload: bytes) -> pl.DataFrame:
        assert payload == text.encode()
        return batch(("a", at(10), 1.5), (None, at(10), 2.5))

    report = release_quarantined(log, parse=parse)
    assert (report.released, report.rows, report.held) == (1, 1, {"station is null": 1})
    assert values(log) == [("a", 10, 1.5)]
    assert log.quarantine(all=True).select("reason", "state").rows() == [
        ("cannot be parsed: no comma", "released"),
        ("station is null", "open"),
    ]


def test_an_unchanged_row_leaves_the_quarantine_and_is_not_stored(tmp_path: Path, clock: Hands) -> None:
    log = create_log(tmp_path / "other", "weather", entities=["station"], drop_unchanged=True, clock=clock)
    log.append(batch(("a", at(10), 1.0)))
    clock.now = at(13)
    log.append(batch((None, at(10), 1.0)))
    report = release_quarantined(log, changes={"station": "a"})
    assert (report.rows, report.unchanged, report.released) == (0, 1, 1)
    assert log.quarantine().height == 0


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (pl.Float32(), 0.1),
        (pl.List(pl.Float64), [1.0, math.nan, math.inf, -math.inf, -0.0, 5e-324, None]),
        (pl.Array(pl.Float32, 2), [0.1, math.inf]),
        (pl.Struct({"a": pl.List(pl.Float64)}), {"a": [math.nan]}),
        (pl.List(pl.Struct({"a": pl.Binary})), [{"a": b"\x00\xff"}, None, {"a": b""}]),
        (pl.List(pl.Binary), [b"\xff", b"", None]),
        (pl.List(pl.String), ["", "a", None]),
        (pl.List(pl.Datetime("us", "UTC")), [datetime(2026, 1, 5, 1, 2, 3, 4, tzinfo=UTC)]),
        (pl.Binary(), b""),
        (pl.Time(), time(1, 2, 3, 4)),
        (pl.Time(), 1_000_000_001),
        (pl.Duration("us"), timedelta(days=-3, microseconds=5)),
        (pl.Duration("ns"), 90_000_000_000_001),
        (pl.Duration("ms"), timedelta(0)),
        (pl.Datetime("ns", "UTC"), 1_000_000_000_000_000_001),
        (pl.Datetime("ns"), 1_000_000_000_000_000_000),
        (pl.Decimal(20, 6), Decimal("12345678901234.123456")),
    ],
    ids=str,
)
def test_every_value_comes_out_of_the_quarantine_as_it_went_in(
    tmp_path: Path, clock: Hands, dtype: pl.DataType, value: object
) -> None:
    log = create_log(tmp_path, "values", entities=["station"], drop_unchanged=True, clock=clock)
    good = batch(("a", at(9), 1.0)).with_columns(pl.Series("x", [value], dtype=dtype))
    log.append(good)
    log.append(good.with_columns(event_time=pl.lit(at(10))), reasons=pl.Series(["bad"]))
    assert release_quarantined(log).rows == 1
    stored = log.scan().sort("log_sequence").collect()["x"]
    assert repr(stored[0]) == repr(stored[1])
    assert stored[:1].equals(stored[1:])
    # the same value again, quarantined and released, is the current revision
    log.append(good.with_columns(event_time=pl.lit(at(10))), reasons=pl.Series(["bad again"]))
    assert release_quarantined(log).unchanged == 1


def test_a_value_that_would_change_is_held(tmp_path: Path, clock: Hands) -> None:
    log = create_log(tmp_path, "values", entities=["station"], clock=clock)
    fine = batch(("a", at(9), 1.0)).with_columns(x=pl.Series([timedelta(microseconds=1)]))
    log.append(fine.with_columns(pl.col("x").cast(pl.Duration("ms"))))
    log.append(fine.with_columns(event_time=pl.lit(at(10))), reasons=pl.Series(["bad"]), evolve=True)
    held = release_quarantined(log).held
    assert held == {"x: \"PT0.000001S\" is not Duration(time_unit='ms')": 1}


def test_a_dry_run_changes_nothing(log: ObservationLog) -> None:
    log.append(batch((None, at(10), 1.0)))
    report = release_quarantined(log, changes={"station": "a"}, dry_run=True)
    assert (report.released, report.rows, report.dry_run) == (1, 1, True)
    assert drop_quarantined(log, why="test", dry_run=True).dropped == 1
    assert log.position() == 0
    assert log.quarantine().height == 1


def test_another_commit_in_between_makes_a_release_look_again(
    log: ObservationLog, clock: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append(batch(("a", at(13), 1.0), ("b", at(13), 5.0)))
    clock.now = at(14)
    plan, calls = module._planned, []

    def interrupted(*args, **kwargs):
        planned = plan(*args, **kwargs)
        if not calls:
            calls.append(1)
            other = open_log(log.root, "weather", clock=clock)
            release_quarantined(other, [0])  # somebody else releases one of the two
        return planned

    monkeypatch.setattr(module, "_planned", interrupted)
    report = release_quarantined(log)
    assert (report.chosen, report.rows) == (1, 1)
    assert sorted(values(log)) == [("a", 13, 1.0), ("b", 13, 5.0)]


def test_a_release_that_fails_leaves_everything_as_it_was(
    log: ObservationLog, clock: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append(batch(("a", at(13), 1.0)))
    clock.now = at(14)

    def full(self: LogTable, *args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LogTable, "commit", full)
        with pytest.raises(CommitError):
            release_quarantined(log)
    assert (values(log), log.quarantine().height) == ([], 1)
    release_quarantined(log)
    assert (values(log), log.quarantine().height) == ([("a", 13, 1.0)], 0)


def test_dropped_rows_are_not_open_and_say_why(log: ObservationLog) -> None:
    log.append(batch((None, at(10), 1.0), ("a", None, 2.0)))
    report = drop_quarantined(log, reason="station", why="test messages")
    assert str(report) == "weather: 1 rows dropped: test messages\n  1 were set aside: station is null"
    assert log.quarantine()["reason"].to_list() == ["event_time is null"]
    assert log.quarantine(all=True).select("log_sequence", "state", "decided_by", "why").rows() == [
        (0, "dropped", 2, "test messages"),
        (1, "open", None, None),
    ]
    assert drop_quarantined(log, reason="station", why="again").dropped == 0
    log.compact(vacuum=True)
    assert log.quarantine(all=True)["state"].to_list() == ["dropped", "open"]


def test_a_drop_says_why(log: ObservationLog) -> None:
    with pytest.raises(QuarantineError, match="why are the rows dropped"):
        drop_quarantined(log, why=" ")


def test_an_unknown_row_is_an_error(log: ObservationLog) -> None:
    log.append(batch(("a", at(10), 1.0)))
    with pytest.raises(QuarantineError, match="0 is not the log_sequence of a quarantined row"):
        release_quarantined(log, [0])


def test_what_is_the_logs_own_cannot_be_set(log: ObservationLog) -> None:
    with pytest.raises(BatchError, match="'arrival_time' is the log's own and cannot be set"):
        release_quarantined(log, changes={"arrival_time": "2026-01-01T00:00:00Z"})


def test_an_erasure_reaches_rows_that_were_decided_on(log: ObservationLog, clock: Hands) -> None:
    log.append(batch(("a", at(13), 1.0), ("b", at(13), 2.0)))
    clock.now = at(14)
    release_quarantined(log, [0])
    log.erase({"station": "a"})
    assert values(log) == []
    assert log.quarantine(all=True).select("station", "state").rows() == [("b", "open")]
    release_quarantined(log)
    assert values(log) == [("b", 13, 2.0)]


def test_every_type_comes_back_as_it_was(tmp_path: Path, clock: Hands) -> None:
    frame = pl.DataFrame(
        {
            "station": ["a"],
            "event_time": [at(13)],
            "level": pl.Series([3], dtype=pl.UInt8),
            "big": pl.Series([2**63], dtype=pl.UInt64),
            "ok": [True],
            "day": [at(3).date()],
            "seen": pl.Series([at(9)], dtype=pl.Datetime("us", "UTC")),
            "local": [datetime(2026, 1, 5, 9)],  # noqa: DTZ001 - a wall clock time
            "sky": pl.Series([[0.5, 0.25]], dtype=pl.Array(pl.Float32, 2)),
            "tags": [["x", "y"]],
            "raw": [b"\x00\xff"],
            "where": [{"lat": 1.5, "lon": 2.5}],
        }
    )
    log = create_log(tmp_path / "other", "weather", entities=["station"], clock=clock)
    log.append(frame.with_columns(event_time=pl.lit(at(11))))
    log.append(frame)
    clock.now = at(14)
    assert release_quarantined(log).rows == 1
    first, second = log.scan(columns=frame.columns[2:]).sort("log_sequence").collect()[frame.columns].iter_rows()
    assert first[2:] == second[2:]


def command(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = run(["quarantine", *words])
    return code, capsys.readouterr().out


def test_the_commands_list_show_release_and_drop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = create_log(tmp_path, "weather", entities=["station"])
    log.append(batch((None, at(10), 1.0), ("a", None, 2.0)))
    root = str(tmp_path)
    code, out = command("list", root, "--json", capsys=capsys)
    assert code == 0
    assert [(row["provider"], row["reason"], row["rows"]) for row in json.loads(out)] == [
        ("weather", "station is null", 1),
        ("weather", "event_time is null", 1),
    ]
    code, out = command("show", root, "weather", "0", "--json", capsys=capsys)
    assert json.loads(out)[0]["payload"]["temp"] == 1.0
    code, out = command("release", root, "weather", "--all", "--dry-run", capsys=capsys)
    assert (code, out.splitlines()[0]) == (1, "weather: 0 of 2 rows would be released")
    code, out = command("release", root, "weather", "0", "--set", "station=b", "--json", capsys=capsys)
    assert (code, json.loads(out)["rows"]) == (0, 1)
    code, out = command("drop", root, "weather", "--all", "--why", "no time of day", capsys=capsys)
    assert (code, out.splitlines()[0]) == (0, "weather: 1 rows dropped: no time of day")
    assert values(log) == [("b", 10, 1.0)]
    code, out = command("list", root, capsys=capsys)
    assert (code, out) == (0, "(nothing)\n")


def test_the_commands_refuse_what_means_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create_log(tmp_path, "weather", entities=["station"])
    root = str(tmp_path)
    assert command("release", root, "weather", capsys=capsys)[0] == 2
    assert command("release", root, "weather", "--all", "--set", "station", capsys=capsys)[0] == 2
    assert command("drop", root, "weather", "7", "--why", "x", capsys=capsys)[0] == 2
    assert command("drop", root, "weather", "--all", capsys=capsys)[0] == 2
    assert command("show", root, "wether", capsys=capsys)[0] == 3


def test_numbers_that_json_does_not_know_and_durations_are_kept(log: ObservationLog, clock: Hands) -> None:
    log.append(batch(("a", at(13), math.nan), ("b", at(13), math.inf), ("c", at(13), 1.5)))
    assert ['"temp":"NaN"' in text for text in log.quarantine()["payload"]] == [True, False, False]
    clock.now = at(14)
    assert release_quarantined(log).rows == 3
    assert str([temp for _, _, temp in values(log)]) == "[nan, inf, 1.5]"
    lengths = pl.DataFrame({"station": [None], "event_time": [at(13)], "temp": [1.0], "span": [timedelta(hours=1)]})
    log.append(lengths, evolve=True)
    assert '"span":"PT1H"' in log.quarantine()["payload"][0]


DECLARED = """
providers:
  weather:
    entities: [station]
    contract: {columns: {station: String, temp: {dtype: Float64, max: LIMIT}}}
    source:
      kind: http
      url: http://127.0.0.1:9/readings
      layout: {format: csv, separator: SEPARATOR, columns: {station: id, event_time: at, temp: t}}
"""


def test_a_release_holds_rows_against_the_contract_and_layout_of_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, root = tmp_path / "providers.yaml", str(tmp_path / "logs")
    file.write_text(DECLARED.replace("LIMIT", "60").replace("SEPARATOR", "','"))
    provider = load_providers(file).select(["weather"])[0]
    log = provider.open(root)
    hot = check_rows(batch(("a", at(10), 99.0), ("a", at(11), 20.0)), provider.contract, provider.definition())
    unread = ("cannot be parsed: no column", "id;at;t\na;2026-01-05T12:00:00Z;21.5\nb;2026-01-05T12:00:00Z;500\n")
    log.append(hot.frame, reasons=hot.reasons, original=hot.original, aside=[unread])
    assert values(log) == [("a", 11, 20.0)]
    words = ("release", root, "weather", "--all", "--providers", str(file), "--json")
    code, out = command(*words, capsys=capsys)
    assert (code, json.loads(out)["rows"]) == (1, 0)
    file.write_text(DECLARED.replace("LIMIT", "100").replace("SEPARATOR", "';'"))
    code, out = command(*words, capsys=capsys)
    report = json.loads(out)
    assert (code, report["released"], report["rows"]) == (1, 2, 2)  # 99 degrees, and what was not parsed
    assert sorted(values(log)) == [("a", 10, 99.0), ("a", 11, 20.0), ("a", 12, 21.5)]
    assert [reason.startswith("temp") for reason in log.quarantine()["reason"]] == [True]  # 500 degrees, on its own now
