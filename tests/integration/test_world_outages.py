"""Outages of the served world, and what a job that polls it makes of them: rows, heartbeats, outages in its ledger."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

import alignment as al
import ingestion
from ingestion.jobs import poll_once
from ingestion.providers import load_providers
from ingestion.sources.world_declarations import declarations
from ingestion.sources.world_feeds import PROVIDERS, LiveWorld, WorldServer, WorldTime
from ingestion.sources.world_outages import FeedOutage, FeedOutages
from serving.cli import run
from serving.cli_world import planned

ANCHOR = datetime(2026, 6, 1, 12, tzinfo=UTC)
SPEED = 60.0  # a simulated hour is a minute; readings come every ten seconds
SECOND = timedelta(seconds=1)
SITES = ("dune", "harbour", "ridge")
EVENT = ["site", "event_time"]


class Hands:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.now = ANCHOR

    def __call__(self) -> datetime:
        return self.now


def live() -> LiveWorld:
    return LiveWorld(time=WorldTime(anchor=ANCHOR, speed=SPEED), seed=5)


def at(seconds: float) -> datetime:
    return ANCHOR + timedelta(seconds=seconds)


def published(outages: list[FeedOutage], seconds: float = 300, provider: str = "meter") -> pl.DataFrame:
    world = live()
    world.outages.add(provider, outages)
    return world.published(provider, at(seconds))


# ---- what is published -----------------------------------------------------------------------------------------------


def rule(row: dict[str, Any], outages: list[FeedOutage]) -> datetime | None:
    """When one revision is published, as a plain rule; None is never."""
    when: datetime = row["published_time"]
    for outage in sorted(outages, key=lambda one: one.start):
        if not outage.covers(when) or (outage.sites is not None and row["site"] not in outage.sites):
            continue
        if outage.lost:
            return None
        if outage.slow is not None:
            when = row["event_time"] + (when - row["event_time"]) * outage.slow
        elif outage.sites is not None:
            if outage.end is None:
                return None
            when = outage.end
    return when


@pytest.mark.parametrize(
    "outages",
    [
        [FeedOutage(start=at(0), end=at(60), lost=True)],
        [FeedOutage(start=at(0), end=at(60), lost=True, sites=("dune",))],
        [FeedOutage(start=at(0), end=at(60), sites=("dune", "ridge"))],
        [FeedOutage(start=at(0), end=at(60), slow=3.0)],
        [FeedOutage(start=at(0), end=at(60), slow=2.5, sites=("dune",)), FeedOutage(start=at(50), end=at(90), sites=("dune",))],
        [FeedOutage(start=at(0), end=at(60))],  # it answers nothing; what it has published is what it was
        [FeedOutage(start=at(100), sites=("dune",))],  # nobody knows when it ends
        [FeedOutage(start=at(100), lost=True)],
    ],
)  # fmt: skip
@pytest.mark.parametrize("provider", ["meter", "pyranometer"])
def test_what_is_published_under_outages_is_what_the_plain_rule_says(outages: list[FeedOutage], provider: str) -> None:
    whole = live().published(provider, at(600))
    expected = []
    latest: dict[tuple[str, datetime], datetime] = {}
    for row in whole.iter_rows(named=True):
        when = rule(row, outages)
        if when is None:
            continue
        key = (row["site"], row["event_time"])
        when = latest[key] = max(when, latest.get(key, when))  # revisions keep their order
        if when <= at(300):
            expected.append((*key, when, row["is_retraction"]))
    got = published(outages, provider=provider).select(*EVENT, "published_time", "is_retraction")
    assert got["published_time"].is_sorted()
    assert sorted(got.rows(), key=repr) == sorted(expected, key=repr)
    ordinary = live().published(provider, at(300)).select(got.columns)
    assert got.equals(ordinary) == (outages == [FeedOutage(start=at(0), end=at(60))])


def test_a_correction_does_not_overtake_what_it_corrects() -> None:
    rows = pl.DataFrame(
        {"site": ["dune"] * 2, "event_time": [at(0)] * 2, "published_time": [at(20), at(60)], "power_kw": [1.0, 2.0]}
    )
    outages = FeedOutages()
    outages.add("meter", [FeedOutage(start=at(10), end=at(30), slow=5.0)])
    published = outages.published("meter", rows)  # the first reading now takes 100 seconds
    assert published["published_time"].to_list() == [at(100), at(100)]
    assert published["power_kw"].to_list() == [1.0, 2.0]


def test_nothing_that_was_published_is_taken_back_when_an_outage_begins_or_ends() -> None:
    world = live()
    seen = world.published("meter", ANCHOR)
    for second, change in enumerate(
        [
            lambda now: world.outages.add("meter", [FeedOutage(start=now, slow=3.0)]),
            lambda now: world.outages.end("meter", now),
            lambda now: world.outages.add("meter", [FeedOutage(start=now, sites=("dune",))]),
            lambda now: world.outages.add("meter", [FeedOutage(start=now, end=now + 40 * SECOND, lost=True)]),
            lambda now: world.outages.end("meter", now),
        ]
    ):
        now = at(20 * second)
        change(now)
        for later in (0, 10, 19):
            rows = world.published("meter", now + later * SECOND)
            assert rows[: seen.height].equals(seen)
            seen = rows


def test_outages_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="lost and slow exclude each other"):
        FeedOutage(start=ANCHOR, lost=True, slow=2)
    with pytest.raises(ValueError, match=r"slow=0\.5 is less than 1"):
        FeedOutage(start=ANCHOR, slow=0.5)
    with pytest.raises(ValueError, match="no site 'moon'; there are dune, harbour, ridge"):
        FeedOutage.of(al.Outage("meter", ANCHOR, at(60), entities=["moon"]))
    ways = ["dune", ("dune",), {"site": "dune"}]
    assert {FeedOutage.of(al.Outage("meter", ANCHOR, at(60), slow=2, entities=[one])) for one in ways} == {
        FeedOutage(start=ANCHOR, end=at(60), slow=2.0, sites=("dune",))
    }


# ---- what a job makes of it ------------------------------------------------------------------------------------------


@contextmanager
def polled(folder: Path) -> Iterator[tuple[WorldServer, Callable[[str, float, float], ingestion.ObservationLog]]]:
    """A served world, and what polls one of its providers every ten seconds of a time that is set by hand."""
    clock = Hands()
    with WorldServer(live(), port=0, clock=clock) as server:
        declared = declarations(server.address, SPEED, root=str(folder / "logs"))
        for provider in declared["providers"].values():
            provider["source"] |= {"attempts": 1, "failures": 1000}
        path = folder / "asknown.yaml"
        path.write_text(json.dumps(declared))
        known = load_providers(path).providers
        opened: dict[str, Any] = {}

        def poll(name: str, begin: float, end: float) -> ingestion.ObservationLog:
            provider = known[name]
            log = provider.open(folder / "logs", clock=clock)
            if name not in opened:
                opened[name] = provider.source.open(name, os.environ, clock=clock)
            for second in range(round(begin), round(end), 10):
                clock.now = at(second)
                poll_once(provider, log, opened[name], clock=clock)
            return log

        try:
            yield server, poll
        finally:
            for source in opened.values():
                source.close()


def agree(server: WorldServer, log: ingestion.ObservationLog, name: str, value: str) -> None:
    """The log has what the world has published, and nothing else."""
    now = server.now()
    told = server.world.current(name, now).filter(~pl.col("is_retraction"), pl.col("event_time") > at(-600))
    known = al.snapshot(al.Observations(log), now + SECOND).filter(pl.col("event_time") > at(-600))
    columns = [*EVENT, value]
    assert known.select(columns).sort(EVENT).equals(told.select(columns).sort(EVENT))


def test_a_lost_outage_is_a_gap_in_the_ledger_and_in_the_log(tmp_path: Path) -> None:
    with polled(tmp_path) as (server, poll):
        poll("meter", 0, 60)
        httpx.post(f"{server.address}/outage/meter?seconds=60&lost=1")
        log = poll("meter", 60, 160)
        agree(server, log, "meter", "power_kw")
        (told,) = ingestion.outages(log, "20s").to_dicts()
        (found,) = ingestion.outages_of(log, "20s")
    margin = timedelta(milliseconds=500)
    # the clock still shows 50 s when the outage begins, after the poll; at 110 s the feed answers again
    assert (told["last_heartbeat"], told["end"]) == (at(50) + margin, at(110) + margin)
    assert (found.provider, found.end, found.lost) == ("meter", at(110) + margin, True)
    polls = log.polls()
    assert polls.filter(pl.col("outcome") == "failed").height == 5  # 60, 70, ... 100
    assert set(polls["outcome"]) >= {"rows", "failed"}
    times = log.scan().collect()["event_time"]
    missing = [second for second in range(-100, 130, 10) if at(second) not in set(times)]
    assert missing == [30, 40, 50, 60, 70, 80], "readings take 20 to 30 seconds: what was due from 50 to 110 never came"


def test_the_rows_of_one_site_come_at_the_end_of_its_outage_and_the_provider_is_never_down(tmp_path: Path) -> None:
    with polled(tmp_path) as (server, poll):
        poll("pyranometer", 0, 60)
        told = httpx.post(f"{server.address}/outage/pyranometer?site=dune").json()["providers"]["pyranometer"]
        assert not told["down"]
        assert told["outages"] == [{"start": at(50).isoformat(), "end": None, "sites": ["dune"]}]
        poll("pyranometer", 60, 120)
        httpx.delete(f"{server.address}/outage/pyranometer")
        log = poll("pyranometer", 120, 170)
        agree(server, log, "pyranometer", "irradiance")
        assert ingestion.outages(log, "20s").is_empty()
        found = al.find_outages(log, "40s", per_entity=True)
    assert [(one.entities, one.lost) for one in found] == [(("dune",), False)]
    assert at(35) < found[0].start < at(55)
    assert at(115) < found[0].end < at(125)


def test_a_slow_provider_lives_and_its_rows_are_old_when_they_come(tmp_path: Path) -> None:
    with polled(tmp_path) as (server, poll):
        poll("meter", 0, 60)
        httpx.post(f"{server.address}/outage/meter?seconds=100&slow=3")
        log = poll("meter", 60, 230)
        agree(server, log, "meter", "power_kw")
        assert set(log.polls()["outcome"]) == {"rows", "empty"}
        assert ingestion.outages(log, "20s").is_empty(), "empty polls show that it lives"
    delays = (
        log.scan()
        .filter(pl.col("event_time") >= at(-20))
        .select("event_time", (pl.col("arrival_time") - pl.col("event_time")).alias("delay"))
        .collect()
    )
    usual = delays.filter(pl.col("event_time") < at(20))["delay"].max()
    slow = delays.filter(pl.col("event_time").is_between(at(40), at(120)))["delay"].min()
    assert usual < timedelta(seconds=41), "30 seconds at most, and up to 10 until it is polled"
    assert slow >= timedelta(seconds=60)


# ---- the command line ------------------------------------------------------------------------------------------------


def test_outages_are_ordered_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with WorldServer(live(), port=0, clock=Hands()) as server:
        port = server.address.rpartition(":")[2]
        words = ["--seconds", "90", "--lost", "--entity", "dune", "--entity", "ridge"]
        assert run(["world", "outage", "meter", "--port", port, *words]) == 0
        shown = capsys.readouterr().out
        assert "until 2026-06-01T12:01:30+00:00, lost, dune and ridge" in shown
        assert run(["world", "outage", "mast", "--port", port]) == 2
        assert run(["world", "outage", "meter", "--port", port, "--slow", "3", "--lost"]) == 2
        assert "lost and slow exclude each other" in capsys.readouterr().err
        assert run(["world", "outage", "meter", "--port", port, "--slow", "3", "--end"]) == 2
        assert "--end goes alone" in capsys.readouterr().err
        assert [len(server.world.outages.going_on(name, ANCHOR)) for name in PROVIDERS] == [0, 0, 0, 0, 1]
        assert run(["world", "outage", "meter", "--port", port, "--end", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["providers"]["meter"]["outages"] == []


def test_planned_outages_are_counted_from_now() -> None:
    before = datetime.now(UTC)
    (outage,) = planned(["meter,2m,90s,lost,entity=dune", "inverter,0s,1h,slow=3"])["meter"]
    assert timedelta(minutes=2) <= outage.start - before < timedelta(minutes=3)
    assert outage == FeedOutage(start=outage.start, end=outage.start + 90 * SECOND, lost=True, sites=("dune",))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mast,2m,90s", "--outage 'mast,2m,90s' names no provider"),
        ("meter,2m,90s,entity=moon", "--outage 'meter,2m,90s,entity=moon': no site 'moon'; there are dune, harbour, ridge"),
        ("meter:2m:90s", "--outage 'meter:2m:90s' is not an outage"),
    ],
)  # fmt: skip
def test_planned_outages_that_mean_nothing_are_refused(
    text: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["world", "serve", "--port", "0", "--outage", text]) == 2
    assert problem in capsys.readouterr().err
