"""What a job says: a line per event, never a credential; numbers with few labels; logs and sources that are shared out."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.jobs.logs import Shelf
from ingestion.jobs.metrics import OTHER, Metrics
from ingestion.jobs.observability import Redactor, configure_logging, logger, named_secrets
from ingestion.report import AppendReport

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is written, with the set-up of the process put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    out = io.StringIO()
    yield out
    root.handlers, root.level = handlers, level


def test_away_from_a_terminal_a_line_is_one_json_object(lines: io.StringIO) -> None:
    configure_logging(stream=lines)
    logger("poll").info("poll", provider="usgs", outcome="rows", rows=12)
    line = json.loads(lines.getvalue())
    assert line.pop("at").endswith("Z")
    assert line == {"event": "poll", "level": "info", "part": "poll", "provider": "usgs", "outcome": "rows", "rows": 12}


def test_lines_of_libraries_have_the_same_form_and_no_credentials(lines: io.StringIO) -> None:
    configure_logging(stream=lines, redact=Redactor(["hunter22"]))
    logging.getLogger("some.library").warning("GET %s", "https://u:p@x.org/?api_key=abc sent hunter22")
    assert json.loads(lines.getvalue())["event"] == "GET https://***@x.org/?api_key=*** sent ***"


def test_requests_are_not_told_one_by_one(lines: io.StringIO) -> None:
    configure_logging(stream=lines)
    logging.getLogger("httpx").info("HTTP Request: GET https://x.org/?page=1")
    assert lines.getvalue() == ""


def test_a_traceback_has_no_credentials_either(lines: io.StringIO) -> None:
    configure_logging(stream=lines, redact=Redactor(["hunter22"]))
    try:
        int("hunter22")
    except ValueError:
        logger("job").exception("fault", token="abcdef")
    assert "hunter22" not in lines.getvalue()
    assert "abcdef" not in lines.getvalue()
    assert "ValueError: invalid literal for int() with base 10: '***'" in json.loads(lines.getvalue())["exception"]


def test_a_program_that_has_its_own_logging_gets_text(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        logger("poll").info("poll", provider="usgs", rows=12)
    assert "event='poll'" in caplog.text
    assert "provider='usgs'" in caplog.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pass@feed.org/a", "https://***@feed.org/a"),
        ("nats://tok@host:4222", "nats://***@host:4222"),
        ("https://feed.org/a?page=2&access_token=xyz", "https://feed.org/a?page=2&access_token=***"),
        ("https://s3.aws.com/b?X-Amz-Signature=deadbeef&a=1", "https://s3.aws.com/b?X-Amz-Signature=***&a=1"),
        ("Authorization: Bearer abcdef.123456", "Authorization: Bearer ***"),
        ("the token bucket of mast?height=10 is empty", "the token bucket of mast?height=10 is empty"),
    ],
)
def test_credentials_are_taken_out_wherever_they_stand(text: str, shown: str) -> None:
    assert Redactor()(text) == shown


@given(st.text(min_size=4, max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_a_known_secret_never_shows(secret: str, before: str, after: str) -> None:
    assert secret not in Redactor([secret])(before + secret + after).replace("***", "")


def test_secrets_are_the_values_of_the_variables_that_declarations_name() -> None:
    class Declared:
        def model_dump(self) -> dict[str, Any]:
            return {
                "name": "PATH",
                "source": {
                    "token_env": "FEED_TOKEN",
                    "headers_env": {"X-Key": "FEED_KEY"},
                    "environment": ("FEED_USER", "NOT_SET"),
                },
            }

    environment = {"FEED_TOKEN": "t0ken", "FEED_KEY": "k3y", "FEED_USER": "me", "PATH": "/bin"}
    assert named_secrets([Declared()], environment) == ["t0ken", "k3y", "me"]


# -------------------------------------------------------------------------------------------------------------- numbers


def appended(provider: str, **more: Any) -> AppendReport:
    return AppendReport(provider=provider, batch_id="b", reasons={}, position=1, **more)


def test_rows_are_counted_by_fate_and_the_way_to_visibility_is_measured() -> None:
    metrics = Metrics(["mast"])
    metrics.polled("mast", "rows", source="http", seconds=0.2, ended=NOON)
    report = appended("mast", rows=5, unchanged=2, attempts=3, arrival_time=NOON + timedelta(milliseconds=600))
    metrics.appended(report, received=NOON)
    text = metrics.text().decode().splitlines()
    assert 'asknown_polls_total{outcome="rows",provider="mast"} 1.0' in text
    assert 'asknown_rows_total{fate="rows",provider="mast"} 5.0' in text
    assert 'asknown_rows_total{fate="unchanged",provider="mast"} 2.0' in text
    assert "asknown_commit_retries_total 2.0" in text
    assert 'asknown_visible_seconds_bucket{le="0.5"} 0.0' in text
    assert 'asknown_visible_seconds_bucket{le="0.75"} 1.0' in text
    last = next(line for line in text if line.startswith("asknown_last_arrival_timestamp_seconds{"))
    assert float(last.split()[1]) == NOON.timestamp() + 0.6


def test_labels_are_bounded_whoever_sends() -> None:
    metrics = Metrics([f"p{number}" for number in range(50)], most_providers=10)
    for number in range(5_000):
        metrics.polled(f"p{number}", "rows", source="push", seconds=0.1, ended=NOON)
    labels = {
        line.split('provider="')[1].split('"')[0]
        for line in metrics.text().decode().splitlines()
        if "provider=" in line
    }
    assert labels == {*(f"p{number}" for number in range(10)), OTHER}


def test_a_thousand_providers_make_a_page_of_a_bounded_size() -> None:
    metrics = Metrics([f"provider_{number}" for number in range(1_000)])
    for number in range(1_000):
        for outcome in ("rows", "empty", "failed"):
            metrics.polled(f"provider_{number}", outcome, source="http", seconds=0.1, ended=NOON)
        metrics.appended(appended(f"provider_{number}", rows=1, unchanged=1, quarantined=1, arrival_time=NOON))
    series = [line for line in metrics.text().decode().splitlines() if not line.startswith("#")]
    assert len(series) < 9_000


def test_an_incident_that_is_over_leaves_no_series() -> None:
    metrics = Metrics(["mast"])
    metrics.opened("mast", "overdue")
    assert 'asknown_alert_open{kind="overdue",provider="mast"} 1.0' in metrics.text().decode()
    metrics.closed("mast", "overdue")
    assert "asknown_alert_open{" not in metrics.text().decode()


# ---------------------------------------------------------------------------------------------------------------- shelf


def test_two_who_want_the_same_thing_at_once_get_one_each() -> None:
    opened: list[str] = []
    shelf: Shelf[object] = Shelf(lambda name: opened.append(name) or object(), limit=5)  # type: ignore[func-returns-value]
    with shelf.borrow("a") as one, shelf.borrow("a") as other:
        assert one is not other
    with shelf.borrow("a") as again:
        assert again in {one, other}
    assert opened == ["a", "a"]


def test_no_more_than_the_limit_lie_open_and_the_oldest_goes_first() -> None:
    closed: list[str] = []
    shelf: Shelf[str] = Shelf(str, closed.append, limit=2)
    for name in "abca":
        with shelf.borrow(name):
            pass
    assert closed == ["a", "b"]
    assert len(shelf) == 2
    shelf.close()
    assert sorted(closed) == ["a", "a", "b", "c"]


def test_what_failed_is_not_used_again() -> None:
    closed: list[str] = []
    shelf: Shelf[str] = Shelf(str, closed.append, limit=2)
    with pytest.raises(OSError, match="gone"), shelf.borrow("a"):
        raise OSError("gone")
    assert (closed, len(shelf)) == (["a"], 0)


def test_many_threads_share_a_shelf() -> None:
    in_use: set[int] = set()
    shelf: Shelf[list[int]] = Shelf(lambda name: [int(name)], limit=3)
    faults: list[str] = []

    def work(number: int) -> None:
        for turn in range(200):
            with shelf.borrow(str((number + turn) % 5)) as thing:
                if id(thing) in in_use:
                    faults.append("two have the same thing")
                in_use.add(id(thing))
                in_use.discard(id(thing))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(shelf) <= 3
