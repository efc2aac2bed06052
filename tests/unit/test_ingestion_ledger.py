"""The ledger and what it is committed with: polls, whole states, rows of which only some columns were sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import alignment as al
import ingestion
from ingestion import ObservationLog, create_log
from ingestion.ledger import Part, Poll, heartbeats, is_down, outages
from ingestion.revisions import WholeState

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Hands:
    """A clock that is set by hand."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def poll(outcome: str = "rows", minute: float = 0, **more: object) -> Poll:
    return Poll(source="http", started=at(minute), ended=at(minute), outcome=outcome, **more)  # type: ignore[arg-type]


def rows(*temps: tuple[str, float, float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "station": [station for station, _, _ in temps],
            "event_time": [at(minute) for _, minute, _ in temps],
            "temp": [temp for _, _, temp in temps],
        },
        schema_overrides={"temp": pl.Float64, "event_time": pl.Datetime("us", "UTC")},
    )


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def log(tmp_path: Path, clock: Hands) -> ObservationLog:
    return create_log(tmp_path, "mast", entities=["station"], drop_unchanged=True, clock=clock)


def test_rows_and_their_poll_are_one_commit_with_consecutive_numbers(log: ObservationLog) -> None:
    before = log.info().delta_version
    report = log.append(rows(("a", -10, 1.0), ("b", -10, 2.0)), poll=poll(bytes=99, version='"v1"', cursor={"n": 7}))
    # two rows are 0 and 1, the poll's record is 2; adding the first columns is a commit of its own
    assert (report.rows, report.position, report.new, report.revised) == (2, 2, 2, 0)
    assert log.info().delta_version == before + 2
    kept = log.polls().row(0, named=True)
    assert kept["outcome"] == "rows"
    assert (kept["new"], kept["revised"], kept["bytes"], kept["version"]) == (2, 0, 99, '"v1"')
    assert kept["recorded_time"] == report.arrival_time
    assert log.progress().cursor == {"n": 7}
    assert log.progress().after == 2
    assert log.scan().collect().height == 2


def test_the_ledger_says_what_became_of_each_row(log: ObservationLog, clock: Hands) -> None:
    log.append(rows(("a", -10, 1.0), ("b", -10, 2.0), ("c", -10, 3.0)), poll=poll())
    clock.now = at(10)
    again = rows(("a", -10, 1.0), ("b", -10, 2.5), ("c", -10, None), ("d", -10, 4.0), ("e", 600, 5.0))
    again = again.with_columns(is_retraction=pl.Series([False, False, True, False, False]))
    log.append(again, poll=poll(minute=10))
    kept = log.polls().row(1, named=True)
    # a repeats itself, b changed, c is withdrawn, d is new, e is ten hours in the future
    assert {name: kept[name] for name in ("new", "revised", "retracted", "unchanged", "quarantined")} == {
        "new": 1,
        "revised": 1,
        "retracted": 1,
        "unchanged": 1,
        "quarantined": 1,
    }


def test_a_row_after_a_retraction_is_new_and_its_repetition_is_not(log: ObservationLog, clock: Hands) -> None:
    gone = rows(("a", -10, None)).with_columns(is_retraction=pl.lit(value=True))
    log.append(rows(("a", -10, 1.0)), poll=poll())
    log.append(gone, poll=poll())
    log.append(rows(("a", -10, 1.0)), poll=poll())
    log.append(rows(("a", -10, 1.0)), poll=poll())
    assert log.polls().select("new", "retracted", "unchanged").rows() == [(1, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1)]
    assert log.polls()["outcome"].to_list() == ["rows", "rows", "rows", "empty"]


def test_an_empty_poll_is_stamped_and_a_failed_one_is_not(log: ObservationLog, clock: Hands) -> None:
    log.append(rows(("a", -10, 1.0)), poll=poll())
    seen = log.observed_through()
    clock.now = at(10)
    log.record_poll(poll("failed", 10, error="connection refused"))
    assert log.observed_through() == seen
    clock.now = at(20)
    log.record_poll(poll("empty", 20))
    assert log.observed_through() == at(20) + timedelta(milliseconds=500)
    assert log.polls()["outcome"].to_list() == ["rows", "failed", "empty"]
    assert log.polls()["error"].to_list() == [None, "connection refused", None]
    assert log.polls()["recorded_time"][1] == at(10)
    assert log.position() == 3


def test_a_failed_poll_leaves_the_cursor_where_it_was(log: ObservationLog) -> None:
    log.append(rows(("a", -10, 1.0)), poll=poll(cursor={"since": "x"}))
    before = log.progress()
    log.record_poll(poll("failed", error="reset"))
    log.record_poll(poll("idle"))
    assert log.progress() == before


def test_a_poll_that_another_job_overtook_stores_nothing(log: ObservationLog, tmp_path: Path, clock: Hands) -> None:
    log.append(rows(("a", -10, 1.0)), poll=poll(cursor={"n": 1}))
    other = ingestion.open_log(tmp_path, "mast", clock=clock)
    mine, theirs = log.progress(), other.progress()
    other.append(rows(("a", -10, 2.0)), poll=poll(cursor={"n": 2}), after=theirs.after)
    position = log.position()
    with pytest.raises(ingestion.SupersededError) as caught:
        log.append(rows(("a", -10, 1.5)), poll=poll(cursor={"n": 2}), after=mine.after)
    assert str(caught.value) == (
        "provider 'mast': another job has recorded a poll (log_sequence 3) since this one began (after 1)"
        "\n\nhint: nothing was stored; poll again."
    )
    assert log.position() == position
    with pytest.raises(ingestion.SupersededError):
        log.record_poll(poll("empty"), after=mine.after)
    log.record_poll(poll("failed", error="reset"))  # an attempt that failed is kept, whoever else succeeded


def test_the_same_batch_twice_records_one_poll(log: ObservationLog) -> None:
    frame = rows(("a", -10, 1.0))
    log.append(frame, batch_id="b-1", poll=poll())
    again = log.append(frame, batch_id="b-1", poll=poll())
    assert (again.rows, again.duplicates) == (0, 1)
    assert log.polls().height == 1


def test_files_that_were_read_are_known_by_their_newest_version(log: ObservationLog) -> None:
    log.append(rows(("a", -10, 1.0)), poll=poll(parts=(Part(label="x.csv", version="1", bytes=10),)))
    assert log.progress(seen=True).seen == {"x.csv": "1"}
    log.append(
        rows(("a", -5, 1.0)), poll=poll(parts=(Part(label="y.csv", version="1"), Part(label="x.csv", version="2")))
    )
    log.record_poll(poll("failed", parts=(Part(label="x.csv", version="3"),)))
    assert log.progress(seen=True).seen == {"x.csv": "2", "y.csv": "1"}


def test_what_cannot_be_read_goes_to_the_quarantine_with_its_poll(log: ObservationLog) -> None:
    report = log.record_poll(poll("refused", cursor={"n": 3}), aside=[("cannot be parsed: line 2", "not,a,row")])
    assert (report.rows, report.quarantined, report.position) == (0, 1, 1)
    kept = log.quarantine().row(0, named=True)
    assert (kept["reason"], kept["payload"], kept["row"]) == ("cannot be parsed: line 2", "not,a,row", None)
    assert log.progress().cursor == {"n": 3}
    assert log.polls()["quarantined"].to_list() == [1]


def test_a_contract_sets_rows_aside_with_the_row_as_it_came(log: ObservationLog) -> None:
    came = rows(("a", -10, 1.0), ("b", -10, 99.0)).with_columns(temp=pl.Series(["1.0", "99.0"]))
    reasons = pl.Series([None, "temp=99.0 is above max 60"])
    report = log.append(rows(("a", -10, 1.0), ("b", -10, 99.0)), reasons=reasons, original=came, poll=poll())
    assert (report.rows, report.quarantined, report.reasons) == (1, 1, {"temp=99.0 is above max 60": 1})
    assert '"temp":"99.0"' in log.quarantine()["payload"][0]
    assert log.quarantine()["station"].to_list() == ["b"]


def test_a_poll_all_of_whose_rows_are_set_aside_was_refused(log: ObservationLog) -> None:
    log.append(rows(("a", -10, 1.0)), reasons=pl.Series(["no"]), poll=poll(cursor={"n": 1}))
    assert log.polls()["outcome"].to_list() == ["refused"]
    assert log.progress().cursor == {"n": 1}
    assert heartbeats(log).height == 0


# ------------------------------------------------------------------------------------------------------------ whole state


def state(log: ObservationLog, as_of: datetime) -> list[tuple[object, ...]]:
    return al.snapshot(al.Observations(log), as_of).select("station", "event_time", "temp").sort("station").rows()


def test_what_is_missing_in_a_whole_state_is_retracted_and_may_come_back(log: ObservationLog, clock: Hands) -> None:
    whole = WholeState()
    log.append(rows(("a", -10, 1.0), ("b", -10, 2.0)), poll=poll(), whole_state=whole)
    clock.now = at(1)
    second = log.append(rows(("a", -10, 1.0)), poll=poll(minute=1), whole_state=whole)
    assert (second.rows, second.retracted, second.unchanged) == (1, 1, 1)
    assert state(log, at(1.5)) == [("a", at(-10), 1.0)]
    idle = log.append(rows(("a", -10, 1.0)), poll=poll(minute=1), whole_state=whole)
    assert (idle.rows, idle.unchanged) == (0, 1)  # what is gone is not withdrawn again
    assert state(log, at(0.5)) == [("a", at(-10), 1.0), ("b", at(-10), 2.0)]
    clock.now = at(2)
    third = log.append(rows(("a", -10, 1.0), ("b", -10, 2.0)), poll=poll(minute=2), whole_state=whole)
    assert (third.rows, third.new) == (1, 1)
    assert state(log, at(3)) == [("a", at(-10), 1.0), ("b", at(-10), 2.0)]


def test_what_left_the_window_of_a_whole_state_stays(log: ObservationLog) -> None:
    log.append(rows(("a", -60, 1.0), ("b", -10, 2.0)), poll=poll(), whole_state=WholeState())
    since = int(at(-60).timestamp() * 1_000_000)
    log.append(rows(("c", -5, 3.0)), poll=poll(), whole_state=WholeState(since_us=since))
    # a's event lies on the bound: it may have left the window; b's is inside it and gone
    assert [row[0] for row in state(log, at(1))] == ["a", "c"]


def test_an_id_that_moves_to_another_entity_in_a_whole_state_is_retracted_once(tmp_path: Path, clock: Hands) -> None:
    log = create_log(tmp_path, "quakes", entities=["net"], key=["id"], drop_unchanged=True, clock=clock)

    def quakes(net: str, minute: float) -> pl.DataFrame:
        return pl.DataFrame({"net": [net], "id": ["q1"], "event_time": [at(minute)], "mag": [5.0]})

    log.append(quakes("us", -10), poll=poll(), whole_state=WholeState())
    moved = log.append(quakes("ak", -10), poll=poll(), whole_state=WholeState())
    assert (moved.rows, moved.moved, moved.retracted) == (2, 0, 1)
    relocated = log.append(quakes("ak", -12), poll=poll(), whole_state=WholeState())
    assert (relocated.rows, relocated.revised, relocated.retracted) == (1, 1, 0)
    assert al.snapshot(al.Observations(log), at(5)).select("net", "event_time").rows() == [("ak", at(-12))]


# --------------------------------------------------------------------------------------------------------- absent columns


def sent(station: str, minute: float, absent: list[str], **values: float | None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "station": [station],
            "event_time": [at(minute)],
            "temp": [values.get("temp")],
            "wind": [values.get("wind")],
            "__absent": [absent],
        },
        schema_overrides={"temp": pl.Float64, "wind": pl.Float64, "__absent": pl.List(pl.String)},
    )


def test_a_column_that_was_not_sent_keeps_its_value_and_one_that_is_null_loses_it(log: ObservationLog) -> None:
    log.append(sent("a", -10, [], temp=1.0, wind=5.0))
    log.append(sent("a", -10, ["wind"], temp=2.0))
    log.append(sent("a", -10, ["temp"], wind=None))
    stored = log.scan().collect().sort("log_sequence").select("temp", "wind").rows()
    assert stored == [(1.0, 5.0), (2.0, 5.0), (2.0, None)]


def test_an_absent_column_is_filled_from_the_row_before_in_the_same_batch(log: ObservationLog) -> None:
    frames = [
        sent("a", -10, ["wind"], temp=1.0),
        sent("b", -10, [], temp=9.0, wind=9.0),
        sent("a", -10, ["temp"], wind=5.0),
        sent("a", -10, ["temp", "wind"]),
        sent("a", -10, ["wind"], temp=3.0),
    ]
    report = log.append(pl.concat(frames), poll=poll())
    stored = log.scan().collect().sort("log_sequence").select("station", "temp", "wind").rows()
    # the fourth row says nothing: it repeats the third and is not stored
    assert stored == [("a", 1.0, None), ("b", 9.0, 9.0), ("a", 1.0, 5.0), ("a", 3.0, 5.0)]
    assert report.unchanged == 1


def test_after_a_retraction_there_is_nothing_to_fill_an_absent_column_from(log: ObservationLog) -> None:
    log.append(sent("a", -10, [], temp=1.0, wind=5.0))
    log.append(sent("a", -10, []).with_columns(is_retraction=pl.lit(value=True)))
    log.append(sent("a", -10, ["wind"], temp=2.0))
    assert log.scan().collect().sort("log_sequence")["wind"].to_list() == [5.0, None, None]


# -------------------------------------------------------------------------------------------------------------- forecasts


def issue(minute: float, *winds: float) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "farm": ["f"] * len(winds),
            "event_time": [at(60 * hour) for hour in range(len(winds))],
            "issue_time": [at(minute)] * len(winds),
            "wind": list(winds),
        }
    )


def test_an_issue_that_is_sent_again_is_unchanged_and_a_new_one_with_equal_values_is_news(
    tmp_path: Path, clock: Hands
) -> None:
    log = create_log(tmp_path, "wind", entities=["farm"], kind="forecast", drop_unchanged=True, clock=clock)
    assert log.append(issue(-30, 1.0, 2.0), poll=poll()).new == 2
    again = log.append(issue(-30, 1.0, 2.5), poll=poll())
    assert (again.unchanged, again.revised, again.rows) == (1, 1, 1)
    news = log.append(issue(-20, 1.0, 2.5), poll=poll())
    assert (news.new, news.unchanged) == (2, 0)


def test_an_issue_that_comes_back_after_all_were_withdrawn_is_stored(tmp_path: Path, clock: Hands) -> None:
    log = create_log(tmp_path, "wind", entities=["farm"], kind="forecast", drop_unchanged=True, clock=clock)
    log.append(issue(-30, 1.0), poll=poll())
    gone = issue(-30, 1.0).with_columns(
        is_retraction=pl.lit(value=True),
        issue_time=pl.lit(None, pl.Datetime("us", "UTC")),
        wind=pl.lit(None, pl.Float64),
    )
    log.append(gone, poll=poll())
    assert log.append(issue(-30, 1.0), poll=poll()).rows == 1
    assert al.snapshot(al.Observations(log), at(5))["wind"].to_list() == [1.0]


# ----------------------------------------------------------------------------------------- heartbeats, as R20 says


def test_a_provider_is_down_when_its_last_heartbeat_is_as_old_as_it_may_be(log: ObservationLog, clock: Hands) -> None:
    assert is_down(log, at(0), "30m")
    log.append(rows(("a", -10, 1.0)), poll=poll())
    stamp = log.polls()["recorded_time"][0]
    assert is_down(log, stamp - timedelta(microseconds=1), "30m")  # it had not been heard of yet
    assert not is_down(log, stamp, "30m")
    assert not is_down(log, stamp + timedelta(minutes=30) - timedelta(microseconds=1), "30m")
    assert is_down(log, stamp + timedelta(minutes=30), "30m")  # (t - down_after, t] is open on the left
    clock.now = at(29)
    log.record_poll(poll("empty", 29))
    assert not is_down(log, stamp + timedelta(minutes=30), "30m")
    assert is_down(log, stamp + timedelta(minutes=30), "30m", position=1)  # the empty poll is record 2


def test_failed_polls_and_history_are_no_heartbeats(log: ObservationLog) -> None:
    log.record_poll(poll("failed", error="reset"))
    log.record_poll(poll("idle"))
    log.append(rows(("a", -600, 1.0)), backfill=True, delay=al.FixedDelay("45m"))
    assert heartbeats(log).height == 0


def test_an_outage_ends_with_the_next_heartbeat_and_counts_what_caught_up(log: ObservationLog, clock: Hands) -> None:
    for minute, count in ((0, 1), (10, 1), (90, 3), (100, 1)):
        clock.now = at(minute)
        log.append(rows(*(("a", minute - 10 - i, float(i)) for i in range(count))), poll=poll(minute=minute))
    margin = timedelta(milliseconds=500)
    clock.now = at(400)
    assert outages(log, "30m", now=at(105)).rows() == [(at(10) + margin, at(40) + margin, at(90) + margin, 3)]
    open_ones = outages(log, "30m", now=at(200))
    assert open_ones.row(1) == (at(100) + margin, at(130) + margin, None, 0)


def test_polls_survive_compaction_and_are_counted(log: ObservationLog, clock: Hands) -> None:
    for minute in range(6):
        clock.now = at(minute)
        log.append(
            rows(("a", minute - 1, float(minute)), ("b", 600 + minute, 1.0)),
            poll=poll(minute=minute, cursor={"n": minute}),
        )
        log.record_poll(poll("empty", minute, cursor={"n": minute + 100}))
    before, progress = log.polls(), log.progress()
    report = log.compact(vacuum=True)
    assert report.files_after == 3  # observations, quarantined rows, polls
    assert log.polls().equals(before)
    assert log.progress() == progress
    assert progress.cursor == {"n": 105}
    assert log.info().records["poll"] == 12
    assert log.info().records["quarantined"] == 6


# --------------------------------------------------------------------------------------------------------------- settings


def test_settings_of_a_provider_may_change_and_what_rows_are_by_may_not(log: ObservationLog, tmp_path: Path) -> None:
    other = ingestion.open_log(tmp_path, "mast")
    assert log.redefine(clock_tolerance="1m", retention="30d").clock_tolerance == "1m"
    other.position()
    assert other.definition == log.definition
    with pytest.raises(ingestion.DefinitionError) as caught:
        log.redefine(entities=("site",))
    assert str(caught.value) == (
        "provider 'mast': entities cannot be changed"
        "\n\nhint: what rows are by stays; make a new log for another key, and load the rows into it."
    )


def test_a_row_of_a_whole_state_that_is_set_aside_is_not_gone(log: ObservationLog) -> None:
    log.append(rows(("a", -10, 1.0), ("b", -10, 2.0), ("c", -10, 3.0)), poll=poll(), whole_state=WholeState())
    broken = rows(("a", -10, 1.0), ("b", -10, 99.0))
    report = log.append(broken, reasons=pl.Series([None, "too hot"]), poll=poll(), whole_state=WholeState())
    # c is gone, b was sent but cannot be believed: it keeps the value that it had
    assert (report.retracted, report.quarantined) == (1, 1)
    assert state(log, at(1)) == [("a", at(-10), 1.0), ("b", at(-10), 2.0)]


def test_a_stream_of_batches_is_remembered_by_its_last_number(log: ObservationLog, tmp_path: Path) -> None:
    def place(number: int) -> tuple[str, int]:
        return ("spool-1", number)

    log.append(rows(("a", -10, 1.0)), stream=place(1))
    log.append(rows(("a", -9, 1.0)), stream=place(2))
    again = log.append(rows(("a", -9, 1.0)), stream=place(2))
    assert (again.rows, again.duplicates) == (0, 1)
    assert log.append(rows(("a", -8, 1.0)), stream=("spool-2", 1)).rows == 1
    log.record_poll(poll("empty"), stream=place(3))
    log.record_poll(poll("empty"), stream=place(3))
    assert log.polls().height == 1
    markers = [action for action in log.table.delta.history() if action.get("operation") == "WRITE"]
    assert len(markers) == 4


def test_a_poll_whose_answer_was_lost_is_not_stored_twice(log: ObservationLog) -> None:
    before = log.progress()
    log.append(rows(("a", -10, 1.0)), poll=poll(), after=before.after)
    with pytest.raises(ingestion.SupersededError):
        log.append(rows(("a", -10, 1.0)), poll=poll(), after=before.after)
    assert log.scan().collect().height == 1


def test_a_batch_that_nobody_named_leaves_no_marker(log: ObservationLog) -> None:
    log.append(rows(("a", -10, 1.0)))
    log.record_poll(poll("failed", error="reset"))
    entries = [path.read_text() for path in (Path(log.address) / "_delta_log").glob("*.json")]
    assert not any('"batch:' in text for text in entries)
    log.append(rows(("a", -9, 1.0)), batch_id="named")
    assert any('"batch:' in path.read_text() for path in (Path(log.address) / "_delta_log").glob("*.json"))


# ------------------------------------------------------------------------------------------------ several rows of one key


def test_a_retraction_has_nothing_to_fill_from_and_leaves_nothing_in_the_same_batch(log: ObservationLog) -> None:
    gone = sent("a", -10, ["temp", "wind"]).with_columns(is_retraction=pl.lit(value=True))
    parts = [sent("a", -10, [], temp=1.0, wind=9.0), gone, sent("a", -10, ["wind"], temp=2.0)]
    together = pl.concat([part.with_columns(is_retraction=pl.lit(value=i == 1)) for i, part in enumerate(parts)])
    log.append(together)
    stored = log.scan().collect().sort("log_sequence").select("temp", "wind", "is_retraction").rows()
    assert stored == [(1.0, 9.0, False), (None, None, True), (2.0, None, False)]


def test_an_absent_column_of_a_forecast_is_filled_from_its_own_issue(tmp_path: Path, clock: Hands) -> None:
    log = create_log(tmp_path, "wind", entities=["farm"], kind="forecast", clock=clock)

    def row(issued: int | None, absent: list[str], **values: float) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "farm": ["f"],
                "event_time": [at(60)],
                "issue_time": [None if issued is None else at(issued)],
                "is_retraction": [issued is None],
                "low": [values.get("low")],
                "high": [values.get("high")],
                "__absent": [absent],
            },
            schema_overrides={
                "low": pl.Float64, "high": pl.Float64, "issue_time": pl.Datetime("us", "UTC"), "__absent": pl.List(pl.String)
            },
        )  # fmt: skip

    log.append(row(-30, [], low=1.0, high=1.5))
    log.append(row(-20, ["high"], low=2.0))
    log.append(pl.concat([row(-30, ["low"], high=9.0), row(-20, ["low"], high=8.0)]))
    log.append(pl.concat([row(None, ["low", "high"]), row(-20, ["low"], high=7.0)]))
    stored = log.scan().collect().sort("log_sequence").select("low", "high").rows()
    # the second issue knows nothing of the first; what withdraws all of them leaves nothing to fill from
    assert stored == [(1.0, 1.5), (2.0, None), (1.0, 9.0), (2.0, 8.0), (None, None), (None, 7.0)]


def quakes(*rows: tuple[str, bool]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "net": [net for net, _ in rows],
            "id": ["q"] * len(rows),
            "event_time": [at(-10)] * len(rows),
            "mag": [None if gone else 5.0 for _, gone in rows],
            "is_retraction": [gone for _, gone in rows],
        },
        schema_overrides={"mag": pl.Float64},
    )


@pytest.mark.parametrize("drops", [True, False])
def test_an_id_that_moves_away_and_back_in_one_batch_is_where_it_ended(
    tmp_path: Path, clock: Hands, *, drops: bool
) -> None:
    log = create_log(tmp_path, "quakes", entities=["net"], key=["id"], drop_unchanged=drops, clock=clock)
    log.append(quakes(("a", False)))
    assert log.append(quakes(("b", False), ("a", False))).moved == 2
    assert al.snapshot(al.Observations(log), at(5))["net"].to_list() == ["a"]


@pytest.mark.parametrize("drops", [True, False])
def test_a_retraction_where_an_id_does_not_live_does_not_hide_where_it_does(
    tmp_path: Path, clock: Hands, *, drops: bool
) -> None:
    log = create_log(tmp_path, "quakes", entities=["net"], key=["id"], drop_unchanged=drops, clock=clock)
    log.append(quakes(("b", False)))
    log.append(quakes(("a", True), ("a", False)))
    assert al.snapshot(al.Observations(log), at(5))["net"].to_list() == ["a"]


@pytest.mark.parametrize(
    ("dtype", "first", "second"),
    [
        (pl.List(pl.Float64), [float("nan")], [None]),
        (pl.List(pl.Float64), [float("inf")], [None]),
        (pl.List(pl.Float32), [0.0], [-0.0]),
        (pl.Array(pl.Float64, 2), [None, 1.0], [float("nan"), 1.0]),
        (pl.Struct({"x": pl.Float64}), {"x": float("nan")}, {"x": None}),
        (pl.Struct({"x": pl.Float64}), {"x": None}, None),
        (pl.List(pl.Binary), [b"\x00"], [b"\x01"]),
        (pl.List(pl.Struct({"x": pl.Float64})), [{"x": 0.0}], [{"x": -0.0}]),
    ],
)
def test_nested_values_are_compared_bit_for_bit(
    log: ObservationLog, dtype: pl.DataType, first: object, second: object
) -> None:
    def row(value: object) -> pl.DataFrame:
        return pl.DataFrame({"station": ["a"], "event_time": [at(-10)], "v": pl.Series([value], dtype=dtype)})

    assert [log.append(row(value)).rows for value in (first, first, second, second, first)] == [1, 0, 1, 0, 1]


# ---------------------------------------------------------------------------------------- what may be claimed, and what not


def test_a_poll_of_which_nothing_was_kept_does_not_move_observed_through(log: ObservationLog, clock: Hands) -> None:
    log.append(rows(("a", -10, 1.0)), poll=poll())
    seen = log.observed_through()
    clock.now = at(60)
    log.append(rows(("a", -10, 99.0)), reasons=pl.Series(["no"]), poll=poll(minute=60))
    log.append(rows(("a", 900, 1.0)), poll=poll(minute=60))  # from the future: the clock rule sets it aside
    assert log.polls()["outcome"].to_list()[1:] == ["refused", "refused"]
    assert log.observed_through() == seen


def test_a_whole_state_with_a_row_whose_key_cannot_be_read_is_not_compared(log: ObservationLog) -> None:
    log.append(rows(("a", -10, 1.0), ("b", -10, 2.0)), poll=poll(), whole_state=WholeState())
    garbled = rows(("a", -10, 1.0), ("b", -10, 2.0)).with_columns(
        event_time=pl.Series([at(-10), None], dtype=pl.Datetime("us", "UTC"))
    )
    report = log.append(garbled, reasons=pl.Series([None, "cannot be read"]), poll=poll(), whole_state=WholeState())
    assert (report.retracted, report.quarantined) == (0, 1)
    assert "not compared" in log.polls()["notes"][1][0]


def test_a_forecast_has_no_whole_state(tmp_path: Path) -> None:
    log = create_log(tmp_path, "wind", entities=["farm"], kind="forecast")
    with pytest.raises(ingestion.BatchError) as caught:
        log.append(issue(-30, 1.0), whole_state=WholeState())
    assert str(caught.value) == (
        "provider 'wind': a forecast has no whole state, each issue stands beside those before it"
        "\n\nhint: append its rows as they are; an issue that is withdrawn is a retraction."
    )


def test_history_that_would_arrive_later_than_now_is_set_aside(log: ObservationLog) -> None:
    report = log.append(rows(("a", -60, 1.0), ("a", -600, 2.0)), backfill=True, delay=al.FixedDelay("6h"))
    assert (report.rows, report.reasons) == (
        1,
        {"its declared arrival is still to come; it cannot be called history": 1},
    )
    assert log.observed_through() == at(-240)


def test_a_measured_row_is_not_dropped_because_history_says_the_same(log: ObservationLog) -> None:
    log.append(rows(("a", -600, 1.0)), backfill=True, delay=al.FixedDelay("1h"))
    assert log.append(rows(("a", -600, 1.0))).rows == 1
    again = log.append(rows(("a", -600, 3.0)), backfill=True, delay=al.FixedDelay("1h"))
    assert (again.rows, again.skipped_measured) == (0, 1)


def test_what_was_decided_or_overtaken_is_set_aside_again(log: ObservationLog, clock: Hands) -> None:
    def bad() -> int:
        clock.now += timedelta(minutes=1)
        reasons = pl.Series(["too hot"])
        return log.append(rows(("a", -10, 50.0)), reasons=reasons, poll=poll()).quarantined

    assert [bad(), bad()] == [1, 0]
    log.append(rows(("a", -10, 5.0)), poll=poll())
    assert [bad(), bad()] == [1, 0]
    ingestion.drop_quarantined(log, why="a broken sensor")
    assert [bad(), bad()] == [1, 0]


def test_a_row_with_an_id_is_set_aside_once(tmp_path: Path, clock: Hands) -> None:
    log = create_log(tmp_path, "quakes", entities=["net"], key=["id"], drop_unchanged=True, clock=clock)
    for stored, quarantined in ((1, 1), (0, 0)):
        both = quakes(("a", False), ("b", False)).with_columns(id=pl.Series(["q", "r"]))
        report = log.append(both, reasons=pl.Series([None, "no such net"]), poll=poll())
        assert (report.rows, report.quarantined) == (stored, quarantined)


def test_an_id_that_moved_has_nothing_to_fill_an_absent_column_from(tmp_path: Path, clock: Hands) -> None:
    log = create_log(tmp_path, "quakes", entities=["net"], key=["id"], drop_unchanged=True, clock=clock)

    def moved(nets: str) -> pl.DataFrame:
        absent = pl.Series("__absent", [["mag"]] * len(nets), dtype=pl.List(pl.String))
        return quakes(*((net, False) for net in nets)).with_columns(mag=pl.lit(None, pl.Float64)).with_columns(absent)

    log.append(quakes(("a", False)))
    log.append(moved("ba"))
    assert al.snapshot(al.Observations(log), at(5)).select("net", "mag").rows() == [("a", None)]
    log.append(moved("a"))
    assert log.scan().collect().filter(~pl.col("is_retraction"))["mag"].to_list() == [5.0, None, None]
