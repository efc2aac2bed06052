"""Until when a provider was read, though our own clock may have been set ahead for a while, and be set right later.

The provider's `Date` says what was there when it answered. Where it sends none, the steps from one fetch to the next are
remembered: when our clock turns out to have been ahead, one of them was the step that set it so.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from ingestion.sources.http_retry import http_date

_SANE: Final = timedelta(days=1)
_KEPT: Final = 16


def read_until(until: datetime, *, date: str | None, now: datetime) -> tuple[datetime, bool]:
    """Until when an answer to a question up to `until` tells, and whether the provider's clock says so.

    Args:
        until: What was asked for, by our clock.
        date: The answer's `Date` header; one that is more than a day behind our clock is not believed.
        now: When the answer was in hand, by our clock.

    Example:
        >>> from datetime import UTC
        >>> one = datetime(2025, 6, 1, 13, tzinfo=UTC)
        >>> read_until(one, date="Sun, 01 Jun 2025 12:00:00 GMT", now=one)[0].hour
        12
    """
    told = http_date(date)
    if told is None or told < now - _SANE:
        return until, False
    return min(until, told), True


def go_on_from(cursor: Mapping[str, Any], now: datetime) -> datetime:
    """Until when was read for certain, of a cursor that has `since`: of one ahead of now, from before it was set ahead."""
    last = datetime.fromisoformat(cursor["since"])
    if now >= last:
        return last
    steps = cursor.get("steps") or []
    ahead = (last - now).total_seconds() + (steps[-1][1] if steps else 0)
    found = next((before for before, step in reversed(steps) if step >= ahead), steps[0][0] if steps else None)
    return now if found is None else min(now, datetime.fromisoformat(found))


def steps_to(reached: datetime, before: datetime, cursor: Mapping[str, Any]) -> list[list[Any]]:
    """The steps of the fetches so far, each from when and how many seconds; those that a later one is longer than are left out.

    Args:
        reached: Until when was read now.
        before: Until when was read before.
        cursor: What the fetch before left.
    """
    steps = cursor.get("steps") or []
    if cursor.get("goes_on") and steps:  # a step that was too long for one fetch
        before = min(before, datetime.fromisoformat(steps[-1][0]))
    step = (reached - before).total_seconds()
    earlier = [kept for kept in steps if kept[1] > step and datetime.fromisoformat(kept[0]) < before]
    return [*earlier, [before.isoformat(), step]][-_KEPT:]
