"""What is declared of an HTTP source, and its parts by themselves: patience, redaction, links."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingestion.errors import CircuitOpenError
from ingestion.sources.http_paging import link_to_next
from ingestion.sources.http_pull import HttpSource
from ingestion.sources.http_retry import CircuitBreaker, RateLimit, retry_after
from ingestion.sources.redaction import Redactor, sounds_secret

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
URL = "https://data.example/rows"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"url": "ftp://data.example"}, "url must begin with http"),
        ({"url": "https://ann:s3cr3t@data.example"}, "url holds a user or password"),
        ({"url": f"{URL}?api_key=s3cr3t"}, "parameter 'api_key' looks like a credential"),
        ({"params": {"access_token": "s3cr3t"}}, "parameter 'access_token' looks like a credential"),
        ({"headers": {"Authorization": "Bearer s3cr3t"}}, "header 'Authorization' is a credential"),
        ({"headers": {"X-Api-Key": "s3cr3t"}}, "header 'X-Api-Key' is a credential"),
        ({"auth": {"bearer_env": "A", "basic_env": ("B", "C")}}, "both set Authorization"),
        ({"auth": {"bearer": "s3cr3t"}}, "Extra inputs are not permitted"),
        ({"url": f"{URL}?from={{since}}"}, "{since} needs start"),
        ({"start": "2025-06-01T12:00:00"}, "has no time zone"),
        ({"start": "lately"}, "neither an instant nor a duration"),
        ({"window": "1d", "look_back": "7d"}, "window must be longer than look_back"),
        ({"timeout": "30"}, "is not a duration"),
        ({"instants": {"format": "strftime"}}, "strftime, which needs one"),
        ({"instants": {"zone": "Berlin"}}, "is not an IANA time zone"),
        ({"paging": {"kind": "scroll"}}, "does not match any of the expected tags"),
        ({"attempts": 0}, "greater than or equal to 1"),
    ],
)
def test_declarations_that_mean_nothing_or_hold_secrets_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        HttpSource.model_validate({"url": URL, **settings})
    assert problem in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "date", "expected"),
    [
        ("120", None, timedelta(minutes=2)),
        (" 0 ", None, timedelta(0)),
        ("Sun, 01 Jun 2025 12:00:30 GMT", None, timedelta(seconds=30)),
        ("Sun, 01 Jun 2025 12:00:30 GMT", "Sun, 01 Jun 2025 12:00:20 GMT", timedelta(seconds=10)),
        ("Sun, 01 Jun 2025 11:00:00 GMT", None, timedelta(0)),
        ("99999999999999999999", None, timedelta(days=365)),
        ("soon", None, None),
        ("-5", None, None),
        (None, None, None),
    ],
)
def test_retry_after(header: str | None, date: str | None, expected: timedelta | None) -> None:
    assert retry_after(header, date=date, now=NOON) == expected


def opens(breaker: CircuitBreaker, now: datetime) -> bool:
    try:
        breaker.check(now, provider="meter", place=URL)
    except CircuitOpenError:
        return False
    return True


def test_a_circuit_opens_is_probed_and_closes() -> None:
    breaker = CircuitBreaker(2, timedelta(minutes=5))
    breaker.failed(NOON)
    breaker.succeeded()
    breaker.failed(NOON)
    assert opens(breaker, NOON)  # two failures, but not in a row
    breaker.failed(NOON)
    assert not opens(breaker, NOON + timedelta(minutes=5, microseconds=-1))
    assert opens(breaker, NOON + timedelta(minutes=5))
    breaker.failed(NOON + timedelta(minutes=5))  # the probe
    assert not opens(breaker, NOON + timedelta(minutes=9))
    breaker.succeeded()
    assert opens(breaker, NOON + timedelta(minutes=9))


def test_a_clock_that_goes_back_an_hour_does_not_hold_a_circuit_open_for_an_hour() -> None:
    breaker = CircuitBreaker(1, timedelta(minutes=5))
    breaker.failed(NOON)
    back = NOON - timedelta(hours=1)
    assert not opens(breaker, back)
    assert opens(breaker, back + timedelta(minutes=5))


def test_one_wait_that_was_asked_for_is_kept_to() -> None:
    breaker = CircuitBreaker(5, timedelta(minutes=5))
    breaker.failed(NOON, wait=timedelta(seconds=30))
    assert not opens(breaker, NOON + timedelta(seconds=29))
    assert opens(breaker, NOON + timedelta(seconds=30))


@given(st.integers(1, 4), st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_no_period_has_more_requests_than_allowed(requests: int, pauses: list[int]) -> None:
    now = 0.0
    limit = RateLimit(requests, 7.0, monotonic=lambda: now)
    sent: list[float] = []
    for pause in pauses:
        now += pause
        now += limit.wait()
        limit.used()
        sent.append(now)
    assert all(later - earlier >= 7.0 for earlier, later in zip(sent, sent[requests:], strict=False))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (['<https://x.example/?page=3>; rel="next"'], "https://x.example/?page=3"),
        (["</a>; rel=prev, </b>; rel=next"], "/b"),
        (['</a>; title="a, b; rel=next"; rel="last"', '</c>; rel="Next last"'], "/c"),
        (["</a>; rel=nextish"], None),
        (["nonsense"], None),
        ([], None),
    ],
)
def test_links(headers: list[str], expected: str | None) -> None:
    assert link_to_next(headers) == expected


@pytest.mark.parametrize(
    "name", ["key", "api-key", "apikey", "X-Api-Key", "access_token", "sig", "client_secret", "pwd"]
)
def test_names_that_sound_secret(name: str) -> None:
    assert sounds_secret(name)


@pytest.mark.parametrize(
    "name", ["page", "pageToken", "next_token", "sort_key", "keyword", "station", "passage", "monkey"]
)
def test_names_that_do_not(name: str) -> None:
    assert not sounds_secret(name)


def test_addresses_are_shown_without_what_is_secret() -> None:
    redactor = Redactor(["tiger"], parameters=["id"])
    url = "https://ann:lion@x.example:8443/a/tiger?id=bear&token=wolf&page=2&at=12:00,%2B1&q=t%69ger#frag"
    assert redactor.url(url) == "https://x.example:8443/a/***?id=***&token=***&page=2&at=12:00,+1&q=***"
    assert (
        redactor.without_parameters(url) == "https://x.example:8443/a/tiger?token=wolf&page=2&at=12:00,%2B1&q=t%69ger"
    )


@given(st.text(min_size=4, max_size=12), st.data())
def test_a_secret_is_found_however_it_is_quoted(secret: str, data: st.DataObject) -> None:
    quoted = "".join(
        "".join(f"%{byte:02x}" for byte in character.encode()) if data.draw(st.booleans()) else character
        for character in secret
    )
    redactor = Redactor([secret])
    assert redactor.holds_secret(f"x={quoted}&y")
    assert redactor.text(f"{{{quoted}}}") == "{***}"
