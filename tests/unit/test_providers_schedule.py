"""When a provider is polled: strictly later, never back, and right when the clocks change."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.errors import NaiveTimeError
from ingestion.providers import Schedule, Timetable

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def polls(schedule: Schedule, start: datetime, count: int) -> list[str]:
    """The next polls, as the zone's clocks show them."""
    found = []
    for _ in range(count):
        start = schedule.next_after(start)
        found.append(f"{start.astimezone(BERLIN):%m-%dT%H:%M%z}")
    return found


def test_every_counts_from_1970_not_from_the_start_of_the_job() -> None:
    schedule = Schedule(every="10m", jitter="0s")
    assert schedule.next_after(NOON) == utc("2026-03-01T12:10")
    assert schedule.next_after(NOON + timedelta(microseconds=1)) == utc("2026-03-01T12:10")
    assert schedule.next_after(NOON - timedelta(microseconds=1)) == NOON


def test_an_offset_moves_every_poll() -> None:
    schedule = Schedule(every="1h", offset="5m", jitter="0s")
    assert schedule.next_after(NOON) == utc("2026-03-01T12:05")
    assert schedule.next_after(utc("2026-03-01T12:05")) == utc("2026-03-01T13:05")


def test_a_timedelta_is_a_duration_too() -> None:
    assert Schedule(every=timedelta(minutes=90)).every == "90m"  # type: ignore[arg-type]


def test_jitter_depends_on_the_name_alone() -> None:
    schedule = Schedule(every="10m", jitter="1m")
    first = {name: schedule.next_after(NOON, name) for name in ("mast", "meter", "sky")}
    assert len(set(first.values())) == 3
    assert all(NOON < instant < NOON + timedelta(minutes=11) for instant in first.values())
    code = (
        "from datetime import *; from ingestion.providers import Schedule;"
        "print(Schedule(every='10m', jitter='1m').next_after(datetime(2026, 3, 1, 12, tzinfo=UTC), 'mast').isoformat())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == first["mast"].isoformat()


def test_by_default_providers_are_spread_over_a_tenth_of_the_time_and_at_most_a_minute() -> None:
    names = [f"p{number}" for number in range(200)]
    late = [(Schedule(every="1m").next_after(NOON, name) - NOON).total_seconds() % 60 for name in names]
    assert max(late) < 6
    assert len({round(second, 3) for second in late}) > 190
    hourly = [(Schedule(every="1h").next_after(NOON, name) - NOON).total_seconds() % 3600 for name in names]
    assert 50 < max(hourly) < 60


def test_cron_alone_is_not_spread() -> None:
    assert Schedule(cron="*/10 * * * *").next_after(NOON, "mast") == utc("2026-03-01T12:10")


def test_a_timetable_knows_its_provider() -> None:
    schedule = Schedule(every="10m", jitter="1m")
    assert Timetable(schedule, "mast").next_after(NOON) == schedule.next_after(NOON, "mast")


def test_cron_is_read_on_the_clocks_of_its_zone() -> None:
    schedule = Schedule(cron="0 6 * * *", zone="Europe/Berlin")
    assert schedule.next_after(utc("2026-03-01T12:00")) == utc("2026-03-02T05:00")  # winter: UTC+1
    assert schedule.next_after(utc("2026-07-01T12:00")) == utc("2026-07-02T04:00")  # summer: UTC+2


def test_a_time_of_day_that_the_clocks_leave_out_is_the_instant_of_their_change() -> None:
    # On 2026-03-29 the clocks of Berlin go from 02:00 to 03:00, at 01:00 UTC.
    schedule = Schedule(cron="30 2 * * *", zone="Europe/Berlin")
    assert polls(schedule, utc("2026-03-28T00:00"), 3) == [
        "03-28T02:30+0100",
        "03-29T03:00+0200",
        "03-30T02:30+0200",
    ]


def test_several_times_that_the_clocks_leave_out_make_one_poll() -> None:
    schedule = Schedule(cron="15,45 2 * * *", zone="Europe/Berlin")
    assert polls(schedule, utc("2026-03-28T12:00"), 2) == ["03-29T03:00+0200", "03-30T02:15+0200"]


def test_a_time_of_day_that_comes_twice_is_its_first() -> None:
    # On 2026-10-25 the clocks of Berlin go from 03:00 back to 02:00, at 01:00 UTC.
    schedule = Schedule(cron="30 2 * * *", zone="Europe/Berlin")
    assert polls(schedule, utc("2026-10-24T12:00"), 2) == ["10-25T02:30+0200", "10-26T02:30+0100"]
    between = utc("2026-10-25T01:10")  # 02:10 for the second time
    assert polls(schedule, between, 1) == ["10-26T02:30+0100"]


def test_polling_every_twenty_minutes_goes_on_through_the_hour_that_comes_twice() -> None:
    schedule = Schedule(cron="*/20 * * * *", zone="Europe/Berlin")
    assert polls(schedule, utc("2026-10-24T23:40"), 8) == [
        "10-25T02:00+0200",
        "10-25T02:20+0200",
        "10-25T02:40+0200",
        "10-25T02:00+0100",
        "10-25T02:20+0100",
        "10-25T02:40+0100",
        "10-25T03:00+0100",
        "10-25T03:20+0100",
    ]


def test_polling_every_twenty_minutes_leaves_no_gap_where_the_clocks_do() -> None:
    schedule = Schedule(cron="*/20 * * * *", zone="Europe/Berlin")
    assert polls(schedule, utc("2026-03-29T00:30"), 3) == ["03-29T01:40+0100", "03-29T03:00+0200", "03-29T03:20+0200"]


def test_a_naive_instant_is_refused() -> None:
    with pytest.raises(NaiveTimeError):
        Schedule(every="10m").next_after(datetime(2026, 3, 1))  # noqa: DTZ001 - that is the point


# ----------------------------------------------------------------------------------------------------------------- laws

SCHEDULES = st.sampled_from(
    [
        Schedule(every="10m"),
        Schedule(every="7m", offset="3m", jitter="90s"),
        Schedule(every="1d", offset="6h"),
        Schedule(cron="*/20 * * * *", zone="Europe/Berlin"),
        Schedule(cron="0,30 2 * * *", zone="Europe/Berlin"),
        Schedule(cron="*/15 2 * * SUN", zone="Europe/Berlin"),
        Schedule(cron="10 * * * *", zone="Australia/Lord_Howe"),
        Schedule(cron="45 1 * * *", zone="Australia/Lord_Howe", offset="7s"),
        Schedule(cron="0 0 * * *", zone="Africa/Cairo"),
        Schedule(cron="30 23 L * *", zone="America/Santiago", jitter="5m"),
    ]
)
# Around the clock changes of 2026: Berlin in March and October, Cairo in April and October, Santiago and Lord Howe in April.
CHANGES = [utc(text) for text in ("2026-03-29T01:00", "2026-10-25T01:00", "2026-04-23T22:00", "2026-04-04T15:00")]
INSTANTS = st.builds(
    lambda change, minutes, us: change + timedelta(minutes=minutes, microseconds=us),
    st.sampled_from(CHANGES),
    st.integers(-300, 300),
    st.sampled_from([-1, 0, 1]),
)


@given(SCHEDULES, INSTANTS)
def test_the_next_poll_is_later(schedule: Schedule, instant: datetime) -> None:
    found = schedule.next_after(instant, "mast")
    assert found > instant
    assert found.tzinfo is UTC


@given(SCHEDULES, INSTANTS, st.integers(0, 600))
def test_a_later_instant_has_no_earlier_poll(schedule: Schedule, instant: datetime, minutes: int) -> None:
    later = instant + timedelta(minutes=minutes)
    first, second = schedule.next_after(instant, "mast"), schedule.next_after(later, "mast")
    assert first <= second
    assert second == first or first <= later  # and none is skipped: up to its poll, every instant has the same


@given(SCHEDULES, INSTANTS)
def test_just_before_a_poll_it_is_the_next(schedule: Schedule, instant: datetime) -> None:
    found = schedule.next_after(instant, "mast")
    assert schedule.next_after(found - timedelta(microseconds=1), "mast") == found
    assert schedule.next_after(found, "mast") > found
