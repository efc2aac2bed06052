"""A job with providers that are made up: who is polled when, what a hanging one does to others, how it stops."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

import ingestion.jobs.job as job_module
from ingestion.errors import SourceError
from ingestion.jobs.draining import drain
from ingestion.jobs.job import Job, Part
from ingestion.jobs.polling import PollReport
from ingestion.jobs.workplace import Workplace
from ingestion.ledger import Poll

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class FakeLog:
    """Keeps polls; has no files."""

    recorded: list[Poll] = field(default_factory=list)

    @property
    def table(self) -> Any:
        import polars as pl

        return SimpleNamespace(refresh=lambda: None, files=lambda: pl.DataFrame({"num_records": [1]}))

    def progress(self) -> Any:
        return SimpleNamespace(after=len(self.recorded) - 1)

    def polls(self, *, since: int) -> dict[str, list[datetime]]:
        return {"started": [poll.started for poll in self.recorded[since:]]}

    def record_poll(self, poll: Poll) -> None:
        self.recorded.append(poll)


@dataclass
class FakeProvider:
    """Polled every so many seconds of the real clock."""

    name: str
    every: float = 0.05
    kind: str = "http"
    log: FakeLog = field(default_factory=FakeLog)
    broken: Exception | None = None
    closed: int = 0
    waits: threading.Event | None = None

    @property
    def polled(self) -> bool:
        return self.kind != "push"

    @property
    def source(self) -> Any:
        return SimpleNamespace(kind=self.kind)

    def timetable(self) -> Any:
        step = timedelta(seconds=self.every)
        return SimpleNamespace(next_after=lambda instant: START + ((instant - START) // step + 1) * step)

    def open(self, _root: str, **_options: object) -> FakeLog:
        return self.log

    def open_source(self, _environment: object) -> Any:
        if self.broken is not None:
            raise self.broken

        def close() -> None:
            self.closed += 1

        return SimpleNamespace(kind=self.kind, fetch=self.fetch, parse=None, close=close)

    def fetch(self, _progress: object, **_: object) -> Any:
        """Nothing; a poll that is made up may call it to wait."""
        if self.waits is not None:
            assert self.waits.wait(30)

    def model_dump(self) -> dict[str, str]:
        return {}


def report(name: str, outcome: str = "empty", *, more: bool = False, error: str | None = None) -> PollReport:
    now = datetime.now(UTC)
    return PollReport(provider=name, outcome=outcome, started=now, ended=now, more=more, error=error)  # type: ignore[arg-type]


@contextmanager
def running(
    providers: list[FakeProvider], poll: Callable[..., PollReport], folder: object, **options: Any
) -> Iterator[Job]:
    """A job in a thread of its own; ended on leaving."""
    workplace = Workplace(providers, root=str(folder), poll=poll)  # type: ignore[arg-type]
    job = Job(workplace, [provider.name for provider in providers], **options)
    stop, started = threading.Event(), threading.Event()
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(job.run(stop=stop, started=started.set)))
    thread.start()
    assert started.wait(10)
    try:
        yield job
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()
    assert codes == [0]


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def get(job: Job, path: str) -> tuple[int, str]:
    assert job.address is not None
    try:
        with urllib.request.urlopen(f"http://{job.address[0]}:{job.address[1]}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_every_provider_is_polled_and_never_twice_at_once(tmp_path: object) -> None:
    at_once: Counter[str] = Counter()
    worst: Counter[str] = Counter()
    polled: Counter[str] = Counter()

    def poll(provider: FakeProvider, *_: object, **__: object) -> PollReport:
        at_once[provider.name] += 1
        worst[provider.name] = max(worst[provider.name], at_once[provider.name])
        time.sleep(0.01)
        at_once[provider.name] -= 1
        polled[provider.name] += 1
        return report(provider.name)

    providers = [FakeProvider(str(number)) for number in range(20)]
    with running(providers, poll, tmp_path, workers=4):
        until(lambda: len(polled) == 20 and min(polled.values()) >= 3)
    assert set(worst.values()) == {1}


def test_providers_that_hang_do_not_take_the_place_of_others(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "SLOW_SECONDS", 0.05)
    monkeypatch.setattr(job_module, "TICK_SECONDS", 0.05)
    release = threading.Event()
    polled: Counter[str] = Counter()

    def poll(provider: FakeProvider, _log: object, source: Any, **__: object) -> PollReport:
        source.fetch(None, now=START)
        polled[provider.name] += 1
        return report(provider.name)

    providers = [FakeProvider(f"hangs{number}", waits=release) for number in range(6)] + [FakeProvider("lives")]
    with running(providers, poll, tmp_path, workers=2):
        until(lambda: polled["lives"] >= 3)
        assert set(polled) == {"lives"}
        release.set()


def test_a_poll_that_raises_is_a_failed_poll_and_the_job_goes_on(tmp_path: object) -> None:
    polled: Counter[str] = Counter()

    def poll(provider: FakeProvider, *_: object, **__: object) -> PollReport:
        polled[provider.name] += 1
        if provider.name == "bad":
            raise RuntimeError("a fault in our own code")
        return report(provider.name)

    with running([FakeProvider("bad"), FakeProvider("good")], poll, tmp_path) as job:
        until(lambda: polled["good"] >= 3 and polled["bad"] >= 3)
        text = job.metrics.text().decode()
    assert 'asknown_polls_total{outcome="failed",provider="bad"}' in text
    assert 'outcome="failed",provider="good"' not in text


def test_a_source_that_cannot_be_opened_is_a_failed_poll_in_the_ledger(tmp_path: object) -> None:
    provider = FakeProvider("feed", broken=SourceError("feed", "https://x.org", "the variable TOKEN is not set"))
    workplace = Workplace([provider], root=str(tmp_path), poll=lambda *_, **__: report("feed"))  # type: ignore[arg-type,list-item]
    done = workplace.poll("feed")
    assert (done.outcome, done.ok) == ("failed", False)
    assert [poll.outcome for poll in provider.log.recorded] == ["failed"]
    assert "TOKEN is not set" in (provider.log.recorded[0].error or "")


def test_polls_in_flight_are_finished_when_the_job_is_stopped(tmp_path: object) -> None:
    begun, finished = threading.Event(), threading.Event()

    def poll(provider: FakeProvider, *_: object, **__: object) -> PollReport:
        begun.set()
        time.sleep(0.5)
        finished.set()
        return report(provider.name)

    provider = FakeProvider("slow", every=60)
    with running([provider], poll, tmp_path) as job:
        assert begun.wait(10)
        assert not finished.is_set()
    assert finished.is_set()
    assert job.abandoned == []
    assert provider.closed == 1


def test_a_poll_that_does_not_end_is_abandoned_after_a_while(tmp_path: object) -> None:
    begun, release = threading.Event(), threading.Event()

    def poll(provider: FakeProvider, *_: object, **__: object) -> PollReport:
        begun.set()
        release.wait(30)
        return report(provider.name)

    began = time.monotonic()
    with running([FakeProvider("hangs", every=60)], poll, tmp_path, stop_within=0.2) as job:
        assert begun.wait(10)
    assert time.monotonic() - began < 8
    assert job.abandoned == ["hangs"]
    release.set()


def test_a_provider_that_has_more_is_polled_again_at_once(tmp_path: object) -> None:
    pages = iter(range(4))

    def poll(provider: FakeProvider, *_: object, **__: object) -> PollReport:
        return report(provider.name, "rows", more=next(pages) < 3)

    with running([FakeProvider("paged", every=3600)], poll, tmp_path) as job:
        until(lambda: b'outcome="rows",provider="paged"} 4.0' in job.metrics.text())


def test_after_a_restart_a_provider_waits_for_its_tick(tmp_path: object) -> None:
    polled: list[str] = []

    def poll(provider: FakeProvider, *_: object, **__: object) -> PollReport:
        polled.append(provider.name)
        return report(provider.name)

    def polled_ago(ago: timedelta) -> FakeLog:
        then = datetime.now(UTC) - ago
        return FakeLog([Poll(source="http", started=then, ended=then, outcome="empty")])

    year = 366 * 86_400.0
    providers = [
        FakeProvider("done", every=year, log=polled_ago(timedelta(0))),
        FakeProvider("missed", every=year, log=polled_ago(timedelta(days=800))),
        FakeProvider("new", every=year),
    ]
    with running(providers, poll, tmp_path):
        until(lambda: len(polled) == 2)
        time.sleep(0.1)
    assert sorted(polled) == ["missed", "new"]


def test_a_part_that_fails_begins_again(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fails(Part):
        name = "fails"
        starts = 0
        stopped = False

        async def start(self) -> None:
            self.starts += 1
            if self.starts == 1:
                raise OSError("no broker there")

        async def work(self) -> None:
            await asyncio.Event().wait()

        async def stop(self) -> None:
            self.stopped = True

        def check(self) -> dict[str, str]:
            return {"broker": "ok" if self.starts > 1 else "not connected"}

    part = Fails()
    with running([], lambda *_, **__: report(""), tmp_path, parts=(part,), port=0) as job:
        assert get(job, "/readyz")[0] == 503
        until(lambda: part.starts == 2)
        assert get(job, "/readyz")[0] == 200
        assert 'asknown_task_failures_total{task="fails"} 1.0' in get(job, "/metrics")[1]
    assert part.stopped


def test_the_endpoint_tells_health_and_numbers(tmp_path: Any) -> None:
    root = tmp_path / "logs"
    root.mkdir()
    with running([FakeProvider("feed")], lambda provider, *_, **__: report(provider.name), root, port=0) as job:
        until(lambda: b'provider="feed"' in job.metrics.text())
        status, body = get(job, "/healthz")
        assert (status, json.loads(body)["checks"]) == (200, {"loop": "ok", "store": "ok"})
        status, body = get(job, "/metrics")
        assert status == 200
        assert 'asknown_polls_total{outcome="empty",provider="feed"}' in body
        assert get(job, "/nowhere")[0] == 404
        job._store = ("ok", -60.0)
        root.rmdir()
        status, body = get(job, "/healthz")
        assert status == 503
        assert "cannot be written to" in json.loads(body)["checks"]["store"]


def test_a_port_in_use_is_an_error_before_anything_is_polled(tmp_path: object) -> None:
    polled: list[str] = []
    with running([], lambda *_, **__: report(""), tmp_path, port=0) as first:
        assert first.address is not None
        workplace = Workplace([FakeProvider("feed")], root=str(tmp_path), poll=lambda *_, **__: polled.append(""))  # type: ignore[arg-type,list-item,func-returns-value]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{first.address[1]}"):
            Job(workplace, ["feed"], port=first.address[1]).run()
    assert polled == []


def test_once_polls_until_there_is_nothing_more(tmp_path: object) -> None:
    pages = {"paged": iter([("rows", True), ("rows", True), ("empty", False)]), "bad": iter([("failed", True)])}

    def poll(provider: FakeProvider, *_: object, **__: object) -> PollReport:
        outcome, more = next(pages[provider.name])
        return report(provider.name, outcome, more=more, error="no route" if outcome == "failed" else None)

    providers = [FakeProvider("paged"), FakeProvider("bad"), FakeProvider("sends", kind="push")]
    workplace = Workplace(providers, root=str(tmp_path), poll=poll)  # type: ignore[arg-type]
    done = drain(workplace, ["paged", "bad", "sends"])
    assert [(each.provider, each.outcome, each.polls, each.ok) for each in done] == [
        ("paged", "rows", 3, True),
        ("bad", "failed", 1, False),
        ("sends", "nothing to poll", 0, True),
    ]
    assert done[1].error == "no route"
