"""A world in a hurry, for parity: providers that ingest, servers that answer and are killed, and the audit of all of it.

Run as a program it is one of the processes: `python tests/parity.py ingest ROOT SEED` appends to the logs until it is stopped,
`python tests/parity.py serve ROOT SEED REPLICA` answers and keeps what it answered. Everything that takes hours elsewhere takes
seconds here, so that windows, lags, ages and outages all happen.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable

import alignment as al
from ingestion import ObservationLog, Poll, create_log, open_log
from serving.online import AsOfError, FeatureServer, NotReadyError
from serving.served import AuditReport, ServedLog, audit, read_served
from serving.served.tables import list_tables

REPOSITORY = Path(__file__).resolve().parents[1]
STATIONS = [f"station-{place:02d}" for place in range(14)]
METERS = list(range(100, 112))
BACKLOG = 60_000
"""A server stops to answer while so many vectors wait to be written, so that none is dropped."""

# ------------------------------------------------------------------------------------------------------------ declared


def make_logs(root: Path) -> None:
    """The logs of four providers, each with a first batch."""
    weather = {"station": pl.String, "temp": pl.Float64, "wet": pl.Boolean, "code": pl.String, "n": pl.Int32}
    # A margin that commits often exceed, so that they are confirmed late and stamped again.
    create_log(root, "weather", entities=["station"], schema=weather, publish_margin="15ms")
    wind = {"station": pl.String, "wind": pl.Float64}
    create_log(root, "nwp", entities=["station"], kind="forecast", schema=wind)
    load = {"meter": pl.Int64, "id": pl.Int64, "load": pl.Float32}
    create_log(root, "meters", entities=["meter"], key=["id"], schema=load)
    create_log(root, "grid", entities=[], schema={"price": pl.Float64})
    world = World(root, seed=0)
    for provider in world.logs:
        world.fresh(provider)


def views(root: Path) -> list[al.FeatureView]:
    """Every kind of feature over them."""
    logs = {name: open_log(root, name) for name in ("weather", "nwp", "meters", "grid")}
    return [
        al.FeatureView(
            "weather",
            observations=logs["weather"],
            features=[
                al.latest("temp"),
                al.latest("code", skip_null=True),
                al.latest("wet"),
                al.lag("temp", ["2s", "5s"], tolerance="3s"),
                al.window("temp", ["count", "sum", "mean", "std", "min", "max", "median", "q90", "slope"], "6s"),
                al.window("n", ["sum", "first", "last"], "10s", offset="1s"),
                al.sequence("temp", 6),
                al.sequence("n", 5, step="1s"),
                al.event_age(),
                al.arrival_age(),
            ],
            max_event_age="4s",
        ),
        al.FeatureView(
            "nwp",
            observations=logs["nwp"],
            features=[
                al.forecast("wind", ["3s", "6s"], tolerance="2s"),
                al.forecast("wind", "8s", tolerance="2s", min_notice="9s", name="wind_noticed"),
                al.window("wind", ["mean", "count"], "6s", offset="-6s"),
                al.latest("wind"),
                al.issue_age(),
            ],
            max_issue_age="7s",
        ),
        al.FeatureView(
            "meters",
            observations=logs["meters"],
            features=[
                al.latest("load"),
                al.latest("twice"),
                al.window("load", ["sum", "count", "last"], "8s"),
                al.lag("load", "3s", tolerance="1s"),
            ],
            derive={"twice": pl.col("load") * 2},
            entity_map={"site": "meter"},
            max_arrival_age="3s",
        ),
        al.FeatureView(
            "grid",
            observations=logs["grid"],
            features=[al.latest("price"), al.window("price", ["mean", "var"], "5s"), al.sequence("price", 4)],
        ),
    ]


LISTS: list[list[str] | None] = [
    None,
    ["weather"],
    ["weather:temp_mean_6s", "nwp:wind_forecast_6s", "meters:load"],
    ["nwp", "grid"],
]
"""What clients ask for."""

# ----------------------------------------------------------------------------------------------------------- ingesting


class World:
    """Sends what providers send: on time, late, corrected, withdrawn, as history, and for a while nothing."""

    def __init__(self, root: Path, seed: int) -> None:
        self.logs: dict[str, ObservationLog] = {
            name: open_log(root, name) for name in ("weather", "nwp", "meters", "grid")
        }
        self.chance = random.Random(seed)
        self.sent: dict[str, list[dict[str, Any]]] = {name: [] for name in self.logs}
        self.silent: dict[str, float] = dict.fromkeys(self.logs, 0.0)
        self.ids = 1_000_000 * seed

    def number(self) -> float | None:
        """A value of the kinds that go wrong: null, NaN, negative zero, sums that round."""
        kind = self.chance.random()
        if kind < 0.06:
            return None
        if kind < 0.08:
            return float("nan")
        return -0.0 if kind < 0.1 else self.chance.uniform(-50, 50)

    def row(self, provider: str, age: float) -> dict[str, Any]:
        """A new observation that is `age` seconds old."""
        event = datetime.now(UTC) - timedelta(seconds=age)
        if provider == "grid":
            return {"event_time": event, "price": self.number()}
        if provider == "meters":
            self.ids += 1
            return {"meter": self.chance.choice(METERS), "id": self.ids, "event_time": event, "load": self.number()}
        station = self.chance.choice(STATIONS)
        if provider == "nwp":
            ahead = timedelta(seconds=self.chance.randint(0, 12))
            issue = (event - timedelta(seconds=self.chance.uniform(0, 3))).replace(microsecond=0)
            return {"station": station, "event_time": issue + ahead, "issue_time": issue, "wind": self.number()}
        wet, code = self.chance.choice([True, False, None]), self.chance.choice(["x", "yy", None])
        return {
            "station": station,
            "event_time": event,
            "temp": self.number(),
            "wet": wet,
            "code": code,
            "n": self.chance.randint(-1000, 1000),
        }

    def append(self, provider: str, rows: list[dict[str, Any]], **options: Any) -> None:
        """One batch; of rows with one key only the last."""
        log = self.logs[provider]
        kinds = {"event_time": pl.Datetime("us", "UTC"), "issue_time": pl.Datetime("us", "UTC")} | log.columns
        keyed = {tuple(row.get(name) for name in (*log.definition.key_columns,)): row for row in rows}
        frame = pl.DataFrame(list(keyed.values()), infer_schema_length=None)
        log.append(frame.cast({name: kinds[name] for name in frame.columns if name in kinds}), **options)
        sent = [{name: value for name, value in row.items() if name != "arrival_time"} for row in keyed.values()]
        self.sent[provider] = (self.sent[provider] + sent)[-150:]

    def fresh(self, provider: str) -> None:
        """What is expected, for about half of the entities."""
        self.append(provider, [self.row(provider, self.chance.uniform(0.0, 1.0)) for _ in range(20)])

    def late(self, provider: str) -> None:
        """Events of a while ago."""
        self.append(provider, [self.row(provider, self.chance.uniform(2.0, 20.0)) for _ in range(6)])

    def corrected(self, provider: str) -> None:
        """Values that were sent before, with others in their place; ids may move in time."""
        rows = [dict(row) for row in self.chance.sample(self.sent[provider], min(5, len(self.sent[provider])))]
        for row in rows:
            row.pop("is_retraction", None)
            value = next(name for name in ("temp", "wind", "load", "price") if name in row)
            row[value] = self.number()
            if provider == "meters":
                row["event_time"] -= timedelta(seconds=self.chance.choice([0.0, 0.5, 2.0]))
        self.append(provider, rows)

    def retracted(self, provider: str) -> None:
        """Rows that were sent before are withdrawn: some, or all that an entity has."""
        rows = self.sent[provider]
        if provider == "grid":
            chosen = self.chance.sample(rows, min(3, len(rows)))
        else:
            entity = "meter" if provider == "meters" else "station"
            who = self.chance.choice(rows)[entity]
            chosen = [row for row in rows if row[entity] == who]
        self.append(provider, [dict(row) | {"is_retraction": True} for row in chosen])

    def backfilled(self, provider: str) -> None:
        """History that was never seen before, of a declared delay: it counts at instants that were answered already."""
        rows = [self.row(provider, self.chance.uniform(1.0, 15.0)) for _ in range(5)]
        self.append(provider, rows, backfill=True, delay=al.FixedDelay("300ms"))

    def stated(self, provider: str) -> None:
        """Rows that state an arrival before their commit."""
        rows = [self.row(provider, 3.0) for _ in range(3)]
        for row in rows:
            row["arrival_time"] = datetime.now(UTC) - timedelta(milliseconds=self.chance.randint(1, 2000))
            row["event_time"] = min(row["event_time"], row["arrival_time"])
        with contextlib.suppress(Exception):  # a stated arrival may break the order of arrivals
            self.append(provider, rows)

    def overrun(self, provider: str) -> None:
        """A commit that is confirmed long after its stamp, as on a slow disk: the batch gets a later arrival (R14)."""
        looks = iter([0.0, 0.8])  # the first look at the clock stamps the batch, the second confirms it

        def clock() -> datetime:
            time.sleep(next(looks, 0.0))
            return datetime.now(UTC)

        self.append(provider, [self.row(provider, self.chance.uniform(0.5, 3.0)) for _ in range(6)], clock=clock)

    def outage(self, provider: str) -> None:
        """For a few seconds nothing comes; an empty poll says that one tried."""
        self.silent[provider] = time.monotonic() + self.chance.uniform(3.0, 7.0)
        now = datetime.now(UTC)
        self.logs[provider].record_poll(Poll(outcome="empty", source="parity", started=now, ended=now))

    def run(self) -> None:
        """Send until the process is stopped."""
        kinds = [
            (self.fresh, 50),
            (self.late, 10),
            (self.corrected, 12),
            (self.retracted, 8),
            (self.backfilled, 2),
            (self.overrun, 2),
            (self.stated, 1),
            (self.outage, 1),
        ]
        for provider in self.logs:
            self.fresh(provider)
        while True:
            provider = self.chance.choice(list(self.logs))
            if time.monotonic() < self.silent[provider]:
                time.sleep(0.01)
                continue
            (send,) = self.chance.choices([send for send, _ in kinds], [weight for _, weight in kinds])
            send(provider)
            time.sleep(self.chance.uniform(0.0, 0.06))


# ------------------------------------------------------------------------------------------------------------- serving


def serve(root: Path, seed: int, replica: str, redis: str = "") -> None:
    """Answer whoever asks, until the process is killed; one that starts again goes on after what was kept."""
    declared = views(root)
    server = started(declared, redis)
    served = ServedLog(root, declared, replica=replica, most=10 * BACKLOG)
    server.on_answer.append(served.offer)
    chance = random.Random(seed)
    print("ready", flush=True)
    while True:
        count = chance.choice([1, 1, 2, 10, 100, 200])
        entities = {
            "station": [chance.choice([*STATIONS, "nowhere", None]) for _ in range(count)],
            "site": [chance.choice([*METERS, 999, None]) for _ in range(count)],
        }
        past = datetime.now(UTC) - timedelta(seconds=chance.uniform(2.0, 10.0)) if chance.random() < 0.01 else None
        try:
            server.read(chance.choice(LISTS), entities, as_of=past)
        except AsOfError:
            pass  # a busy machine may know less than the two seconds ago that are asked for
        except NotReadyError:
            time.sleep(0.02)  # the state is gone and built anew: no answer is better than a wrong one
        time.sleep(0.005)  # the providers need the processors too
        while served.counts.pending > BACKLOG:
            time.sleep(0.05)
        if served.counts.dropped or served.counts.refused:
            raise SystemExit(f"not everything was kept: {served.counts}")


def started(declared: list[al.FeatureView], redis: str) -> FeatureServer:
    """A server that follows; tried again while Redis cannot be reached or fails over."""
    if not redis:
        return FeatureServer(declared).start()
    from serving.online import RedisBackend

    while True:
        server = FeatureServer(declared, backend=RedisBackend(redis))
        try:
            return server.start()
        except NotReadyError:
            server.close()
            time.sleep(0.1)


# ------------------------------------------------------------------------------------------------------------- driving


@dataclass
class Outcome:
    """What a run came to."""

    report: AuditReport
    kills: int
    statuses: Counter[str] = field(default_factory=Counter)
    replicas: set[str] = field(default_factory=set)
    rows: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def process(*words: str) -> subprocess.Popen[str]:
    """One of the processes of this file."""
    return subprocess.Popen(
        [sys.executable, __file__, *words],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])},
    )


def start(root: Path, seed: int, replica: str, redis: str) -> subprocess.Popen[str]:
    """A server that answers by now."""
    server = process("serve", str(root), str(seed), replica, *([redis] if redis else []))
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    return server


def stop(running: subprocess.Popen[str], how: int = signal.SIGKILL) -> None:
    running.send_signal(how)
    running.wait()
    assert running.stdout is not None
    running.stdout.close()


def kept(root: Path) -> int:
    """How many vectors have been committed."""
    tables = [DeltaTable(table.location.address) for table in list_tables(root)]
    return sum(int(pl.DataFrame(table.get_add_actions(flatten=True))["num_records"].sum()) for table in tables)


def run(
    root: Path,
    *,
    vectors: int,
    replicas: int = 2,
    seed: int = 1,
    redis: str = "",
    lived: float = 8.0,
    kills: int = 1,
    disturb: Callable[[], None] = lambda: None,
) -> Outcome:
    """Ingest and serve until so many vectors were served, killing a server now and then; then audit all of it.

    Args:
        root: Where the logs go.
        vectors: How many vectors are to be served at least.
        replicas: How many servers answer at a time.
        seed: Of everything that is drawn.
        redis: Address of the online state that they share; in their own memory if empty.
        lived: About how many seconds a server lives before it is killed.
        kills: How many servers are killed at least.
        disturb: Called between kills: what else goes wrong.
    """
    make_logs(root)
    chance = random.Random(seed)
    began = time.monotonic()
    world = process("ingest", str(root), str(seed + 1))
    servers: dict[str, subprocess.Popen[str]] = {}
    killed = 0
    try:
        for n in range(replicas):
            servers[f"replica-{n}"] = start(root, seed + n, f"replica-{n}", redis)
        while killed < kills or kept(root) < vectors:
            time.sleep(chance.uniform(0.5, 1.5) * lived / replicas)
            assert world.poll() is None, "the world stopped"
            disturb()
            victim = chance.choice(list(servers))
            assert servers[victim].poll() is None, f"{victim} stopped: {servers[victim].returncode}"
            stop(servers[victim])
            killed += 1
            servers[victim] = start(root, seed + 100 * killed, victim, redis)
        time.sleep(1.5)  # the last of them keeps something too
    finally:
        for running in (*servers.values(), world):
            stop(running)
    served_for = time.monotonic() - began
    began = time.monotonic()
    report = audit(str(root))
    audited_for = time.monotonic() - began
    outcome = Outcome(report, killed, seconds={"serving": served_for, "audit": audited_for})
    frame = read_served(str(root))
    for name in frame.columns:
        if name.endswith("__status"):
            outcome.statuses.update(dict(frame[name].drop_nulls().value_counts().iter_rows()))
    outcome.replicas = set(frame["served_by"].unique())
    outcome.rows = {name: log.position() + 1 for name, log in World(root, 0).logs.items()}
    return outcome


def check(outcome: Outcome, vectors: int) -> None:
    """What a run has to show: nothing differs at (t, p), and every later difference has a row behind it."""
    report = outcome.report
    assert report.vectors >= vectors
    assert report.differences == 0, str(report)
    assert report.unexplained == 0, str(report)
    assert report.ok


if __name__ == "__main__":
    what, root, seed, *rest = sys.argv[1:]
    if what == "ingest":
        World(Path(root), int(seed)).run()
    else:
        serve(Path(root), int(seed), *rest)
