"""Which provider is polled next, and when: decided here, waited for elsewhere.

Schedules speak of the wall clock, waits are on the monotonic clock. As long as the two agree, a poll is due when the wall clock
says so. When the wall clock jumps, nobody knows which of its two readings was right; then a poll is due by the earlier of the
two, so that a jump costs at most one poll too many and never a pause.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

SLEW: Final = 0.5
"""Seconds by which the clocks may have parted before the waits are worked out again."""
JUMP: Final = 5.0
"""Seconds from which on it is a jump, and not a clock that is being corrected."""


class Schedule(Protocol):
    """When a provider is to be polled."""

    def next_after(self, instant: datetime, /) -> datetime:
        """The first tick later than `instant`."""
        ...


@dataclass(slots=True)
class _Entry:
    schedule: Schedule
    planned: datetime
    due: float
    ticket: int = 0
    at_work: bool = False


class Agenda:
    """The next poll of every provider.

    A provider that was taken is not due again before it is done, however long that takes; ticks that pass meanwhile make
    one poll, not many. Of several that are due the one that waits longest comes first.

    Args:
        now: The instant, by the wall clock.
        elapsed: Seconds, by the monotonic clock, at that instant.

    Example:
        >>> from datetime import UTC, datetime, timedelta
        >>> class Hourly:
        ...     def next_after(self, instant):
        ...         return instant.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        >>> noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
        >>> agenda = Agenda(noon, 0.0)
        >>> agenda.add("mast", Hourly(), first=noon)
        >>> agenda.take(0.0), agenda.take(0.0)
        ('mast', None)
        >>> agenda.done("mast", noon + timedelta(minutes=2), 120.0)
        >>> agenda.wait(120.0)
        3480.0
    """

    def __init__(self, now: datetime, elapsed: float) -> None:
        self._now, self._elapsed = now, elapsed
        self._entries: dict[str, _Entry] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._tickets = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, name: str, schedule: Schedule, *, first: datetime) -> None:
        """Plan a provider.

        Args:
            name: The provider.
            schedule: When it is polled.
            first: The first poll; at once if that is past.
        """
        self._entries[name] = _Entry(schedule, first, 0.0)
        self._plan(name, first)

    def take(self, elapsed: float) -> str | None:
        """The provider that has been due longest, which is then at work; `None` if none is due.

        Args:
            elapsed: Seconds, by the monotonic clock.
        """
        while self._heap and self._heap[0][0] <= elapsed:
            _, ticket, name = heapq.heappop(self._heap)
            entry = self._entries[name]
            if entry.ticket == ticket:
                entry.at_work = True
                # Ticks that passed while it waited are served by this poll; those that pass from now on are not.
                entry.planned = max(entry.planned, self._now + timedelta(seconds=elapsed - self._elapsed))
                return name
        return None

    def wait(self, elapsed: float) -> float | None:
        """Seconds until a provider is due, 0 if one is; `None` if all are at work or there are none."""
        while self._heap and self._entries[self._heap[0][2]].ticket != self._heap[0][1]:
            heapq.heappop(self._heap)
        return max(0.0, self._heap[0][0] - elapsed) if self._heap else None

    def done(self, name: str, now: datetime, elapsed: float, *, again: bool = False, catch_up: bool = True) -> None:
        """Plan a provider's next poll.

        Args:
            name: A provider that was taken.
            now: The instant, by the wall clock.
            elapsed: Seconds, by the monotonic clock.
            again: There is more to fetch: at once, but after those who wait already.
            catch_up: Whether ticks that passed meanwhile make one poll at once; otherwise the next tick does.
        """
        self.notice(now, elapsed)
        entry = self._entries[name]
        entry.at_work = False
        if again:
            self._plan(name, now)
            return
        planned = entry.schedule.next_after(min(entry.planned, now))
        if planned <= now:
            planned = now if catch_up else entry.schedule.next_after(now)
        self._plan(name, planned)

    def notice(self, now: datetime, elapsed: float) -> timedelta | None:
        """Compare the clocks; to be called about once a second.

        Args:
            now: The instant, by the wall clock.
            elapsed: Seconds, by the monotonic clock.

        Returns:
            How far the wall clock has jumped, if it has.
        """
        parted = (now - self._now).total_seconds() - (elapsed - self._elapsed)
        if abs(parted) < SLEW:
            return None
        self._now, self._elapsed = now, elapsed
        jumped = abs(parted) >= JUMP
        for name, entry in self._entries.items():
            if entry.at_work:
                continue
            planned = entry.planned
            if jumped:
                promised = now + timedelta(seconds=max(0.0, entry.due - elapsed))
                planned = min(promised, max(planned, now), entry.schedule.next_after(now))
            self._plan(name, planned)
        return timedelta(seconds=parted) if jumped else None

    def _plan(self, name: str, planned: datetime) -> None:
        """Put a provider's next poll into the heap; what was there for it before counts no more."""
        entry = self._entries[name]
        ahead = (planned - self._now).total_seconds()
        entry.planned, entry.due = planned, self._elapsed + ahead
        self._tickets += 1
        entry.ticket = self._tickets
        heapq.heappush(self._heap, (entry.due, entry.ticket, name))
