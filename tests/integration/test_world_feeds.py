"""The simulated world as real feeds: what the jobs put into the logs is what the world says had been published."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import zmqtt
from jobs_process import ASKNOWN, ENVIRONMENT, asknown
from jobs_process import running as running_job
from services import Server, free_port, mosquitto  # noqa: F401 - a fixture

import alignment as al
import ingestion
from ingestion.instants import from_us, to_us
from ingestion.providers import load_providers
from ingestion.sources.world_declarations import declarations
from ingestion.sources.world_feeds import PATHS, PROVIDERS, TOPIC, LiveWorld, WorldServer, WorldTime, image, publisher
from ingestion.sources.world_outages import FeedOutage

ANCHOR = datetime(2026, 6, 1, 12, tzinfo=UTC)
VALUES = {
    "sky_camera": ["cloud_cover", "sky_vector"],
    "pyranometer": ["irradiance"],
    "weather_mast": ["air_temp", "wind_speed"],
    "inverter": ["dc_power_kw"],
    "meter": ["power_kw"],
}


class Hands:
    """A wall clock that is set by hand."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def live(speed: float = 60.0) -> LiveWorld:
    return LiveWorld(time=WorldTime(anchor=ANCHOR, speed=speed), seed=5)


# ---- the world on the wall clock -------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS)
def test_nothing_is_published_before_it_happens_and_what_was_stays(provider: str) -> None:
    world = live()
    earlier = world.published(provider, ANCHOR)
    later = world.published(provider, ANCHOR + timedelta(minutes=3))
    assert (earlier["event_time"] < earlier["published_time"]).all()
    assert (earlier["published_time"] <= ANCHOR).all()
    assert later[: earlier.height].equals(earlier)
    assert later.height > earlier.height


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_world_that_is_started_again_is_the_same_to_the_last_bit(provider: str) -> None:
    at = ANCHOR + timedelta(hours=5)  # twelve simulated days later
    walked = live()
    for minutes in range(0, 300, 20):
        walked.published(provider, ANCHOR + timedelta(minutes=minutes))
    assert live().published(provider, at).equals(walked.published(provider, at))


def test_at_speed_one_the_calendar_is_the_wall_clocks() -> None:
    rows = live(speed=1).published("meter", ANCHOR)
    assert rows["event_time"].max() > ANCHOR - timedelta(hours=8)
    assert set(rows["event_time"].dt.minute()) == {0, 10, 20, 30, 40, 50}


def test_the_declared_window_is_not_longer_than_what_is_served() -> None:
    for speed in (1, 7, 60, 999.5, 3600):
        declared = declarations("http://127.0.0.1:1", speed)["providers"]["inverter"]
        window = timedelta(microseconds=ingestion.instants.duration_us(declared["window"], "window"))
        now = ANCHOR + timedelta(minutes=1)
        assert now - window >= live(speed).oldest(now)


# ---- the server ------------------------------------------------------------------------------------------------------


def test_an_outage_answers_503_and_ends(tmp_path: Path) -> None:
    clock = Hands(ANCHOR)
    planned = {"meter": [FeedOutage(start=ANCHOR + timedelta(minutes=1), end=ANCHOR + timedelta(minutes=2))]}
    with WorldServer(live(), port=0, clock=clock, outages=planned) as server, httpx.Client() as client:
        url = server.address + PATHS["meter"]
        assert client.get(url).status_code == 200
        clock.now = ANCHOR + timedelta(seconds=90)
        answer = client.get(url)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        clock.now = ANCHOR + timedelta(minutes=2)
        assert client.get(url).status_code == 200
        assert client.post(f"{server.address}/outage/meter").json()["providers"]["meter"]["down"]
        assert client.get(url).status_code == 503
        assert client.get(server.address + PATHS["inverter"]).status_code == 200
        assert not client.delete(f"{server.address}/outage/meter").json()["providers"]["meter"]["down"]
        assert client.get(url).status_code == 200
        assert client.post(f"{server.address}/outage/moon").status_code == 404
        assert client.get(url, params={"since": "yesterday"}).status_code == 400


def test_a_frozen_world_serves_what_it_served(tmp_path: Path) -> None:
    clock = Hands(ANCHOR)
    with WorldServer(live(), port=0, clock=clock) as server, httpx.Client() as client:
        url = server.address + PATHS["weather_mast"]
        client.post(f"{server.address}/freeze")
        before = client.get(url)
        clock.now = ANCHOR + timedelta(minutes=5)
        assert client.get(url).content == before.content
        assert client.get(url, headers={"If-None-Match": before.headers["ETag"]}).status_code == 304
        client.delete(f"{server.address}/freeze")
        assert client.get(url).content != before.content


def test_pages_together_are_the_whole(tmp_path: Path) -> None:
    clock = Hands(ANCHOR)
    world = live()
    with WorldServer(world, port=0, clock=clock) as server, httpx.Client() as client:
        found, path = [], f"{PATHS['pyranometer']}?since={'2026-06-01T11:00:00Z'}"
        while path:
            document = client.get(server.address + path).json()
            found += document["data"]
            path = document["paging"]["next"]
            clock.now += timedelta(seconds=10)  # the world goes on between pages
        since = datetime(2026, 6, 1, 11, tzinfo=UTC)
        assert len(found) == world.current("pyranometer", ANCHOR, since=since).height > 200
        assert len({(row["station"], row["time"]) for row in found}) == len(found)


# ---- as processes ----------------------------------------------------------------------------------------------------


def call(method: str, url: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as answer:
        return json.loads(answer.read())


@contextmanager
def served(folder: Path, *words: str, port: int = 0) -> Iterator[str]:
    """`asknown world serve` as a process; yields its address."""
    errors = (folder / "world.txt").open("w")
    world = subprocess.Popen(
        [*ASKNOWN, "world", "serve", "--port", str(port), *words],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    try:
        assert world.stdout is not None
        address = world.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), (folder / "world.txt").read_text()
        yield address
        world.send_signal(signal.SIGTERM)
        assert world.wait(20) == 0
    finally:
        if world.poll() is None:
            world.kill()
        world.wait(20)
        assert world.stdout is not None
        world.stdout.close()
        errors.close()


def before_the_morning(speed: float) -> tuple[datetime, datetime]:
    """An anchor with which it is 03:00 in the world now, and when it will be 07:00: corrections come at six."""
    now = to_us(datetime.now(UTC))
    hour = 3_600_000_000
    back = ((3 * hour - now) % (24 * hour)) / (speed - 1)  # simulated = anchor + (now - anchor) * speed
    return from_us(now - round(back)), from_us(now + round(4 * hour / speed))


def seed_with_corrections(anchor: datetime, speed: float, until: datetime) -> int:
    """A world in which readings of the pyranometer are corrected shortly before an instant."""
    for seed in range(1, 100):
        world = LiveWorld(time=WorldTime(anchor=anchor, speed=speed), seed=seed)
        rows = world.published("pyranometer", until)
        again = rows.filter(pl.struct("site", "event_time").is_duplicated() & (pl.col("published_time") > anchor))
        if again.filter(pl.col("published_time") > until - timedelta(hours=1.1) / speed).height > 20:
            return seed
    raise AssertionError("no such world")


def difference(address: str, root: Path, provider: str, *, since: datetime | None = None) -> list[str]:
    """What a log and the world do not agree on, of the events that every poll could still see."""
    truth = call("GET", f"{address}/truth/{provider}")
    schema = {
        "site": pl.String,
        "event_time": pl.String,
        **{name: pl.Array(pl.Float32, 4) if name == "sky_vector" else pl.Float64 for name in VALUES[provider]},
    }
    names = list(schema)
    events = [
        event
        for event in truth["events"]
        if event["event_time"] > truth["oldest"] and (since is None or event["published_time"] >= text_of(since))
    ]
    known = pl.DataFrame([{name: event[name] for name in names} for event in events], schema=schema)
    known = known.with_columns(pl.col("event_time").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_zone="UTC"))
    log = ingestion.open_log(root, provider)
    seen = al.snapshot(al.Observations(log), datetime.now(UTC) + timedelta(seconds=5))
    oldest = datetime.fromisoformat(truth["oldest"])
    seen = seen.filter(pl.col("event_time") > oldest).select(names)
    if since is not None:
        seen = seen.join(known, on=["site", "event_time"], how="semi")
    lost = known.join(seen, on=names, how="anti", nulls_equal=True)
    more = seen.join(known, on=names, how="anti", nulls_equal=True)
    told = [f"{provider}: not in the log: {row}" for row in lost.head(3).rows()]
    told += [f"{provider}: not in the world: {row}" for row in more.head(3).rows()]
    return told if known.height else [f"{provider}: the world is empty"]


def text_of(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def agree(address: str, root: Path, *providers: str, since: datetime | None = None) -> None:
    """Wait until the logs are as the world says."""
    end = time.monotonic() + 60
    while told := [told for name in providers for told in difference(address, root, name, since=since)]:
        assert time.monotonic() < end, "\n".join(told)
        time.sleep(0.2)


def test_the_job_puts_into_the_logs_what_the_world_has_published(tmp_path: Path) -> None:
    speed, port, root = 1200.0, str(free_port()), tmp_path / "logs"  # an hour in three seconds
    told = asknown(tmp_path, "world", "providers", "--port", port, "--speed", str(speed), "--json")
    assert told.returncode == 0, told.stderr
    declared = json.loads(told.stdout)
    for provider in declared["providers"].values():
        provider["source"] |= {"attempts": 1, "failures": 1000}  # an outage is soon over
    (tmp_path / "asknown.yaml").write_text(json.dumps(declared))
    assert set(load_providers(tmp_path / "asknown.yaml").providers) == set(PROVIDERS)
    with running_job(tmp_path) as job:
        anchor, seven = before_the_morning(speed)
        seed = str(seed_with_corrections(anchor, speed, seven))
        words = ["--speed", str(speed), "--anchor", anchor.isoformat(), "--seed", seed]
        with served(tmp_path, *words, port=int(port)) as address:
            job.until(lambda: all(rows_in(root, name) for name in PROVIDERS))
            down = asknown(tmp_path, "world", "outage", "meter", "--port", port, "--seconds", "2", "--json")
            assert json.loads(down.stdout)["providers"]["meter"]["down"]
            job.until(lambda: datetime.now(UTC) > seven)
            call("POST", f"{address}/freeze")
            agree(address, root, *PROVIDERS)
            job.process.send_signal(signal.SIGTERM)
            assert job.process.wait(60) == 0, job.errors.read_text()
            agree(address, root, *PROVIDERS)
    assert set(ingestion.open_log(root, "meter").polls()["outcome"]) >= {"rows", "failed"}
    pyranometer = ingestion.open_log(root, "pyranometer").scan().collect()
    keys = pyranometer.group_by("site", "event_time").len()["len"]
    assert keys.max() > 1, "no correction was seen"
    assert all(ingestion.open_log(root, name).quarantine().is_empty() for name in PROVIDERS)


def rows_in(root: Path, provider: str) -> int:
    if provider not in ingestion.list_logs(root):
        return 0
    return ingestion.open_log(root, provider).info().rows


def test_the_sky_camera_publishes_to_mqtt_and_an_outage_loses_nothing(mosquitto: Server) -> None:  # noqa: F811
    anchor = datetime.now(UTC)
    world = LiveWorld(time=WorldTime(anchor=anchor, speed=600), seed=5)

    async def listen(server: WorldServer) -> list[dict[str, Any]]:
        got: list[dict[str, Any]] = []
        client = zmqtt.MQTTClient("127.0.0.1", mosquitto.port, client_id="listener")
        async with client, client.subscribe(f"{TOPIC}/#", qos=zmqtt.QoS.AT_LEAST_ONCE) as messages:
            with publisher(server, f"127.0.0.1:{mosquitto.port}"):
                begin = time.monotonic()
                while time.monotonic() - begin < 30:
                    if 2 < time.monotonic() - begin < 3 and not server.is_down("sky_camera"):
                        server.begin_outage("sky_camera", timedelta(seconds=2))
                    if time.monotonic() - begin > 6:
                        server.freeze()
                    with contextlib.suppress(TimeoutError):
                        got.append(json.loads((await asyncio.wait_for(messages.get_message(), 0.2)).payload))
                        continue
                    if server.frozen and len(got) >= len(due(server)):
                        break
        return got

    def due(server: WorldServer) -> list[dict[str, Any]]:
        rows = world.published("sky_camera", server.now()).filter(pl.col("published_time") > server.started)
        return [image(row) for row in rows.iter_rows(named=True)]

    with WorldServer(world, port=0) as server:
        got = asyncio.run(listen(server))
        assert got == due(server)
        assert len(got) >= 12  # three sites, a photograph a second each


def test_a_job_loses_no_photograph_when_camera_and_broker_fail(tmp_path: Path, mosquitto: Server) -> None:  # noqa: F811
    port, broker, speed = str(free_port()), f"127.0.0.1:{mosquitto.port}", "600"
    declared = asknown(tmp_path, "world", "providers", "--port", port, "--speed", speed, "--mqtt", broker)
    (tmp_path / "asknown.yaml").write_text(declared.stdout)
    root = tmp_path / "logs"
    with running_job(tmp_path, "sky_camera") as job:
        job.until(lambda: any(line["event"] == "connected" for line in job.lines()))
        with served(tmp_path, "--speed", speed, "--mqtt", broker, port=int(port)) as address:
            begin = datetime.now(UTC)
            time.sleep(2)
            call("POST", f"{address}/outage/sky_camera?seconds=3")
            mosquitto.restart()
            time.sleep(6)
            call("POST", f"{address}/freeze")
            job.until(lambda: "sky_camera" in ingestion.list_logs(root))
            agree(address, root, "sky_camera", since=begin)
            assert (
                ingestion.open_log(root, "sky_camera").scan().collect().height >= 12
            )  # three sites, one a second each
            job.process.send_signal(signal.SIGTERM)
            assert job.process.wait(60) == 0, job.errors.read_text()
