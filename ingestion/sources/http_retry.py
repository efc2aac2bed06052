"""Patience with a provider: when to ask again, how often to ask at all, when to leave it alone."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from ingestion.errors import CircuitOpenError


class Refused(Exception):  # noqa: N818 - a state of one request, seen by nobody outside
    """One request failed.

    Attributes:
        problem: What happened, without secrets.
        again: Whether asking again may help.
        wait: How long the provider asked to wait.
        hint: What to do about it.
    """

    def __init__(self, problem: str, *, again: bool, wait: timedelta | None = None, hint: str = "") -> None:
        self.problem = problem
        self.again = again
        self.wait = wait
        self.hint = hint
        super().__init__(problem)


def retry_after(header: str | None, *, date: str | None, now: datetime) -> timedelta | None:
    """How long a `Retry-After` header asks to wait; `None` if it asks for nothing that can be read.

    Args:
        header: Seconds, or an HTTP date.
        date: The answer's own `Date` header, against which a date is read, so that clocks need not agree.
        now: Used in place of a missing `date`.

    Example:
        >>> retry_after("120", date=None, now=datetime(2025, 6, 1, tzinfo=UTC))
        datetime.timedelta(seconds=120)
    """
    if header is None:
        return None
    if header.strip().isdecimal():
        return timedelta(seconds=min(int(header.strip()[:10]), 86_400 * 365))
    then = http_date(header)
    return None if then is None else max(timedelta(0), then - (http_date(date) or now))


def http_date(text: str | None) -> datetime | None:
    """The instant in a header; `None` if there is none."""
    try:
        found = parsedate_to_datetime(text) if text else None
    except (ValueError, IndexError, TypeError):
        return None
    return found if found is None or found.tzinfo is not None else found.replace(tzinfo=UTC)


class CircuitBreaker:
    """Leaves a provider alone for a while after it failed too often.

    Closed it lets everything through. After `failures` failures in a row it opens: nothing goes through for `pause`. Then one
    probe may; its success closes it, its failure opens it for another `pause`.

    Args:
        failures: How many in a row open it.
        pause: For how long.
    """

    def __init__(self, failures: int, pause: timedelta) -> None:
        self.failures = failures
        self.pause = pause
        self._in_a_row = 0
        self._closed_until: tuple[datetime, datetime] | None = None  # (opened, may be probed)

    def check(self, now: datetime, *, provider: str, place: str) -> None:
        """Let a request through.

        Raises:
            CircuitOpenError: If the provider is left alone at `now`.
        """
        if self._closed_until is None:
            return
        opened, until = self._closed_until
        if now < opened:  # the clock went back: count the pause from here
            opened, until = now, now + (until - opened)
            self._closed_until = (opened, until)
        if now < until:
            raise CircuitOpenError(
                provider,
                place,
                f"failed {self._in_a_row} times in a row; it is left alone until {until.isoformat(timespec='seconds')}",
            )

    def succeeded(self) -> None:
        """A request was answered."""
        self._in_a_row, self._closed_until = 0, None

    def failed(self, now: datetime, *, wait: timedelta | None = None) -> None:
        """A request failed; the provider may have asked for a wait itself."""
        self._in_a_row += 1
        if self._in_a_row >= self.failures or (wait is not None and wait > timedelta(0)):
            pause = self.pause if self._in_a_row >= self.failures else timedelta(0)
            self._closed_until = (now, now + max(pause, wait or timedelta(0)))


class RateLimit:
    """Keeps requests apart: never more than `requests` within any `period`.

    Args:
        requests: How many.
        period: Within how many seconds.
        monotonic: Seconds that never go back.
    """

    def __init__(self, requests: int, period: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.period = period
        self._monotonic = monotonic
        self._recent: deque[float] = deque(maxlen=requests)

    def wait(self) -> float:
        """How many seconds to wait before the next request."""
        if len(self._recent) < (self._recent.maxlen or 0):
            return 0.0
        return max(0.0, self._recent[0] + self.period - self._monotonic())

    def used(self) -> None:
        """A request is being sent."""
        self._recent.append(self._monotonic())
