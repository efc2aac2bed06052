"""When a provider is polled: every so often, or by a cron expression in a zone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import field_validator, model_validator

from ingestion.instants import duration_us, from_us, to_us
from ingestion.providers.declaration import Declaration, Duration, PositiveDuration

_MOST_JITTER_US = 60_000_000
_SHIFT = timedelta(hours=3)
"""No zone has moved its clocks by more than this at once since 2012."""
_SOME_MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


class Schedule(Declaration):
    """When to poll. Either `every` or `cron`.

    Attributes:
        every: The time between two polls, counted from 1970-01-01 UTC, not from the start of the job.
        cron: Five fields: minute, hour, day of month, month, day of week.
        zone: The IANA zone of `cron`.
        offset: How much later than that.
        jitter: Providers are spread over this much time, each by an amount that depends on its name alone, the same in
            every process. `None`: a tenth of `every`, at most a minute; with `cron` none.
    """

    every: PositiveDuration | None = None
    cron: str | None = None
    zone: str | None = None
    offset: Duration = "0s"
    jitter: Duration | None = None

    @field_validator("zone")
    @classmethod
    def _zone_exists(cls, zone: str | None) -> str | None:
        """The zone, if there is such a one.

        Raises:
            ValueError: If there is none.
        """
        try:
            ZoneInfo(zone or "UTC")
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f'{zone!r} is no IANA zone; write one such as "Europe/Berlin".') from error
        return zone

    @field_validator("cron")
    @classmethod
    def _cron_means_something(cls, cron: str | None) -> str | None:
        """The expression, if it names an instant.

        Raises:
            ValueError: If it has not five fields, or never comes true.
        """
        if cron is None:
            return None
        example = 'write minute, hour, day of month, month, day of week, e.g. "*/10 * * * *".'
        if len(cron.split()) != 5:
            raise ValueError(f"cron={cron!r} has {len(cron.split())} fields, not five; {example}")
        try:
            next(CronSim(cron, datetime(2024, 1, 1)))  # noqa: DTZ001 - a wall clock time
        except CronSimError as error:
            raise ValueError(f"cron={cron!r}: {str(error).lower()}; {example}") from error
        except StopIteration as error:
            raise ValueError(f"cron={cron!r} never comes true; {example}") from error
        return cron

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        """Refuse neither and both.

        Raises:
            ValueError: If not exactly one of `every` and `cron` is given, or the rest does not fit.
        """
        if (self.every is None) == (self.cron is None):
            raise ValueError('give either every="10m" or cron="*/10 * * * *", not both and not neither.')
        if self.every is not None and self.zone is not None:
            raise ValueError('a zone is for cron: `every` counts in UTC; for a time of day write cron="0 6 * * *".')
        if self.every is not None:
            spread = duration_us(self.jitter, "jitter") if self.jitter is not None else 0
            if spread > duration_us(self.every, "every"):
                raise ValueError(f"jitter={self.jitter!r} is longer than every={self.every!r}; make it shorter.")
        return self

    def longest_gap(self) -> timedelta:
        """The longest time between two polls; of a cron rule, as its next 50 ticks have it."""
        if self.every is not None:
            return timedelta(microseconds=duration_us(self.every, "every"))
        ticks = [_SOME_MONDAY]
        for _ in range(50):
            ticks.append(self._next_cron(ticks[-1]))
        return max(later - earlier for earlier, later in pairwise(ticks[1:]))

    def next_after(self, instant: datetime, provider: str = "") -> datetime:
        """The first poll after an instant.

        Args:
            instant: With a time zone.
            provider: The provider's name, on which the jitter depends.

        Returns:
            A later instant, in UTC. Local times that a clock change leaves out are its instant; those that come twice are
            their first. Where the hours begin with `*`, polling goes on through both, and nothing is left out.

        Raises:
            NaiveTimeError: If the instant has no zone.

        Example:
            >>> Schedule(every="10m", jitter="0s").next_after(datetime(2026, 3, 1, 12, 5, tzinfo=UTC))
            datetime.datetime(2026, 3, 1, 12, 10, tzinfo=datetime.timezone.utc)
        """
        now = to_us(instant, "instant")
        shift = duration_us(self.offset, "offset") + self._phase(provider)
        if self.every is not None:
            step = duration_us(self.every, "every")
            return from_us((now - shift) // step * step + step + shift)
        return from_us(to_us(self._next_cron(from_us(now - shift))) + shift)

    def _phase(self, provider: str) -> int:
        """Microseconds by which this provider is later than others."""
        if self.jitter is not None:
            spread = duration_us(self.jitter, "jitter")
        else:
            spread = min(duration_us(self.every, "every") // 10, _MOST_JITTER_US) if self.every else 0
        if spread == 0:
            return 0
        digest = hashlib.blake2b(provider.encode(), digest_size=8).digest()
        return int.from_bytes(digest) % spread

    def _next_cron(self, instant: datetime) -> datetime:
        """The first instant after another that the expression names.

        Walks the wall clock and turns its times into instants, so that which instants there are does not depend on where
        the walk begins.
        """
        zone = ZoneInfo(self.zone or "UTC")
        runs_through = str(self.cron).split()[1].startswith("*")
        wall = instant.astimezone(zone).replace(tzinfo=None, fold=0)
        found: datetime | None = None
        for local in CronSim(str(self.cron), wall - _SHIFT - timedelta(seconds=1)):
            for candidate in _instants(local, zone, runs_through=runs_through):
                if candidate > instant and (found is None or candidate < found):
                    found = candidate
            if found is not None and local > found.astimezone(zone).replace(tzinfo=None) + _SHIFT:
                break
        assert found is not None  # noqa: S101 - an expression that was checked comes true again and again
        return found


def _instants(local: datetime, zone: ZoneInfo, *, runs_through: bool) -> list[datetime]:
    """The instants at which the clocks of a zone show a time."""
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first == second:
        return [first]
    if second > first:  # the time comes twice
        return [first, second] if runs_through else [first]
    if runs_through:  # the clock left the hour out, and no time passed meanwhile
        return []
    return [_transition(second, first, zone)]


def _transition(early: datetime, late: datetime, zone: ZoneInfo) -> datetime:
    """The instant of the clock change between two instants, to the second."""
    before = early.astimezone(zone).utcoffset()
    low, high = int(early.timestamp()) - 1, int(late.timestamp()) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return datetime.fromtimestamp(high, UTC)


@dataclass(frozen=True, slots=True)
class Timetable:
    """A schedule of one provider: what a job asks for the next poll.

    Attributes:
        schedule: When providers like it are polled.
        provider: Its name, on which the jitter depends.
    """

    schedule: Schedule
    provider: str

    def next_after(self, instant: datetime, /) -> datetime:
        """The first poll after an instant; see `Schedule.next_after`."""
        return self.schedule.next_after(instant, self.provider)
