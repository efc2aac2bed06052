"""What is wrong is told once when it begins and once when it is over, whatever happens to the job in between."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.errors import ProviderError
from ingestion.jobs.alerts import OUTBOX, Finding, Incident, IncidentBook, Notice, alone, evaluate
from ingestion.jobs.recent import LastPoll, Recent, Spread
from ingestion.jobs.status import judge
from ingestion.jobs.webhook import Webhook
from ingestion.providers import Alerts, Provider

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def provider(**fields: Any) -> Provider:
    return Provider(**{"name": "mast", "entities": ("site",), **fields})


def recent(**fields: Any) -> Recent:
    return Recent(**{"provider": "mast", "last_arrival": NOON, "last_heartbeat": NOON, **fields})


def kinds(declared: Provider, state: Recent, *, now: datetime = NOON, shifts: tuple[str, ...] = ()) -> list[str]:
    return [finding.kind for finding in evaluate(declared, judge(declared, state, now=now), shifts=shifts)]


# ------------------------------------------------------------------------------------------------------------- judging


def test_a_provider_is_overdue_from_the_very_instant_that_its_silence_is_as_long_as_allowed() -> None:
    declared = provider(down_after="30m")
    just_before = judge(declared, recent(), now=NOON + 30 * MINUTE - timedelta(microseconds=1))
    assert (just_before.overdue, just_before.down_since, just_before.state) == (None, None, "ok")
    status = judge(declared, recent(), now=NOON + 30 * MINUTE)
    assert status.overdue == "no sign of life for 30m, 30m allowed"
    assert (status.down_since, status.state) == (NOON + 30 * MINUTE, "overdue")


def test_empty_polls_are_signs_of_life_but_with_a_cadence_rows_must_come() -> None:
    state = recent(last_arrival=NOON - 60 * MINUTE, last_heartbeat=NOON)
    assert judge(provider(down_after="30m"), state, now=NOON).overdue is None
    status = judge(provider(cadence="10m", down_after="30m"), state, now=NOON)
    assert status.overdue == "no rows for 60m, due every 10m"
    assert status.missed == 5  # of six that were due, the last one half a cadence of grace


def test_without_a_rule_nothing_is_overdue() -> None:
    assert judge(provider(), recent(), now=NOON + timedelta(days=365)).overdue is None


def test_one_that_has_never_answered_is_overdue_as_long_after_its_first_poll() -> None:
    never = Recent(provider="mast", first_poll=NOON, failures=9)
    assert judge(provider(down_after="30m"), never, now=NOON + 29 * MINUTE).overdue is None
    assert judge(provider(down_after="30m"), never, now=NOON + 31 * MINUTE).overdue is not None


def test_a_clock_that_jumps_back_makes_nothing_negative() -> None:
    status = judge(provider(cadence="1m"), recent(), now=NOON - timedelta(hours=1))
    assert (status.silent_for, status.arrival_age, status.missed) == (timedelta(0), timedelta(0), 0)


USUAL = Spread(count=50, q50=60.0, q95=90.0, q99=100.0, max=110.0)


def test_two_late_arrivals_in_a_row_are_a_delay_and_one_is_none() -> None:
    late = {"delays": USUAL, "delay_limit": 100.0}
    assert kinds(provider(), recent(delay=101.0, delay_before=60.0, **late)) == []
    assert kinds(provider(), recent(delay=101.0, delay_before=102.0, **late)) == ["delay"]
    assert kinds(provider(), recent(delay=100.0, delay_before=102.0, **late)) == []  # the limit itself is usual


def test_with_few_arrivals_nobody_knows_what_is_usual() -> None:
    few = Spread(count=19, q50=1.0, q95=1.0, q99=1.0, max=1.0)
    assert kinds(provider(), recent(delay=101.0, delay_before=102.0, delays=few, delay_limit=1.0)) == []


def test_each_condition_has_its_kind_and_its_switch() -> None:
    state = recent(
        last_heartbeat=NOON - timedelta(days=1),
        failures=3,
        last_poll=LastPoll(started=NOON, ended=NOON, outcome="failed", source="http", error="answered 503\nand more"),
        quarantine_rate=0.06,
        notes=("new column: gust (3 rows left out)", "range: wind is 900 (1 row kept)"),
    )
    loud = provider(down_after="1h")
    assert kinds(loud, state, shifts=("wind is 3.6 times what it was",)) == [
        "overdue",
        "failing",
        "quarantine",
        "schema",
        "distribution",
    ]
    summaries = {each.kind: each.summary for each in evaluate(loud, judge(loud, state, now=NOON))}
    assert summaries["failing"] == "3 polls in a row failed: answered 503"
    assert summaries["schema"] == "new column: gust (3 rows left out)"
    assert summaries["quarantine"] == "6.0% of the newest batch was set aside"
    silent = Alerts(overdue=False, delay_quantile=None, quarantine_rate=None, schema_changes=False, shifts=False)
    assert kinds(provider(down_after="1h", alerts=silent), state, shifts=("wind",)) == ["failing"]


# ----------------------------------------------------------------------------------------------------------- incidents


def finding(kind: Any = "overdue", name: str = "mast") -> Finding:
    return Finding(provider=name, kind=kind, summary="no sign of life")


def events(notices: list[Notice]) -> list[tuple[str, str]]:
    return [(notice.event, notice.incident.kind) for notice in notices]


def test_an_incident_is_told_once_and_its_end_once() -> None:
    book = IncidentBook()
    opened = book.update("mast", [finding()], NOON)
    assert events(opened) == [("opened", "overdue")]
    assert book.update("mast", [finding()], NOON + MINUTE) == []
    closed = book.update("mast", [], NOON + 2 * MINUTE)
    assert events(closed) == [("recovered", "overdue")]
    assert closed[0].incident.id == opened[0].incident.id
    assert (closed[0].incident.opened, closed[0].incident.closed) == (NOON, NOON + 2 * MINUTE)
    assert book.update("mast", [], NOON + 3 * MINUTE) == []
    assert book.open() == []


def test_a_condition_that_comes_and_goes_is_one_incident() -> None:
    book = IncidentBook()
    settle = 10 * MINUTE
    told = []
    for minute in range(0, 60, 5):
        there = [finding("quarantine")] if minute % 10 == 0 else []
        told += book.update("mast", there, NOON + minute * MINUTE, settle=settle)
    assert events(told) == [("opened", "quarantine")]
    # Last found at 12:50, first missed at 12:55: over at 13:05, and said to have ended when it was first missed.
    assert book.update("mast", [], NOON + 64 * MINUTE, settle=settle) == []
    over = book.update("mast", [], NOON + 65 * MINUTE, settle=settle)
    assert events(over) == [("recovered", "quarantine")]
    assert over[0].incident.closed == NOON + 55 * MINUTE


def test_providers_and_kinds_have_incidents_of_their_own() -> None:
    book = IncidentBook()
    assert len(book.update("a", [finding(name="a"), finding("failing", "a")], NOON)) == 2
    assert len(book.update("b", [finding(name="b")], NOON)) == 1
    assert events(book.update("a", [finding(name="a")], NOON)) == [("recovered", "failing")]
    assert [(each.provider, each.kind) for each in book.open()] == [("a", "overdue"), ("b", "overdue")]


def test_a_book_that_cannot_be_read_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "incidents.json"
    path.write_text('{"open": 7')
    assert IncidentBook(path).open() == []
    assert (tmp_path / "incidents.unreadable").read_text() == '{"open": 7'


def test_messages_that_cannot_be_delivered_do_not_pile_up() -> None:
    book = IncidentBook()
    for number in range(OUTBOX + 50):
        book.update(str(number), [finding(name=str(number))], NOON)
    assert len(book.outbox) == OUTBOX
    assert book.outbox[0].incident.provider == "50"


def test_of_two_jobs_one_tells(tmp_path: Path) -> None:
    with alone(tmp_path) as first, alone(tmp_path) as second:
        assert (first, second) == (True, False)
    with alone(tmp_path) as third:
        assert third


@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(["overdue", "quarantine"])), st.integers(-3, 20), st.booleans()), max_size=25
    )
)
def test_openings_and_recoveries_alternate_whatever_happens(story: list[tuple[set[str], int, bool]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "incidents.json"
        book = IncidentBook(path)
        now = NOON
        told: dict[str, list[str]] = {"overdue": [], "quarantine": []}
        for there, minutes, restart in story:
            now += minutes * MINUTE  # also backwards
            for notice in book.update("mast", [finding(kind) for kind in sorted(there)], now):
                told[notice.incident.kind].append(notice.event)
            book.save()
            if restart:
                before = book.open()
                book = IncidentBook(path)
                assert book.open() == before
            assert {each.kind for each in book.open()} >= there
        for heard in told.values():
            assert heard == ["opened", "recovered"] * (len(heard) // 2) + ["opened"] * (len(heard) % 2)


# -------------------------------------------------------------------------------------------------------------- webhook


def notice(event: Any = "opened") -> Notice:
    closed = NOON + MINUTE if event == "recovered" else None
    incident = Incident(
        id="4711", provider="mast", kind="overdue", summary="no rows", opened=NOON, closed=closed, detail={"missed": 3}
    )
    return Notice(event=event, incident=incident)


def sent(answers: list[int | Exception], *notices: Notice) -> tuple[list[bool], list[httpx.Request]]:
    """Messages against a receiver that answers so, and what it got."""
    requests: list[httpx.Request] = []

    def receive(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer)

    async def send() -> list[bool]:
        hook = Webhook("https://hooks.org/T0K3N", root="logs", transport=httpx.MockTransport(receive))
        hook.first_wait = 0.001
        taken = [await hook.send(each, now=NOON) for each in notices]
        await hook.close()
        return taken

    return asyncio.run(send()), requests


def test_the_body_is_as_it_is_documented() -> None:
    taken, requests = sent([204], notice("recovered"))
    assert taken == [True]
    assert json.loads(requests[0].content) == {
        "version": 1,
        "event": "recovered",
        "text": "RECOVERED mast overdue: no rows",
        "root": "logs",
        "id": "4711",
        "provider": "mast",
        "kind": "overdue",
        "summary": "no rows",
        "opened": "2026-03-01T12:00:00Z",
        "closed": "2026-03-01T12:01:00Z",
        "detail": {"missed": 3},
    }
    assert requests[0].headers["Idempotency-Key"] == "4711-recovered"


def test_a_message_is_sent_again_until_it_is_taken_with_the_same_key() -> None:
    taken, requests = sent([503, httpx.ConnectError("no route"), 429, 200], notice())
    assert taken == [True]
    assert {request.headers["Idempotency-Key"] for request in requests} == {"4711-opened"}
    assert len(requests) == 4


def test_a_receiver_that_does_not_want_it_is_not_asked_again() -> None:
    assert sent([404, 200], notice(), notice("recovered"))[0] == [False, True]


def test_the_address_comes_from_the_environment_and_is_told_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ProviderError, match="'HOOK' is not set"):
        Webhook.from_environment("HOOK", {}, root="logs")
    with pytest.raises(ProviderError, match="does not begin with https") as wrong:
        Webhook.from_environment("HOOK", {"HOOK": "ftp://s3cret"}, root="logs")
    assert "s3cret" not in str(wrong.value)
    sent([500, 400], notice())
    printed = capsys.readouterr()
    assert "T0K3N" not in printed.out + printed.err
