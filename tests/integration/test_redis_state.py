"""The online state in Redis: what is read of it is what a join says at (t, position), whatever happened to it."""

from __future__ import annotations

import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis as client_library
from polars.testing import assert_frame_equal
from services import Server, free_port, redis_server, running

import alignment as al
from ingestion import ObservationLog, create_log, open_log
from serving.errors import OptionError
from serving.online import Answer, FeatureServer, OnlineSettings
from serving.online.errors import NotReadyError, StateUnavailableError
from serving.online.redis_backend import RedisBackend
from serving.online.redis_connection import RedisSettings

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STATIONS = ["a", "b", "c d", "é/{1}"]
FEATURES = [
    *(
        al.latest("temp"),
        al.latest("note"),
        al.latest("tags"),
        al.window("temp", ["mean", "max", "std", "count", "last"], "1h"),
    ),
    *(
        al.lag("temp", "30m"),
        al.sequence("temp", 5),
        al.sequence("temp", 4, step="10m"),
        al.event_age(),
        al.arrival_age(),
    ),
]


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        self.now += timedelta(**by)


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def log(tmp_path: Path, clock: Time) -> ObservationLog:
    return create_log(tmp_path / "logs", "weather", entities=["station"], clock=clock)


@pytest.fixture
def there(redis: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[client_library.Redis]:
    """A client of the Redis that the environment names."""
    monkeypatch.setenv("ASKNOWN_REDIS_URL", f"redis://127.0.0.1:{redis.port}/0")
    client = client_library.Redis(port=redis.port)
    yield client
    client.close()


@pytest.fixture
def replica(clock: Time) -> Iterator[Callable[..., FeatureServer]]:
    """Makes servers over one state, each with its own handles."""
    made: list[FeatureServer] = []

    def make(*views: al.FeatureView, settings: OnlineSettings | None = None, **redis: Any) -> FeatureServer:
        backend = RedisBackend(RedisSettings(timeout=2.0, **redis), settings)
        made.append(FeatureServer(list(views), backend=backend, clock=clock, settings=settings))
        return made[-1]

    yield make
    for server in made:
        server.close()


def over(log: ObservationLog, *features: Any, name: str = "w", **arguments: Any) -> al.FeatureView:
    handle = open_log(log.root, log.provider, clock=log.table.clock)
    return al.FeatureView(name, None, handle, features or FEATURES, **arguments)


def readings(rng: random.Random, now: datetime, n: int) -> pl.DataFrame:
    """Rows of which some are late, repeat an event, correct it or take it back."""
    instants = [now - timedelta(minutes=10 * rng.randrange(12)) for _ in range(n)]
    return pl.DataFrame(
        {
            "station": [rng.choice(STATIONS) for _ in range(n)],
            "event_time": instants,
            "temp": [rng.choice([None, float("nan"), -0.0, 1.5, 0.1, 7.0]) for _ in range(n)],
            "note": [
                rng.choice([None, "", "short", "a note that is longer than a record has room for"]) for _ in range(n)
            ],
            "tags": [rng.choice([None, [], ["x"], ["x", "y and a long one indeed"]]) for _ in range(n)],
            "is_retraction": [rng.random() < 0.15 for _ in range(n)],
        },
        schema_overrides={
            "temp": pl.Float64,
            "note": pl.String,
            "tags": pl.List(pl.String),
            "event_time": pl.Datetime("us", "UTC"),
        },
    ).unique(["station", "event_time"], keep="first", maintain_order=True)


def assert_as_joined(answer: Answer, *views: al.FeatureView) -> None:
    """Bit for bit what the join answers at the same instant and positions."""
    found = answer.to_frame(status=True)
    positions = {view.name: answer.positions[view.observations.source.provider] for view in views}  # type: ignore[union-attr]
    spine = found.select(*answer.entities, "prediction_time")
    wanted = al.point_in_time_join(spine, list(views), positions=positions, status=True)
    wanted = wanted.with_columns(pl.selectors.ends_with("__status").cast(pl.String)).select(found.columns)
    assert_frame_equal(found, wanted, check_exact=True)
    for name, kind in wanted.schema.items():
        if kind == pl.Float64:
            bits = [frame[name].reinterpret(signed=True) for frame in (found, wanted)]
            numbers = wanted[name].is_not_nan().fill_null(value=False)
            assert bits[0].filter(numbers).to_list() == bits[1].filter(numbers).to_list()


def fail_over(server: FeatureServer, port: int) -> None:
    """What a name that points elsewhere does: connections end, and new ones go to another Redis."""
    pool = server.backend.connection.client.connection_pool  # type: ignore[attr-defined]
    pool.disconnect()
    pool.reset()
    pool.connection_kwargs["port"] = port


def ask(server: FeatureServer, *stations: Any) -> Answer:
    return server.read(None, {"station": list(stations or (*STATIONS, "nobody", None, STATIONS[0]))})


def test_late_repeated_corrected_and_retracted_rows_are_answered_as_the_join_does(
    log: ObservationLog, there: client_library.Redis, replica: Callable[..., FeatureServer], clock: Time
) -> None:
    rng = random.Random(1)
    log.append(readings(rng, clock.now, 60), evolve=True)
    one, two = replica(over(log)), replica(over(log))
    for step in range(25):
        clock.move(minutes=rng.choice([1, 7]), seconds=rng.random())
        if step % 4:
            log.append(readings(rng, clock.now, 30))
            clock.move(seconds=2)
        server = (one, two)[step % 2]
        server.catch_up()
        assert_as_joined(ask(server), over(log))
    assert there.dbsize() == 1 + 2 * len(STATIONS)  # one state for both: a head, and each station's records and heap


def test_a_replica_that_starts_finds_the_state_and_one_that_stops_leaves_it(
    log: ObservationLog, there: client_library.Redis, replica: Callable[..., FeatureServer], clock: Time
) -> None:
    log.append(readings(random.Random(2), clock.now, 40), evolve=True)
    clock.move(minutes=1)
    one = replica(over(log))
    one.catch_up()
    one.close()
    before = dict(zip(keys := sorted(there.keys()), there.mget(keys), strict=True))
    two = replica(over(log))
    two.catch_up()
    after = dict(zip(keys, there.mget(keys), strict=True))
    assert {key for key in before if before[key] != after[key]} == set()
    assert_as_joined(ask(two), over(log))


def test_an_answer_takes_one_round_trip(
    log: ObservationLog, there: client_library.Redis, replica: Callable[..., FeatureServer], clock: Time
) -> None:
    log.append(readings(random.Random(3), clock.now, 40), evolve=True)
    clock.move(minutes=1)
    views = [over(log), over(log, al.latest("temp"), name="other")]
    server = replica(*views)
    server.catch_up()
    ask(server)
    there.config_resetstat()
    answer = ask(server)
    counted = {name: said["calls"] for name, said in there.info("commandstats").items()}
    assert counted == {"cmdstat_mget": 1, "cmdstat_config|resetstat": 1}
    assert_as_joined(answer, *views)


def test_rows_beyond_the_head_are_not_seen(
    log: ObservationLog, there: client_library.Redis, replica: Callable[..., FeatureServer], clock: Time
) -> None:
    rng = random.Random(4)
    first = log.append(readings(rng, clock.now, 40), evolve=True)
    clock.move(minutes=1)
    patient = OnlineSettings(max_behind="10m")
    replica(over(log), settings=patient).catch_up()
    [head] = there.keys("*:head")
    known = there.get(head)
    log.append(readings(rng, clock.now, 40))
    clock.move(minutes=1)
    reader = replica(over(log), settings=patient)
    reader.catch_up()
    there.set(head, known)  # as between a writer's appends and its head
    answer = ask(reader)
    assert answer.positions == {"weather": first.position}
    assert log.position() > first.position
    assert_as_joined(answer, over(log))


def test_views_of_one_provider_are_answered_at_one_position(
    log: ObservationLog, there: client_library.Redis, replica: Callable[..., FeatureServer], clock: Time
) -> None:
    rng = random.Random(21)
    first = log.append(readings(rng, clock.now, 40), evolve=True)
    clock.move(minutes=1)
    views = [over(log), over(log, al.latest("temp"), al.window("temp", "mean", "2h"), name="v")]
    patient = OnlineSettings(max_behind="10m")
    replica(*views, settings=patient).catch_up()
    [behind] = there.keys("*{v/*:head")
    known = there.get(behind)
    log.append(readings(rng, clock.now, 40))
    clock.move(minutes=1)
    reader = replica(*views, settings=patient)
    reader.catch_up()
    there.set(behind, known)  # as between the heads of two views
    answer = ask(reader)
    assert answer.positions == {"weather": first.position}
    assert_as_joined(answer, *views)
    [ahead] = there.keys("*{w/*:head")
    there.delete(ahead)
    replica(views[0], settings=patient).catch_up()  # built at a position that the other view has not reached
    with pytest.raises(NotReadyError, match="built at a later position"):
        ask(reader)
    reader.catch_up()
    assert_as_joined(ask(reader), *views)


def test_a_flush_is_noticed_and_the_state_built_anew_before_anything_is_answered(
    log: ObservationLog, there: client_library.Redis, replica: Callable[..., FeatureServer], clock: Time
) -> None:
    rng = random.Random(5)
    log.append(readings(rng, clock.now, 40), evolve=True)
    clock.move(minutes=1)
    one, two = replica(over(log)), replica(over(log))
    one.catch_up()
    two.catch_up()
    there.flushall()
    with pytest.raises(NotReadyError, match="has no state of view 'w' now"):
        ask(one)
    log.append(readings(rng, clock.now, 40))
    clock.move(minutes=1)
    one.catch_up()
    assert_as_joined(ask(one), over(log))
    assert_as_joined(ask(two), over(log))
    two.catch_up()
    assert_as_joined(ask(two), over(log))
    assert there.dbsize() == 1 + 2 * len(STATIONS)


def test_a_state_that_lost_its_last_writes_is_built_anew(
    tmp_path: Path,
    log: ObservationLog,
    redis: Server,
    there: client_library.Redis,
    replica: Callable[..., FeatureServer],
    clock: Time,
) -> None:
    rng = random.Random(6)
    folder = tmp_path / "follower"
    folder.mkdir()
    with running(redis_server(folder, "--replicaof", "127.0.0.1", str(redis.port))) as follower:
        second = client_library.Redis(port=follower.port)
        _until(lambda: second.info("replication")["master_link_status"] == "up")
        log.append(readings(rng, clock.now, 40), evolve=True)
        clock.move(minutes=1)
        one, two = replica(over(log)), replica(over(log))
        one.catch_up()
        two.catch_up()
        _until(lambda: second.dbsize() == there.dbsize())
        second.replicaof("NO", "ONE")  # from here on it is behind
        for _ in range(3):
            log.append(readings(rng, clock.now, 30))
            clock.move(minutes=1)
            one.catch_up()
            two.catch_up()
        known = ask(one).positions["weather"]
        for server in (one, two):
            fail_over(server, follower.port)
        with pytest.raises(NotReadyError, match="lacks rows of view 'w' that it had"):
            ask(one)
        log.append(readings(rng, clock.now, 30))
        clock.move(minutes=1)
        one.catch_up()
        assert_as_joined(ask(one), over(log))
        two.catch_up()
        answer = ask(two)
        assert answer.positions["weather"] == log.position() > known
        assert_as_joined(answer, over(log))
        second.close()


def test_a_fail_over_between_the_rows_and_the_head_loses_nothing(
    tmp_path: Path,
    log: ObservationLog,
    there: client_library.Redis,
    redis: Server,
    replica: Callable[..., FeatureServer],
    clock: Time,
) -> None:
    rng = random.Random(7)
    folder = tmp_path / "follower"
    folder.mkdir()
    with running(redis_server(folder, "--replicaof", "127.0.0.1", str(redis.port))) as follower:
        second = client_library.Redis(port=follower.port)
        _until(lambda: second.info("replication")["master_link_status"] == "up")
        log.append(readings(rng, clock.now, 40), evolve=True)
        clock.move(minutes=1)
        server = replica(over(log))
        server.catch_up()
        _until(
            lambda: (
                second.dbsize() == there.dbsize()
                and second.mget(sorted(second.keys())) == there.mget(sorted(there.keys()))
            )
        )
        second.replicaof("NO", "ONE")
        state = server.backend._views["w"].state  # type: ignore[attr-defined]
        appended = state._append_all

        def then_fail_over(*arguments: Any) -> bool:
            done = appended(*arguments)
            state._append_all = appended
            fail_over(server, follower.port)
            return bool(done)

        state._append_all = then_fail_over
        log.append(readings(rng, clock.now, 40))
        clock.move(minutes=1)
        server.catch_up()
        answer = ask(server)
        assert answer.positions["weather"] == log.position()
        assert_as_joined(answer, over(log))
        second.close()


def test_old_and_new_definitions_live_side_by_side(
    log: ObservationLog, there: client_library.Redis, replica: Callable[..., FeatureServer], clock: Time
) -> None:
    rng = random.Random(8)
    log.append(readings(rng, clock.now, 40), evolve=True)
    clock.move(minutes=1)
    old, new = over(log), over(log, *FEATURES, al.latest("temp", name="fresh", max_event_age="20m"))
    servers = {replica(view): view for view in (old, new)}
    for _ in range(4):
        log.append(readings(rng, clock.now, 30))
        clock.move(minutes=3)
        for server, view in servers.items():
            server.catch_up()
            assert_as_joined(ask(server), view)
    assert len(there.keys("*:head")) == 2


def test_many_writers_at_once_and_a_flush_in_the_middle_leave_one_true_state(
    log: ObservationLog, there: client_library.Redis, replica: Callable[..., FeatureServer], clock: Time
) -> None:
    rng = random.Random(9)
    log.append(readings(rng, clock.now, 60), evolve=True)
    clock.move(minutes=1)
    servers = [replica(over(log)) for _ in range(3)]
    view = over(log)
    done, problems = threading.Event(), []
    answers: list[Answer] = []

    def follow(server: FeatureServer) -> None:
        while not done.is_set():
            try:
                server.catch_up()
                answers.append(ask(server))
            except NotReadyError:
                continue
            except Exception as error:  # noqa: BLE001 - told by the test
                problems.append(error)
                return

    threads = [threading.Thread(target=follow, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for step in range(12):
        log.append(readings(rng, clock.now, 25))
        clock.move(seconds=20)
        if step == 6:
            there.flushall()
        time.sleep(0.15)
    done.set()
    for thread in threads:
        thread.join()
    assert not problems
    for server in servers:
        server.catch_up()
        answers.append(ask(server))
    assert {answer.positions["weather"] for answer in answers[-3:]} == {log.position()}
    distinct = {(answer.t, answer.positions["weather"]): answer for answer in answers}
    assert len(distinct) > 10
    for answer in distinct.values():
        assert_as_joined(answer, view)


def test_a_restamped_batch_counts_from_the_restamp_on(
    log: ObservationLog, there: client_library.Redis, replica: Callable[..., FeatureServer], clock: Time
) -> None:
    rng = random.Random(10)
    log.append(readings(rng, clock.now, 40), evolve=True)
    clock.move(minutes=1)
    one, two = replica(over(log)), replica(over(log))
    one.catch_up()

    instants = iter([clock.now, clock.now + timedelta(seconds=3)])
    report = log.append(readings(rng, clock.now, 30), clock=lambda: next(instants, clock.now + timedelta(seconds=3)))
    assert report.restamped is not None  # confirmed three seconds after the stamp
    two.catch_up()
    for _ in range(12):
        clock.move(seconds=1)
        for server in (one, two):
            server.catch_up()
            assert_as_joined(ask(server), over(log))


def test_erased_rows_leave_redis(
    log: ObservationLog, there: client_library.Redis, replica: Callable[..., FeatureServer], clock: Time
) -> None:
    rng = random.Random(11)
    log.append(readings(rng, clock.now, 60), evolve=True)
    clock.move(minutes=1)
    one, two = replica(over(log)), replica(over(log))
    one.catch_up()
    two.catch_up()
    assert any(b"c%20d" in key for key in there.scan_iter())
    log.erase({"station": "c d"})
    clock.move(minutes=1)
    one.catch_up()
    assert [key for key in there.scan_iter() if b"c%20d" in key] == []
    two.catch_up()
    for server in (one, two):
        assert_as_joined(ask(server), over(log))


def test_entities_are_trimmed_and_answer_as_before(
    log: ObservationLog, there: client_library.Redis, replica: Callable[..., FeatureServer], clock: Time
) -> None:
    rng = random.Random(12)
    log.append(readings(rng, clock.now, 60), evolve=True)
    clock.move(minutes=1)
    settings = OnlineSettings(max_behind="1m", keep_events=8)
    one, two = replica(over(log), settings=settings), replica(over(log), settings=settings)
    rows = 0
    for step in range(40):
        rows += log.append(readings(rng, clock.now, 60)).rows
        clock.move(minutes=2)
        server = (one, two)[step % 2]
        server.catch_up()
        assert_as_joined(ask(server), over(log))
    kept = sum(there.strlen(key) for key in there.keys("*:e:*"))
    width = one.backend._views["w"].state.layout.width  # type: ignore[attr-defined]
    assert kept / width < rows / 2
    clock.move(hours=5)
    one.catch_up()
    assert_as_joined(ask(one), over(log))


def test_a_redis_that_cannot_be_reached_is_not_ready_and_catches_up_when_it_is_back(
    log: ObservationLog,
    redis: Server,
    there: client_library.Redis,
    replica: Callable[..., FeatureServer],
    clock: Time,
) -> None:
    rng = random.Random(13)
    log.append(readings(rng, clock.now, 40), evolve=True)
    clock.move(minutes=1)
    server = replica(over(log))
    redis.kill()
    server.catch_up()
    ready = server.readiness()
    assert not ready.ready
    assert "Redis at 127.0.0.1:" in ready.reason
    with pytest.raises(StateUnavailableError, match="Redis at 127.0.0.1:"):
        ask(server)
    redis.start()
    server.catch_up()
    assert server.readiness().ready
    assert_as_joined(ask(server), over(log))
    log.append(readings(rng, clock.now, 40))
    clock.move(minutes=1)
    redis.restart(killed=True)  # it keeps nothing on disk
    server.catch_up()
    assert_as_joined(ask(server), over(log))


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_forecasts_are_answered_as_the_join_does(
    tmp_path: Path, there: client_library.Redis, replica: Callable[..., FeatureServer], clock: Time
) -> None:
    log = create_log(tmp_path / "logs", "forecast", entities=["zone", "level"], kind="forecast", clock=clock)
    rng = random.Random(14)
    features = [al.forecast("wind", ["30m", "2h"], tolerance="1h"), al.latest("wind")]
    features += [al.forecast("wind", "1h", tolerance="1h", min_notice="90m", name="noticed")]
    features += [al.window("wind", ["mean", "count"], "2h", offset="-2h")]
    servers: list[FeatureServer] = []
    for step in range(16):
        issued = clock.now - timedelta(minutes=rng.choice([0, 0, 60, 180]))
        events = [issued.replace(minute=0) + timedelta(hours=h) for h in range(7) if rng.random() < 0.8]
        batch = [
            (zone, level, event, issued, rng.choice([None, 1.0, 2.5]), rng.random() < 0.1)
            for zone in ("n", "s,1")
            for level in (1, -2)
            for event in events
        ]
        schema = {"zone": pl.String, "level": pl.Int64, "event_time": pl.Datetime("us", "UTC")}
        schema |= {"issue_time": pl.Datetime("us", "UTC"), "wind": pl.Float64, "is_retraction": pl.Boolean}
        log.append(pl.DataFrame(batch, schema=schema, orient="row"))
        if step % 5 == 4:  # withdraws every issue of an event
            gone = {"zone": ["n"], "level": [1], "event_time": [events[-1] if events else issued], "issue_time": [None]}
            log.append(pl.DataFrame({**gone, "wind": [None], "is_retraction": [True]}, schema=schema))
        clock.move(minutes=rng.choice([20, 65]))
        if not servers:
            handle = open_log(log.root, "forecast", clock=clock)
            views = [al.FeatureView("f", None, handle, features, max_issue_age="4h")]
            settings = OnlineSettings(max_behind="10m", keep_events=4)
            servers = [replica(*views, settings=settings) for _ in range(2)]
        server = servers[step % 2]
        server.catch_up()
        if step % 3 == 0:
            server.backend.trim(oldest=int((clock.now - timedelta(minutes=10)).timestamp() * 1e6), keep_events=4)
        answer = server.read(None, {"zone": ["n", "n", "s,1", "x", "s,1"], "level": [1, -2, 1, 1, -2]})
        assert_as_joined(answer, *views)


def test_rows_with_ids_that_move_are_answered_as_the_join_does(
    tmp_path: Path, there: client_library.Redis, replica: Callable[..., FeatureServer], clock: Time
) -> None:
    log = create_log(tmp_path / "logs", "quakes", entities=[], key=["quake"], clock=clock)
    rng = random.Random(15)
    features = [al.latest("size"), al.window("size", ["count", "max", "q90"], "3h"), al.sequence("place", 3)]
    servers: list[FeatureServer] = []
    for step in range(20):
        names = rng.sample(range(30), 8)
        frame = pl.DataFrame(
            {
                "quake": [f"quake with a long name {name}" for name in names],
                "event_time": [clock.now - timedelta(minutes=rng.randrange(400)) for _ in names],
                "size": [rng.choice([None, 1, 2, 3]) for _ in names],
                "place": [rng.choice(["sea", None, "a place far away from everywhere"]) for _ in names],
                "is_retraction": [rng.random() < 0.2 for _ in names],
            },
            schema_overrides={"event_time": pl.Datetime("us", "UTC"), "size": pl.Int64, "place": pl.String},
        )
        log.append(frame, evolve=step == 0)
        clock.move(minutes=25)
        if not servers:
            views = [al.FeatureView("q", None, open_log(log.root, "quakes", clock=clock), features)]
            settings = OnlineSettings(max_behind="10m", keep_events=6)
            servers = [replica(*views, settings=settings) for _ in range(2)]
        server = servers[step % 2]
        server.catch_up()
        if step % 4 == 3:
            server.backend.trim(oldest=int((clock.now - timedelta(minutes=10)).timestamp() * 1e6), keep_events=6)
        assert_as_joined(server.read(None, {}), *views)


def test_a_password_is_used_and_never_shown(
    tmp_path: Path,
    log: ObservationLog,
    replica: Callable[..., FeatureServer],
    clock: Time,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log.append(readings(random.Random(16), clock.now, 40), evolve=True)
    clock.move(minutes=1)
    folder = tmp_path / "closed"
    folder.mkdir()
    with running(redis_server(folder, "--requirepass", "s3cret-word")) as closed:
        monkeypatch.setenv("OWN_URL", f"redis://:s3cret-word@127.0.0.1:{closed.port}/0")
        server = replica(over(log), url_variable="OWN_URL")
        server.catch_up()
        assert_as_joined(ask(server), over(log))
        assert "s3cret" not in repr(server.backend.connection)  # type: ignore[attr-defined]
        monkeypatch.setenv("OWN_URL", f"redis://:another-w0rd@127.0.0.1:{closed.port}/0")
        stranger = replica(over(log), url_variable="OWN_URL")
        stranger.catch_up()
        assert "AuthenticationError" in stranger.readiness().reason
        assert "w0rd" not in stranger.readiness().reason


def test_a_redis_that_would_drop_keys_is_refused(
    log: ObservationLog, there: client_library.Redis, replica: Callable[..., FeatureServer], clock: Time
) -> None:
    log.append(readings(random.Random(17), clock.now, 10), evolve=True)
    there.config_set("maxmemory", "100mb")
    there.config_set("maxmemory-policy", "allkeys-lru")
    server = replica(over(log))
    server.catch_up()
    assert "rows would be missing unnoticed" in server.readiness().reason
    there.config_set("maxmemory-policy", "noeviction")
    clock.move(minutes=1)
    server.catch_up()
    assert server.readiness().ready


def test_an_address_that_is_missing_or_none_is_said_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASKNOWN_REDIS_URL", raising=False)
    with pytest.raises(OptionError) as caught:
        RedisBackend()
    assert str(caught.value) == (
        "the environment has no ASKNOWN_REDIS_URL\n\nhint: export ASKNOWN_REDIS_URL=redis://127.0.0.1:6379/0"
    )
    monkeypatch.setenv("ASKNOWN_REDIS_URL", "http://user:s3cret@example.org")
    with pytest.raises(OptionError, match="ASKNOWN_REDIS_URL is not the address of a Redis") as caught:
        RedisBackend()
    assert "s3cret" not in str(caught.value)


def test_rows_that_were_trimmed_are_read_from_the_log_once(
    log: ObservationLog, there: client_library.Redis, replica: Callable[..., FeatureServer], clock: Time
) -> None:
    hours = [clock.now - timedelta(hours=h) for h in range(20, 0, -1)]
    temps = [float(i) if i < 15 else None for i in range(20)]
    log.append(pl.DataFrame({"station": ["a"] * 20, "event_time": hours, "temp": temps}), evolve=True)
    clock.move(hours=1)
    view = over(log, al.latest("temp", skip_null=True))
    settings = OnlineSettings(keep_events=3)
    one, two = replica(view, settings=settings), replica(view, settings=settings)
    one.catch_up()
    two.catch_up()
    assert one.backend._views["w"].state.layout.width * 3 + 24 == there.strlen(there.keys("*:e:a")[0])  # type: ignore[attr-defined]
    assert_as_joined(ask(one, "a"), view)
    assert one.from_log == 1
    assert_as_joined(ask(one, "a"), view)
    assert_as_joined(ask(two, "a"), view)
    assert (one.from_log, two.from_log) == (1, 0)
    log.append(pl.DataFrame({"station": ["a"], "event_time": [clock.now], "temp": [None]}))
    clock.move(minutes=5)
    two.catch_up()
    two.backend.trim(oldest=int(clock.now.timestamp() * 1e6), keep_events=3)
    answer = ask(two, "a")
    assert answer.columns[0].values == [14.0]
    assert two.from_log == 0


def test_an_entity_with_many_rows_is_written_in_pieces(
    log: ObservationLog,
    there: client_library.Redis,
    replica: Callable[..., FeatureServer],
    clock: Time,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serving.online.redis_state.PIECE_BYTES", 1_000)
    rng = random.Random(18)
    log.append(readings(rng, clock.now, 200), evolve=True)
    clock.move(minutes=1)
    one = replica(over(log))
    there.config_resetstat()
    one.catch_up()
    assert there.info("commandstats")["cmdstat_evalsha"]["calls"] > 10
    assert_as_joined(ask(one), over(log))
    for _ in range(3):
        log.append(readings(rng, clock.now, 200))
        clock.move(minutes=1)
        one.catch_up()
        assert_as_joined(ask(one), over(log))


def test_readers_in_many_threads_read_while_it_is_written(
    log: ObservationLog, there: client_library.Redis, replica: Callable[..., FeatureServer], clock: Time
) -> None:
    rng = random.Random(19)
    log.append(readings(rng, clock.now, 40), evolve=True)
    clock.move(minutes=1)
    view = over(log)
    server = replica(view)
    server.catch_up()
    done = threading.Event()
    answers: list[Answer] = []
    problems: list[Exception] = []

    def read() -> None:
        while not done.is_set():
            try:
                answers.append(ask(server))
            except Exception as error:  # noqa: BLE001 - told by the test
                problems.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        log.append(readings(rng, clock.now, 20))
        clock.move(seconds=10)
        server.catch_up()
    done.set()
    for thread in threads:
        thread.join()
    assert problems == []
    for answer in {(answer.t, answer.positions["weather"]): answer for answer in answers}.values():
        assert_as_joined(answer, view)


def test_it_is_reached_over_tls(
    tmp_path: Path,
    log: ObservationLog,
    replica: Callable[..., FeatureServer],
    clock: Time,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    key, certificate = folder / "key.pem", folder / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    made += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    if shutil.which("openssl") is None or subprocess.run(made, capture_output=True, check=False).returncode:
        pytest.skip("openssl makes no certificate here")
    port = free_port()
    options = ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    options += ["--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no"]
    log.append(readings(random.Random(20), clock.now, 20), evolve=True)
    clock.move(minutes=1)
    with running(redis_server(folder, *options)):
        monkeypatch.setenv("ASKNOWN_REDIS_URL", f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}")
        server = replica(over(log))
        server.catch_up()
        assert_as_joined(ask(server), over(log))
        monkeypatch.setenv("ASKNOWN_REDIS_URL", f"rediss://127.0.0.1:{port}/0")
        stranger = replica(over(log))
        stranger.catch_up()
        assert "certificate verify failed" in stranger.readiness().reason
