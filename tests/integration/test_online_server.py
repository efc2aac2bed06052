"""A server over real logs: it follows them, and at the (t, p) of every answer a training set says the same."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import alignment as al
import ingestion
from ingestion import append
from ingestion.sources.simulated import SimulatedWorld
from serving.online import (
    Answer,
    AsOfError,
    EntityError,
    FeatureServer,
    NotReadyError,
    OnlineSettings,
    UnknownFeatureError,
    UnservableViewError,
)

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
COLUMNS = {"station": pl.String, "temp": pl.Float64}
EXACT = OnlineSettings(clock_allowance="0s", keep_events=2)


class Clock:
    """Tells what it was told."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **span: float) -> datetime:
        self.now += timedelta(**span)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> ingestion.ObservationLog:
    return ingestion.create_log(tmp_path, "weather", entities=["station"], schema=COLUMNS, clock=clock)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def rows(*given: tuple[str, float, float | None], **more: object) -> pl.DataFrame:
    """Station, minutes after noon, value."""
    frame = pl.DataFrame(
        {
            "station": [station for station, _, _ in given],
            "event_time": [at(minutes) for _, minutes, _ in given],
            "temp": pl.Series([value for _, _, value in given], dtype=pl.Float64),
        }
    )
    return frame.with_columns(**{name: pl.lit(value) for name, value in more.items()})


def weather(log: ingestion.ObservationLog) -> al.FeatureView:
    return al.FeatureView(
        "weather",
        observations=log,
        features=[
            al.latest("temp", max_event_age="1h"),
            al.lag("temp", "20m", "10m"),
            al.window("temp", ["count", "mean", "last"], "1h"),
            al.sequence("temp", 3),
            al.event_age(),
        ],
    )


def same_as_training(server: FeatureServer, answer: Answer) -> None:
    views = list(server.views.values())
    spine = answer.to_frame().select(*answer.entities, "prediction_time")
    positions = {view.name: answer.positions[view.observations.source.provider] for view in views}  # type: ignore[union-attr]
    trained = al.point_in_time_join(spine, views, status=True, positions=positions).drop("provisional")
    served = answer.to_frame(status=True).cast({name: pl.String for name in trained.columns if "__status" in name})
    trained = trained.cast({name: pl.String for name in trained.columns if "__status" in name})
    assert served.equals(trained.select(served.columns))


def served(server: FeatureServer, *names: str) -> list[list[object]]:
    answer = server.read(None, {"station": ["a", "b", "nowhere", None]})
    same_as_training(server, answer)
    return [next(column.values for column in answer.columns if column.name == f"weather__{name}") for name in names]


def test_rows_count_from_their_arrival_and_not_before(log, clock):
    server = FeatureServer([weather(log)], settings=EXACT, clock=clock)
    server.catch_up()
    assert served(server, "temp") == [[None, None, None, None]]
    log.append(rows(("a", -10, 1.0), ("b", -5, 2.0)))  # stamped half a second from now
    server.catch_up()
    assert served(server, "temp") == [[None, None, None, None]]
    clock.pass_(seconds=1)
    assert served(server, "temp") == [[None, None, None, None]]  # it has not looked since: t stays
    server.catch_up()
    assert served(server, "temp", "temp_count_1h") == [[1.0, 2.0, None, None], [1, 1, 0, 0]]


def test_corrections_late_rows_and_retractions_are_followed(log, clock):
    server = FeatureServer([weather(log)], settings=EXACT, clock=clock)
    log.append(rows(("a", -30, 1.0), ("a", -10, 3.0)))
    clock.pass_(seconds=1)
    server.catch_up()
    assert served(server, "temp", "temp_mean_1h")[0][0] == 3.0
    log.append(rows(("a", -10, 5.0), ("a", -20, 4.0)))  # a correction, and an older event that comes late
    clock.pass_(seconds=1)
    server.catch_up()
    assert [found[0] for found in served(server, "temp", "temp_sequence_3")] == [5.0, [1.0, 4.0, 5.0]]
    log.append(rows(("a", -10, None), is_retraction=True))
    clock.pass_(seconds=1)
    server.catch_up()
    assert [found[0] for found in served(server, "temp", "temp_count_1h")] == [4.0, 2]


def test_history_with_old_arrivals_counts_as_soon_as_it_is_known(log, clock):
    server = FeatureServer([weather(log)], settings=EXACT, clock=clock)
    server.catch_up()
    log.append(rows(("b", -40, 7.0), arrival_time=at(-35)))
    server.catch_up()
    assert served(server, "temp")[0][1] == 7.0


def test_a_batch_whose_commit_was_late_counts_later(log, clock, monkeypatch):
    server = FeatureServer([weather(log)], settings=EXACT, clock=clock)
    server.catch_up()
    sync = log.table.sync_commit

    def slowly(version: int) -> None:
        clock.pass_(seconds=30)
        server.catch_up()
        assert served(server, "temp")[0][0] == 1.0  # committed, its stamp is past, no restamp yet
        monkeypatch.setattr(log.table, "sync_commit", sync)
        sync(version)

    monkeypatch.setattr(log.table, "sync_commit", slowly)
    report = log.append(rows(("a", -5, 1.0)))
    assert report.restamped is not None
    server.catch_up()
    assert served(server, "temp")[0][0] is None  # it counts from the restamp on, which lies ahead
    clock.now = report.restamped
    server.catch_up()
    assert served(server, "temp")[0][0] == 1.0


def test_of_several_restamps_the_latest_counts(log, clock, monkeypatch):
    server = FeatureServer([weather(log)], settings=EXACT, clock=clock)
    log.append(rows(("b", -5, 2.0)))
    sync, late = log.table.sync_commit, [500, 90]

    def slowly(version: int) -> None:
        if len(late) == 2:
            server.catch_up()  # the row is there, and none of its restamps
        clock.pass_(seconds=late.pop() if late else 0)
        sync(version)

    monkeypatch.setattr(log.table, "sync_commit", slowly)
    report = log.append(rows(("a", -5, 1.0)))
    assert log.restamps().height == 2
    clock.now = report.restamped - timedelta(microseconds=1)
    server.catch_up()
    assert served(server, "temp")[0][:2] == [None, 2.0]
    clock.now = report.restamped
    server.catch_up()
    assert served(server, "temp")[0][:2] == [1.0, 2.0]


def test_what_is_erased_leaves_the_state(log, clock):
    server = FeatureServer([weather(log)], settings=EXACT, clock=clock)
    log.append(rows(("a", -10, 1.0), ("b", -5, 2.0)))
    clock.pass_(seconds=1)
    server.catch_up()
    assert served(server, "temp")[0][:2] == [1.0, 2.0]
    log.erase({"station": "a"})
    clock.pass_(seconds=1)
    server.catch_up()
    assert served(server, "temp")[0][:2] == [None, 2.0]


def test_a_renamed_or_added_column_does_not_stop_the_server(log, clock):
    log.append(rows(("a", -10, 1.0)))
    server = FeatureServer([weather(log)], settings=EXACT, clock=clock)
    server.catch_up()
    log.rename_column("temp", "temperature")
    log.add_column("wind", pl.Float64)
    clock.pass_(seconds=1)
    server.catch_up()
    answer = server.read(["weather:temp"], {"station": ["a"]})
    assert answer.columns[0].values == [1.0]
    assert server.read(["weather:temp"], {"station": ["a"]}, as_of=clock.now).columns[0].values == [1.0]
    log.append(rows(("a", -5, 2.0), wind=1.0).rename({"temp": "temperature"}))
    clock.pass_(seconds=1)
    server.catch_up()
    assert server.read(["weather:temp"], {"station": ["a"]}).columns[0].values == [2.0]


def test_rows_from_before_a_column_have_no_value_of_it_rather_than_null(log, clock):
    log.append(rows(("a", -10, 1.0), ("b", -20, 2.0)))
    log.add_column("wind", pl.Float64)
    clock.pass_(seconds=1)
    log.append(rows(("b", -5, 3.0)).with_columns(wind=pl.lit(None, pl.Float64)))
    clock.pass_(seconds=1)
    view = al.FeatureView("weather", observations=log, features=[al.latest("wind"), al.lag("wind", "15m")])
    server = FeatureServer([view], settings=EXACT, clock=clock)
    server.catch_up()
    answer = server.read(None, {"station": ["a", "b"]})
    same_as_training(server, answer)
    assert [column.status for column in answer.columns] == [["missing", "null"], ["missing", "missing"]]


def test_t_stays_behind_the_clock_by_the_allowance(log, clock):
    log.append(rows(("a", -10, 1.0)))
    server = FeatureServer([weather(log)], settings=OnlineSettings(clock_allowance="250ms"), clock=clock)
    clock.pass_(milliseconds=600)
    server.catch_up()
    answer = server.read(None, {"station": ["a"]})
    assert answer.t == clock.now - timedelta(milliseconds=250)
    assert answer.columns[0].values == [None]  # stamped half a second after noon: a slower clock may not be there yet


def test_the_past_is_asked_up_to_the_position_that_was_read(log, clock):
    log.append(rows(("a", -30, 1.0), arrival_time=at(-25)))
    server = FeatureServer([weather(log)], settings=EXACT, clock=clock)
    server.catch_up()
    log.append(rows(("a", -20, 2.0), arrival_time=at(-15)))  # history that the server has not read
    answer = server.read(["weather__temp"], {"station": ["a"]}, as_of=at(-10))
    same = {"positions": answer.positions, "values": answer.columns[0].values}
    assert same == {"positions": {"weather": 0}, "values": [1.0]}


def test_compaction_changes_nothing(log, clock):
    server = FeatureServer([weather(log)], settings=EXACT, clock=clock)
    for minute in range(6):
        log.append(rows(("a", minute - 30, float(minute))))
        clock.pass_(seconds=1)
        server.catch_up()
    before = served(server, "temp", "temp_mean_1h")
    log.compact(vacuum=True)
    server.catch_up()
    assert served(server, "temp", "temp_mean_1h") == before


def test_what_was_trimmed_is_read_from_the_log_when_it_matters(log, clock):
    features = [al.latest("temp", skip_null=True), al.lag("temp", "2h")]
    view = al.FeatureView("weather", observations=log, features=features)
    for minute in range(-300, 0, 10):
        known = None if -260 <= minute < 0 else float(minute)
        log.append(rows(("a", minute, known), ("b", minute, float(minute)), arrival_time=at(minute + 1)))
    server = FeatureServer([view], settings=EXACT, clock=clock)
    server._trim_at = 5  # a state that outgrew its bound
    server.catch_up()
    assert (
        server.backend.size == 28
    )  # of each entity the 12 events of the last two hours, and two that the lag begins with
    answer = server.read(None, {"station": ["b"]})
    same_as_training(server, answer)
    assert ([column.values[0] for column in answer.columns], server.from_log) == ([-10.0, -120.0], 0)
    answer = server.read(None, {"station": ["a", "b"]})
    same_as_training(server, answer)
    assert ([column.values[0] for column in answer.columns], server.from_log) == ([-270.0, None], 1)
    again = server.read(None, {"station": ["a"]})
    assert ([column.values[0] for column in again.columns], server.from_log) == ([-270.0, None], 1)  # taken in again


def test_a_late_row_below_the_mark_does_not_stand_for_what_was_trimmed(log, clock):
    view = al.FeatureView("weather", observations=log, features=[al.latest("temp")])
    for minute in (-60, -50, -40, -30, -20, -10):
        log.append(rows(("a", minute, float(minute)), arrival_time=at(minute + 1)))
    server = FeatureServer([view], settings=EXACT, clock=clock)
    server._trim_at = 1  # a state that outgrew its bound
    server.catch_up()
    assert server.backend.size == 2  # those of -20 and -10
    log.append(rows(("a", -20, None), ("a", -10, None), is_retraction=True))
    log.append(rows(("a", -50, 7.0)))  # a correction of what was trimmed
    clock.pass_(seconds=2)
    server.catch_up()
    answer = server.read(None, {"station": ["a"]})
    same_as_training(server, answer)
    assert answer.columns[0].values == [-30.0]


def test_a_mark_does_not_come_down_again(tmp_path, clock):
    schema = {**COLUMNS, "ident": pl.String}
    log = ingestion.create_log(tmp_path, "moving", entities=["station"], key=["ident"], schema=schema, clock=clock)
    view = al.FeatureView("weather", observations=log, features=[al.sequence("temp", 2)])

    def send(ident: str, minute: float) -> None:
        log.append(rows(("a", minute, minute), ident=ident))
        clock.pass_(minutes=2)

    for ident, minute in (("p", -50), ("q", -40), ("r", -30)):
        send(ident, minute)
    server = FeatureServer([view], settings=EXACT, clock=clock)
    server._trim_at = 1  # a state that outgrew its bound
    server.catch_up()  # the mark is -40
    send("r", -55)
    send("s", -56)
    server._trim_at = 1
    server.catch_up()
    answer = server.read(None, {"station": ["a"]})
    same_as_training(server, answer)
    assert answer.columns[0].values == [[-50.0, -40.0]]


def test_a_restamp_brings_back_what_was_dropped_for_its_row(log, clock):
    server = FeatureServer([weather(log)], settings=EXACT, clock=clock)
    log.append(rows(("a", -10, 1.0)))
    clock.pass_(seconds=1)
    stamped = append._confirm  # what a writer that dies after its commit does not come to
    append._confirm = lambda *_: None
    try:
        log.append(rows(("a", -10, 2.0)))
    finally:
        append._confirm = stamped
    clock.pass_(minutes=2)
    server._trim_at = 0
    server.catch_up()
    assert server.backend.size == 1
    batch = log.scan(columns=["batch_id"]).collect()["batch_id"][-1]
    append._confirm(log.table, batch, int(clock.now.timestamp() * 1e6) - 1, int(clock.now.timestamp() * 1e6))
    server.catch_up()
    assert served(server, "temp")[0][0] == 1.0


def test_a_column_that_is_widened_is_followed_and_served_so(log, clock, tmp_path):
    small = ingestion.create_log(
        tmp_path / "s", "small", entities=["station"], schema={"station": pl.String, "temp": pl.Float32}, clock=clock
    )
    small.append(rows(("a", -10, 0.5)).cast({"temp": pl.Float32}))
    clock.pass_(seconds=1)
    server = FeatureServer([weather(small)], settings=EXACT, clock=clock)
    server.catch_up()
    assert server.read(["weather:temp"], {"station": ["a"]}).columns[0].dtype == pl.Float32
    small.widen_column("temp", pl.Float64)
    small.append(rows(("a", -5, 0.1)))
    clock.pass_(seconds=1)
    server.catch_up()
    assert served(server, "temp") == [[0.1, None, None, None]]
    assert server.read(["weather:temp"], {"station": ["a"]}, as_of=clock.now).columns[0].values == [0.1]


def test_the_past_is_answered_from_the_log(log, clock):
    log.append(rows(("a", -30, 1.0), arrival_time=at(-25)))
    log.append(rows(("a", -20, 2.0), arrival_time=at(-15)))
    server = FeatureServer([weather(log)], settings=EXACT, clock=clock)
    server.catch_up()
    answer = server.read(["weather__temp"], {"station": ["a"]}, as_of=at(-16))
    assert (answer.columns[0].values, answer.t, answer.past) == ([1.0], at(-16), True)
    with pytest.raises(AsOfError, match="later than what is known"):
        server.read(None, {"station": ["a"]}, as_of=at(1))
    with pytest.raises(AsOfError, match="has no zone"):
        server.read(None, {"station": ["a"]}, as_of=datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused


def test_instants_of_the_row_that_was_used_come_with_each_value(log, clock):
    log.append(rows(("a", -30, 1.0), ("a", -20, 2.0), arrival_time=at(-15)))
    server = FeatureServer([weather(log)], settings=EXACT, clock=clock)
    server.catch_up()
    columns = {column.name: column for column in server.read(None, {"station": ["a", "b"]}).columns}
    micros = [int(at(minutes).timestamp() * 1e6) for minutes in (-20, -15, -30)]
    assert columns["weather__temp"].events == [micros[0], None]
    assert columns["weather__temp"].arrivals == [micros[1], None]
    assert columns["weather__temp_lag_20m"].events == [micros[0], None]
    assert columns["weather__temp_mean_1h"].events == [micros[0], None]


def test_a_server_that_is_too_far_behind_does_not_answer(log, clock):
    server = FeatureServer([weather(log)], settings=OnlineSettings(max_behind="30s"), clock=clock)
    with pytest.raises(NotReadyError, match="has not read the log yet"):
        server.read(None, {"station": ["a"]})
    assert not server.readiness().ready
    server.catch_up()
    assert server.readiness().ready
    clock.pass_(seconds=31)
    assert not server.readiness().ready
    with pytest.raises(NotReadyError, match=r"31\.2 s behind the log, and may be 30s"):
        server.read(None, {"station": ["a"]})


@pytest.mark.parametrize(
    ("features", "entities", "kind", "said"),
    [
        (["weather:rain"], {"station": ["a"]}, UnknownFeatureError, "no feature 'weather:rain'"),
        (None, {"site": ["a"]}, EntityError, "needs the entity 'station', and the request names 'site'"),
        (None, {"station": ["a"], "site": ["a", "b"]}, EntityError, "'station' has 1, 'site' has 2"),
        (None, {"station": [7]}, EntityError, "entity 'station' is String, and 7 is int"),
        (None, {"station": [["a"]]}, EntityError, "is list"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(log, clock, features, entities, kind, said):
    log.append(rows(("a", -10, 1.0)))
    server = FeatureServer([weather(log)], settings=EXACT, clock=clock)
    server.catch_up()
    with pytest.raises(kind, match=said):
        server.read(features, entities)


def test_only_views_over_logs_are_served(log, tmp_path):
    frame = rows(("a", -10, 1.0), arrival_time=at(-5))
    view = al.FeatureView("bare", ["station"], frame, [al.latest("temp")])
    with pytest.raises(UnservableViewError, match="view 'bare' is not over a log"):
        FeatureServer([view])
    other = ingestion.create_log(tmp_path / "other", "weather", entities=["station"], schema=COLUMNS)
    log.append(rows(("a", -10, 1.0)))
    with pytest.raises(UnservableViewError, match="two logs are called 'weather'"):
        FeatureServer([weather(log), al.FeatureView("second", observations=other, features=[al.latest("temp")])])


def test_answers_given_while_rows_come_in_are_those_of_the_training_set(tmp_path):
    log = ingestion.create_log(tmp_path, "weather", entities=["station"], publish_margin="50ms")
    now = datetime.now(UTC)
    log.append(rows(("a", 0, 0.5)).with_columns(event_time=pl.lit(now - timedelta(minutes=5))))
    server = FeatureServer([weather(log)], settings=OnlineSettings(poll_every="10ms", clock_allowance="10ms")).start()
    stop = threading.Event()

    def write() -> None:
        own = ingestion.open_log(tmp_path, "weather")
        for number in range(25):
            age = timedelta(seconds=10 * (number % 7))
            frame = pl.DataFrame(
                {"station": ["a", "b"], "event_time": [datetime.now(UTC) - age] * 2, "temp": [number / 7, -1.0]}
            )
            own.append(frame)
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    answers = []
    while not stop.is_set():
        answers.append(server.read(None, {"station": ["a", "b", "c"]}))
    writer.join()
    server.close()
    assert len({answer.positions["weather"] for answer in answers}) > 5
    step = max(1, len(answers) // 40)
    for answer in answers[::step]:
        same_as_training(server, answer)


def test_a_server_that_lived_through_an_outage_returned_what_a_replay_of_it_says(tmp_path: Path, clock: Clock) -> None:
    world = SimulatedWorld(seed=5, days=1, start=datetime(2026, 1, 5, tzinfo=UTC))
    came = world.observations("pyranometer")
    features = [
        al.latest("irradiance", max_event_age="2h"),
        al.window("irradiance", ["mean", "slope"], "3h"),
        al.event_age(),
    ]
    promised = al.FeatureView("pyranometer", ["site"], came, features)
    outages = [
        al.Outage("pyranometer", at(20), at(150)),
        al.Outage("pyranometer", at(60), at(200), lost=True, entities=["dune"]),
        al.Outage("pyranometer", at(200), at(260), slow=3),
    ]
    replayed = al.replay(promised, {"site": list(world.sites)}, at(0), at(420), "35m", outages=outages)

    lived = al.transform_arrivals(promised, outages=outages)[0].observations.lazy().collect().sort("arrival_time")
    lived = lived.select(came.columns)
    log = ingestion.create_log(tmp_path, "pyranometer", entities=["site"], clock=clock)
    log.append(lived.filter(pl.col("arrival_time") <= at(0)), batch_id="before")
    view = al.FeatureView("pyranometer", observations=log, features=features)
    server = FeatureServer([view], settings=EXACT, clock=clock)
    server.catch_up()
    for (t,), tick in replayed.group_by("prediction_time", maintain_order=True):
        arrived = lived.filter(pl.col("arrival_time") > clock.now, pl.col("arrival_time") <= t)
        clock.now = t
        if arrived.height:
            log.append(arrived, batch_id=t.isoformat())
        server.catch_up()
        answer = server.read(None, {"site": list(world.sites)})
        assert answer.t == t
        told = answer.to_frame(status=True)
        assert told.select(tick.columns[2:-2]).equals(tick.select(tick.columns[2:-2])), t
    statuses = replayed["pyranometer__irradiance__status"].value_counts().sort("count", descending=True)
    assert {"present", "expired"} <= set(statuses["pyranometer__irradiance__status"])


def test_views_whose_arrivals_were_moved_are_not_served(log: ingestion.ObservationLog) -> None:
    log.append(rows(("a", 0, 1.0)))
    view = al.FeatureView("weather", observations=log, features=[al.latest("temp")])
    moved = al.transform_arrivals(view, outages=[al.Outage("weather", at(0), at(5))])
    with pytest.raises(UnservableViewError, match="a server follows what really arrives"):
        FeatureServer(moved)
