"""What `append` does to rows: arrivals, stamps, bad rows, history, unchanged rows, moved ids."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

import ingestion
from alignment import FixedDelay
from ingestion import ObservationLog, create_log, open_log

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE, SECOND, MICRO = timedelta(minutes=1), timedelta(seconds=1), timedelta(microseconds=1)


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> ObservationLog:
    return create_log(tmp_path, "weather", entities=["station"], publish_margin="1s", clock=clock)


def batch(*rows: tuple[str | None, datetime | None, float | None]) -> pl.DataFrame:
    schema = {"station": pl.String, "event_time": pl.Datetime("us", "UTC"), "temp": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def seen(log: ObservationLog, *columns: str) -> list[tuple[object, ...]]:
    return log.scan().sort("log_sequence").select(columns).collect().rows()


def test_a_batch_is_stamped_at_now_plus_margin_with_one_instant(log: ObservationLog) -> None:
    report = log.append(batch(("a", NOON - MINUTE, 1.0), ("b", NOON - 2 * MINUTE, None)))
    # margin is 1 s
    assert seen(log, "station", "arrival_time", "log_sequence", "arrival_kind") == [
        ("a", NOON + SECOND, 0, "measured"),
        ("b", NOON + SECOND, 1, "measured"),
    ]
    assert (report.rows, report.position, report.arrival_time) == (2, 1, NOON + SECOND)
    assert (log.position(), log.observed_through()) == (1, NOON + SECOND)


def test_a_stamp_is_never_before_the_last_one_even_if_the_clock_goes_back(log: ObservationLog, clock: Clock) -> None:
    log.append(batch(("a", NOON - MINUTE, 1.0)))
    clock.now = NOON - timedelta(hours=1)
    log.append(batch(("a", NOON - 70 * MINUTE, 2.0)))
    assert seen(log, "arrival_time") == [(NOON + SECOND,), (NOON + SECOND + MICRO,)]


def test_a_stamp_keeps_its_margin_from_what_the_clock_showed_before_it_was_set_back(
    log: ObservationLog, clock: Clock
) -> None:
    clock.now = NOON - timedelta(hours=1)
    log.append(batch(("a", NOON - 2 * MINUTE, 1.0)), received_time=NOON)
    # a reader may have asked at 12:00 too, before the clock was set back: the row must not count for it
    assert seen(log, "arrival_time") == [(NOON + SECOND,)]


def test_an_empty_log_has_position_minus_one(log: ObservationLog) -> None:
    assert log.position() == -1
    assert log.observed_through() is None
    assert log.scan().collect().height == 0
    assert log.info().rows == 0


def test_the_same_batch_id_appends_once(log: ObservationLog) -> None:
    frame = batch(("a", NOON - MINUTE, 1.0))
    log.append(frame, batch_id="monday")
    again = log.append(frame, batch_id="monday")
    assert (again.rows, again.duplicates, again.position) == (0, 1, 0)
    assert log.scan().collect().height == 1


def test_a_batch_that_lost_its_acknowledgement_is_there_once(
    log: ObservationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = batch(("a", NOON - MINUTE, 1.0))
    commit = log.table.commit

    def commit_and_fail(*args: object, **kwargs: object) -> None:
        commit(*args, **kwargs)  # type: ignore[arg-type]
        raise OSError("the answer got lost")

    monkeypatch.setattr(log.table, "commit", commit_and_fail)
    assert log.append(frame, batch_id="monday").rows == 1
    monkeypatch.undo()
    assert log.append(frame, batch_id="monday").duplicates == 1
    assert log.scan().collect().height == 1


def test_a_lost_race_stamps_and_numbers_again(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    first = create_log(tmp_path, "weather", entities=["station"], publish_margin="1s", clock=clock)
    first.append(batch(("a", NOON - MINUTE, 0.0)))
    second = open_log(tmp_path, "weather", clock=clock)
    unlocked(first, monkeypatch)
    unlocked(second, monkeypatch)
    commit = first.table.commit
    raced = []

    def commit_too_late(*args: object, **kwargs: object) -> None:
        if not raced:
            raced.append(second.append(batch(("b", NOON - MINUTE, 1.0))))
        commit(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(first.table, "commit", commit_too_late)
    report = first.append(batch(("c", NOON - MINUTE, 2.0)))
    assert report.attempts == 2
    assert seen(first, "station", "log_sequence", "arrival_time") == [
        ("a", 0, NOON + SECOND),
        ("b", 1, NOON + SECOND + MICRO),
        ("c", 2, NOON + SECOND + 2 * MICRO),
    ]
    # the file of the lost race is gone
    assert len(list((tmp_path / "weather").glob("*.parquet"))) == 3


def unlocked(log: ObservationLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """No lock, as in an object store: only the commit itself guards the order."""
    monkeypatch.setattr(log.table, "commit_lock", contextlib.nullcontext)


def test_a_commit_confirmed_after_its_stamp_is_restamped(log: ObservationLog) -> None:
    ticks = iter([NOON, NOON + 5 * SECOND, NOON + 5 * SECOND, NOON + 6 * SECOND])
    # stamped at 12:00:00 + 1 s, confirmed at 12:00:05: late by 4 s, so twice that ahead of 12:00:05
    report = log.append(batch(("a", NOON - MINUTE, 1.0)), clock=lambda: next(ticks))
    assert report.restamped == NOON + 13 * SECOND
    assert seen(log, "arrival_time") == [(NOON + 13 * SECOND,)]
    assert log.position() == 1
    assert log.scan(position=0).collect()["arrival_time"].to_list() == [NOON + SECOND]
    assert log.scan(as_of=NOON + 5 * SECOND).collect().height == 0
    assert log.scan(as_of=NOON + 5 * SECOND, position=0).collect().height == 1
    assert log.restamps()["log_sequence"].to_list() == [1]


def test_a_late_commit_of_a_dead_writer_is_restamped_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # without a margin a slow commit is late; the first writer dies before it can see that
    log = create_log(tmp_path, "weather", entities=["station"], publish_margin="0s")
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    with monkeypatch.context() as dying:
        dying.setattr("ingestion.append._confirm", lambda *_: None)
        write = log.table.write_file
        dying.setattr(log.table, "write_file", lambda frame: (write(frame), time.sleep(0.05))[0])
        first = log.append(batch(("a", hour_ago, 1.0)), batch_id="dead")
    assert log.restamps().is_empty()
    log.append(batch(("b", hour_ago, 2.0)), batch_id="alive")
    assert log.restamps()["batch_id"].to_list() == ["dead", "alive"]
    arrivals = dict(log.scan().select("station", "arrival_time").collect().iter_rows())
    assert first.arrival_time is not None
    assert first.arrival_time < arrivals["a"] < arrivals["b"]


def test_stamps_of_another_clock_are_not_compared_with_the_stores(tmp_path: Path, clock: Clock) -> None:
    simulated = create_log(tmp_path, "weather", entities=["station"], publish_margin="1s", clock=clock)
    simulated.append(batch(("a", NOON - MINUTE, 1.0)))
    open_log(tmp_path, "weather").append(batch(("b", NOON - MINUTE, 2.0)))
    assert simulated.restamps().is_empty()
    assert seen(simulated, "arrival_time")[0] == (NOON + SECOND,)


def test_given_arrivals_stay_as_they_are_and_hold_back_later_stamps(log: ObservationLog, clock: Clock) -> None:
    frame = batch(("a", NOON - 2 * MINUTE, 1.0)).with_columns(arrival_time=pl.lit(NOON - MINUTE))
    log.append(frame)
    clock.now = NOON - timedelta(hours=1)
    log.append(batch(("a", NOON - 90 * MINUTE, 2.0)))
    assert seen(log, "arrival_time") == [(NOON - MINUTE,), (NOON - MINUTE + MICRO,)]


def test_a_measured_arrival_in_the_future_is_refused(log: ObservationLog) -> None:
    frame = batch(("a", NOON, 1.0)).with_columns(arrival_time=pl.lit(NOON + MINUTE))
    with pytest.raises(ingestion.BatchError) as caught:
        log.append(frame)
    assert str(caught.value) == (
        "provider 'weather': 1 rows have a measured arrival in the future; first: 2026-03-01 12:01:00+00:00,"
        " and it is 2026-03-01 12:00:00+00:00\n\n"
        "hint: give the clock that they were stamped by (clock=...), or load them as a forecast or with delay=."
    )
    assert log.position() == -1


def test_history_without_a_delay_rule_is_an_error(log: ObservationLog) -> None:
    with pytest.raises(ingestion.UnknownArrivalError) as caught:
        log.append(batch(("a", NOON - MINUTE, 1.0)), backfill=True)
    assert str(caught.value) == (
        "provider 'weather': 1 rows are declared history, and nothing says how late they were\n\n"
        'hint: say how late they were: append(frame, delay=alignment.FixedDelay("45m"), ...).'
    )
    nulls = batch(("a", NOON - MINUTE, 1.0)).with_columns(arrival_time=pl.lit(None, pl.Datetime("us", "UTC")))
    with pytest.raises(ingestion.UnknownArrivalError, match="1 of 1 rows have no arrival_time"):
        log.append(nulls)


def test_history_is_marked_and_skips_keys_that_were_measured(log: ObservationLog) -> None:
    log.append(batch(("a", NOON - MINUTE, 1.0)))
    report = log.append(
        batch(("a", NOON - MINUTE, 9.0), ("b", NOON - 60 * MINUTE, 2.0)), backfill=True, delay=FixedDelay("45m")
    )
    assert (report.rows, report.skipped_measured) == (1, 1)
    assert seen(log, "station", "arrival_time", "arrival_kind", "temp") == [
        ("a", NOON + SECOND, "measured", 1.0),
        ("b", NOON - 15 * MINUTE, "declared", 2.0),
    ]


def test_history_may_revise_history(log: ObservationLog) -> None:
    early = batch(("a", NOON - 60 * MINUTE, 1.0))
    log.append(early, backfill=True, delay=FixedDelay("10m"))
    report = log.append(early.with_columns(temp=2.0), backfill=True, delay=FixedDelay("20m"))
    assert (report.rows, report.skipped_measured) == (1, 0)
    assert seen(log, "arrival_time", "temp") == [(NOON - 50 * MINUTE, 1.0), (NOON - 40 * MINUTE, 2.0)]


def test_only_rows_without_arrival_take_it_from_the_delay_rule(log: ObservationLog) -> None:
    frame = batch(("a", NOON - 60 * MINUTE, 1.0), ("b", NOON - 60 * MINUTE, 2.0)).with_columns(
        arrival_time=pl.Series([NOON - 50 * MINUTE, None], dtype=pl.Datetime("us", "UTC"))
    )
    log.append(frame, delay=FixedDelay("45m"))
    assert seen(log, "arrival_time", "arrival_kind") == [
        (NOON - 50 * MINUTE, "measured"),
        (NOON - 15 * MINUTE, "declared"),
    ]


def test_an_event_within_the_tolerance_raises_the_arrival_and_one_beyond_it_is_quarantined(log: ObservationLog) -> None:
    stamp = NOON + SECOND
    report = log.append(
        batch(("a", stamp + 5 * SECOND, 1.0), ("b", stamp + 5 * SECOND + MICRO, 2.0), ("c", stamp, 3.0))
    )
    # exactly the tolerance (5 s) is kept
    assert (report.rows, report.clock_raised, report.quarantined) == (2, 1, 1)
    assert seen(log, "station", "arrival_time") == [("a", stamp + 5 * SECOND), ("c", stamp)]
    kept = log.quarantine()
    assert kept.select("station", "reason", "row").rows() == [("b", "event_time is more than 5s after arrival_time", 1)]
    assert '"temp":2.0' in kept["payload"][0].replace(" ", "")


def test_rows_without_a_key_are_quarantined_with_what_they_were(log: ObservationLog) -> None:
    report = log.append(batch((None, NOON - MINUTE, 1.0), ("a", None, 2.0), ("a", NOON - MINUTE, 3.0)))
    assert report.reasons == {"station is null": 1, "event_time is null": 1}
    assert log.quarantine()["reason"].to_list() == ["station is null", "event_time is null"]
    assert seen(log, "temp") == [(3.0,)]


def test_a_provider_may_raise_on_bad_rows_instead(tmp_path: Path, clock: Clock) -> None:
    log = create_log(tmp_path, "weather", entities=["station"], on_bad_row="raise", publish_margin="1s", clock=clock)
    with pytest.raises(ingestion.NullKeyError) as null:
        log.append(batch((None, NOON - MINUTE, 1.0)))
    assert str(null.value) == (
        "provider 'weather': 1 rows: station is null\n\n"
        'hint: drop them: frame.drop_nulls("station"), or set on_bad_row="quarantine".'
    )
    with pytest.raises(ingestion.EventAfterArrivalError) as late:
        log.append(batch(("a", NOON + MINUTE, 1.0)))
    assert str(late.value) == (
        "provider 'weather': 1 rows have an event_time later than their arrival by more than 5s; first: station=a,"
        " event_time=2026-03-01 12:01:00.000000+00:00, arrival_time=2026-03-01 12:00:01.000000+00:00\n\n"
        'hint: if they tell the future, the provider is of kind="forecast"; if its clock is off, widen'
        ' clock_tolerance="1m"; on_bad_row="quarantine" sets them aside.'
    )
    assert log.position() == -1


def test_a_forecast_without_issue_time_is_its_own_issue(tmp_path: Path, clock: Clock) -> None:
    log = create_log(tmp_path, "wind", entities=["station"], kind="forecast", publish_margin="1s", clock=clock)
    log.append(batch(("a", NOON + 60 * MINUTE, 1.0)))
    assert seen(log, "issue_time", "arrival_time") == [(NOON + SECOND, NOON + SECOND)]
    report = log.append(
        batch(("a", NOON + 60 * MINUTE, 1.0), ("a", NOON + 60 * MINUTE, None)).with_columns(
            issue_time=pl.lit(None, pl.Datetime("us", "UTC")), is_retraction=pl.Series([False, True])
        )
    )
    # a retraction without issue withdraws all of them; a value without issue cannot be placed
    assert (report.rows, report.reasons) == (1, {"issue_time is null": 1})


def test_a_retraction_needs_the_key_only(log: ObservationLog) -> None:
    log.append(batch(("a", NOON - MINUTE, 1.0)))
    log.append(pl.DataFrame({"station": ["a"], "event_time": [NOON - MINUTE], "is_retraction": [True]}))
    assert seen(log, "is_retraction", "temp") == [(False, 1.0), (True, None)]


@pytest.mark.parametrize("form", ["lazy", "arrow", "parquet", "pandas"])
def test_a_batch_may_come_in_any_form(log: ObservationLog, tmp_path: Path, form: str) -> None:
    frame = batch(("a", NOON - MINUTE, 1.5))
    path = tmp_path / "batch.parquet"
    frame.write_parquet(path)
    given = {"lazy": frame.lazy(), "arrow": frame.to_arrow(), "parquet": path, "pandas": frame.to_pandas()}[form]
    log.append(given)
    assert seen(log, "station", "event_time", "temp") == [("a", NOON - MINUTE, 1.5)]


def test_what_is_no_frame_is_refused(log: ObservationLog) -> None:
    with pytest.raises(ingestion.BatchError, match="a batch cannot be read from int"):
        log.append(7)


def test_nanoseconds_round_up(log: ObservationLog) -> None:
    nanoseconds = pl.Series([1_700_000_000_000_000_001]).cast(pl.Datetime("ns", "UTC"))
    log.append(pl.DataFrame({"station": ["a"], "event_time": nanoseconds, "temp": [1.0]}))
    assert seen(log, "event_time") == [(datetime.fromtimestamp(1_700_000_000, UTC) + MICRO,)]


def test_naive_instants_are_refused(log: ObservationLog) -> None:
    frame = pl.DataFrame({"station": ["a"], "event_time": [datetime(2026, 3, 1)], "temp": [1.0]})  # noqa: DTZ001
    with pytest.raises(ingestion.NaiveTimeError) as caught:
        log.append(frame)
    assert str(caught.value) == (
        "provider 'weather': 'event_time' has no time zone\n\n"
        'hint: say what zone it is in, e.g. pl.col("event_time").dt.replace_time_zone("UTC").'
    )


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda f: f.drop("event_time"), ingestion.MissingColumnError, "the batch has no column 'event_time'"),
        (lambda f: f.rename({"station": "statoin"}), ingestion.MissingColumnError, "did you mean 'statoin'?"),
        (lambda f: f.with_columns(log_sequence=1), ingestion.ReservedColumnError, "'log_sequence' is the log's own"),
        (lambda f: f.rename({"temp": "@temp"}), ingestion.SchemaChangeError, "'@temp' begins with \"@\""),
        (lambda f: f.with_columns(Temp=1.0), ingestion.SchemaChangeError, "'Temp' and 'temp' differ in case alone"),
        (lambda f: f.with_columns(Event_Time=1), ingestion.SchemaChangeError, "'event_time' differ in case alone"),
        (lambda f: f.with_columns(event_time=pl.lit("x")), ingestion.ColumnTypeError, "'event_time' has type String"),
        (lambda f: f.with_columns(is_retraction=1), ingestion.ColumnTypeError, "'is_retraction' has type Int32"),
        (
            lambda f: f.with_columns(arrival_time=pl.lit(NOON), arrival_kind=pl.lit("guess")),
            ingestion.BatchError,
            "'guess'",
        ),
        (lambda f: f.with_columns(x=pl.lit(None)), ingestion.ColumnTypeError, "every value is null"),
    ],
)
def test_other_bad_frames_are_refused_whole(log: ObservationLog, change: object, error: type, text: str) -> None:
    with pytest.raises(error, match=".*") as caught:
        log.append(change(batch(("a", NOON - MINUTE, 1.0))))  # type: ignore[operator]
    assert text in str(caught.value)
    assert log.position() == -1


def test_unchanged_rows_are_not_stored_where_the_provider_says_so(tmp_path: Path, clock: Clock) -> None:
    log = create_log(tmp_path, "tags", entities=["station"], drop_unchanged=True, publish_margin="1s", clock=clock)
    zero, minus_zero, nan = 0.0, -0.0, float("nan")
    events = [NOON - n * MINUTE for n in range(1, 5)]
    log.append(batch(("a", events[0], 1.0), ("a", events[1], zero), ("a", events[2], nan), ("a", events[3], None)))
    report = log.append(
        batch(("a", events[0], 1.0), ("a", events[1], minus_zero), ("a", events[2], nan), ("a", events[3], None))
    )
    # 0.0 and -0.0 differ in a bit; NaN and null repeat themselves
    assert (report.rows, report.unchanged) == (1, 3)
    report = log.append(batch(("a", events[0], 2.0), ("a", events[0], 2.0), ("a", events[0], 1.0)))
    # within a batch too: 1 -> 2 (kept), 2 (dropped), 1 (kept)
    assert (report.rows, report.unchanged) == (2, 1)
    assert log.scan().collect().height == 7


def test_a_provider_that_drops_unchanged_rows_refuses_history_in_between(tmp_path: Path, clock: Clock) -> None:
    log = create_log(tmp_path, "tags", entities=["station"], drop_unchanged=True, publish_margin="1s", clock=clock)
    log.append(batch(("a", NOON - 60 * MINUTE, 5.0)))
    late = batch(("a", NOON - 60 * MINUTE, 7.0), ("b", NOON - 60 * MINUTE, 7.0)).with_columns(
        arrival_time=pl.lit(NOON - 30 * MINUTE)
    )
    with pytest.raises(ingestion.BackfillRefusedError) as caught:
        log.append(late)
    assert caught.value.rows == 1
    assert "station=a" in str(caught.value)
    # a key that was never measured is free
    assert log.append(late.filter(pl.col("station") == "b")).rows == 1


def test_an_id_under_another_entity_leaves_a_retraction(tmp_path: Path, clock: Clock) -> None:
    log = create_log(tmp_path, "orders", entities=["site"], key=["id"], publish_margin="1s", clock=clock)
    rows = pl.DataFrame({"site": ["a", "a"], "id": [1, 2], "event_time": [NOON - MINUTE] * 2, "size": [10, 20]})
    log.append(rows)
    report = log.append(rows.with_columns(site=pl.Series(["b", "a"])))
    assert (report.rows, report.moved) == (3, 1)
    assert seen(log, "site", "id", "is_retraction", "size", "log_sequence")[2:] == [
        ("a", 1, True, None, 2),
        ("b", 1, False, 10, 3),
        ("a", 2, False, 20, 4),
    ]
    back = log.append(rows.head(1))
    assert back.moved == 1
    assert seen(log, "site", "is_retraction")[-2:] == [("b", True), ("a", False)]


def test_one_series_needs_no_entity(tmp_path: Path, clock: Clock) -> None:
    log = create_log(tmp_path, "price", entities=[], clock=clock)
    log.append(pl.DataFrame({"event_time": [NOON - MINUTE], "price": [4]}))
    assert seen(log, "price") == [(4,)]


def test_every_type_comes_back_as_it_went_in(log: ObservationLog) -> None:
    frame = batch(("a", NOON - MINUTE, 1.0), ("a", NOON - 2 * MINUTE, None)).with_columns(
        small=pl.Series([255, None], dtype=pl.UInt8),
        big=pl.Series([2**64 - 1, None], dtype=pl.UInt64),
        state=pl.Series(["on", None], dtype=pl.Enum(["off", "on"])),
        vector=pl.Series([[1.0, 2.0], None], dtype=pl.Array(pl.Float32, 2)),
        length=pl.Series([timedelta(seconds=3), None], dtype=pl.Duration("ms")),
        local=pl.Series([datetime(2026, 1, 1, tzinfo=UTC), None]).cast(pl.Datetime("ns", "Europe/Berlin")),
        tags=pl.Series([["x", None], None], dtype=pl.List(pl.String)),
        raw=pl.Series([b"\x00\xff", None]),
        flag=pl.Series([True, None]),
        day=pl.Series([NOON.date(), None]),
        money=pl.Series(["1.10", None]).cast(pl.Decimal(10, 2)),
        pair=pl.Series([{"a": 1, "b": "x"}, None], dtype=pl.Struct({"a": pl.Int64, "b": pl.String})),
    )
    log.append(frame)
    names = [name for name in frame.columns if name not in ("station", "event_time")]
    assert log.scan(columns=names).sort("log_sequence").collect().select(names).equals(frame.select(names))


def test_arrow_dictionaries_in_keys_become_text(log: ObservationLog) -> None:
    table = pa.table(
        {
            "station": pa.array(["a"]).dictionary_encode(),
            "event_time": pa.array([NOON - MINUTE], pa.timestamp("us", "UTC")),
            "temp": [1.0],
        }
    )
    log.append(table)
    assert log.columns["station"] == pl.String
