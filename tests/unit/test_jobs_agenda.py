"""When providers are polled: one at a time each, nobody waits for ever, and the clock may jump."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ingestion.jobs.agenda import Agenda

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Every:
    """Ticks at multiples of some seconds."""

    seconds: int

    def next_after(self, instant: datetime, /) -> datetime:
        """The next one."""
        step = timedelta(seconds=self.seconds)
        return NOON + ((instant - NOON) // step + 1) * step


class World:
    """A wall clock that may jump, a monotonic one that does not, and an agenda that is told of both."""

    def __init__(self, *periods: int) -> None:
        self.wall, self.elapsed = NOON, 100.0
        self.agenda = Agenda(self.wall, self.elapsed)
        for number, seconds in enumerate(periods):
            self.agenda.add(str(number), Every(seconds), first=NOON)

    def sleep(self, seconds: float, jump: float = 0.0) -> timedelta | None:
        self.elapsed += seconds
        self.wall += timedelta(seconds=seconds + jump)
        return self.agenda.notice(self.wall, self.elapsed)

    def take(self) -> str | None:
        return self.agenda.take(self.elapsed)

    def done(self, name: str, **how: bool) -> None:
        self.agenda.done(name, self.wall, self.elapsed, **how)

    def poll(self) -> str | None:
        name = self.take()
        if name is not None:
            self.done(name)
        return name


def test_a_provider_at_work_is_not_due_again() -> None:
    world = World(10)
    assert world.take() == "0"
    world.sleep(35)
    assert world.take() is None
    assert world.agenda.wait(world.elapsed) is None


def test_ticks_that_passed_during_a_poll_make_one_poll_and_not_many() -> None:
    world = World(10)
    world.take()
    world.sleep(35)
    world.done("0")
    assert world.poll() == "0"
    assert world.take() is None
    assert world.agenda.wait(world.elapsed) == 5  # 12:00:40, the next tick of the schedule


def test_ticks_that_passed_before_a_poll_began_are_served_by_it() -> None:
    world = World(10)
    world.sleep(35)  # all hands were full
    world.take()
    world.sleep(1)
    world.done("0")
    assert world.take() is None
    assert world.agenda.wait(world.elapsed) == 4  # 12:00:40


def test_after_a_failure_ticks_that_passed_are_left_out() -> None:
    world = World(10)
    world.take()
    world.sleep(35)
    world.done("0", catch_up=False)
    assert world.take() is None
    assert world.agenda.wait(world.elapsed) == 5


def test_one_that_has_more_waits_behind_those_that_are_due() -> None:
    world = World(60, 60, 60)
    assert world.take() == "0"
    world.sleep(1)
    world.done("0", again=True)
    assert [world.take(), world.take(), world.take()] == ["1", "2", "0"]


def test_a_clock_that_jumps_back_an_hour_delays_nobody() -> None:
    world = World(600)
    world.poll()
    world.sleep(500)
    assert world.sleep(1, jump=-3600) == timedelta(hours=-1)
    # 12:08:21 has become 11:08:21; the next tick by the new clock is 11:10, by the old one 99 s away: both are the same here.
    assert world.agenda.wait(world.elapsed) == 99
    world.sleep(99)
    assert world.poll() == "0"
    assert world.agenda.wait(world.elapsed) == 600


def test_a_clock_that_jumps_back_does_not_put_off_a_daily_poll() -> None:
    world = World(86_400)
    world.poll()
    world.sleep(86_000)
    world.sleep(1, jump=-3600)
    assert world.agenda.wait(world.elapsed) == 399  # as promised before the jump
    world.sleep(399)
    assert world.poll() == "0"
    assert world.agenda.wait(world.elapsed) == 3600  # and again when the new clock says so


def test_a_clock_that_jumps_ahead_makes_one_poll() -> None:
    world = World(600)
    world.poll()
    world.sleep(1)
    assert world.sleep(1, jump=3600) == timedelta(hours=1)
    assert world.poll() == "0"
    assert world.take() is None
    assert world.agenda.wait(world.elapsed) == 598  # 13:00:02 -> 13:10:00


def test_a_clock_that_is_corrected_slowly_is_followed_and_is_no_jump() -> None:
    world = World(3600)
    world.poll()
    for _ in range(600):
        assert world.sleep(1, jump=0.002) is None  # 1.2 s gained in ten minutes
    waits = world.agenda.wait(world.elapsed)
    assert waits is not None
    assert abs(waits - (3600 - 601.2)) <= 0.5


steps = st.lists(
    st.tuples(
        st.floats(0.0, 40.0),
        st.sampled_from([0.0] * 8 + [-3600.0, 3600.0, -7.0, 7.0]),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=60,
)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), steps, st.integers(1, 3))
def test_never_two_polls_of_one_and_nobody_starves(periods: list[int], happens: list, workers: int) -> None:
    world = World(*periods)
    at_work: list[str] = []
    last = dict.fromkeys(map(str, range(len(periods))), world.elapsed)
    for pause, jump, finished, more in happens:
        world.sleep(pause, jump)
        for _ in range(min(finished, len(at_work))):
            world.done(at_work.pop(0), again=more)
        while len(at_work) < workers and (name := world.take()) is not None:
            assert name not in at_work
            at_work.append(name)
            last[name] = world.elapsed
    # From now on polls are quick: within one period, whatever the clock did, everybody has had a turn.
    for name in at_work:
        world.done(name)
    polled: set[str] = set()
    end = world.elapsed + max(periods) + 1
    while world.elapsed < end:
        while (name := world.poll()) is not None:
            polled.add(name)
        wait = world.agenda.wait(world.elapsed)
        assert wait is not None
        assert wait <= max(periods) + 0.5
        world.sleep(min(max(wait, 0.001), end - world.elapsed + 0.001))
    assert polled == set(last)


@given(st.integers(1, 50), st.lists(st.floats(0.0, 5.0), min_size=1, max_size=80))
def test_a_provider_is_polled_once_a_tick(period: int, pauses: list[float]) -> None:
    world = World(period)
    polls = 0
    for pause in pauses:
        world.sleep(pause)
        while world.poll() is not None:
            polls += 1
    ticks = int((world.wall - NOON).total_seconds() // period) + 1
    assert polls <= ticks
