"""Values as pages show them, and as their JSON has them."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from serving.render import duration_text

_MOST_LETTERS: Final = 120


def iso(instant: datetime) -> str:
    """An instant in UTC as `2026-01-01T00:00:00Z`, with a fraction only if it has one; what addresses and JSON have."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def instant_text(instant: datetime | None) -> str:
    """An instant for people: `2026-01-01 00:00:00`, in UTC; a dash for none."""
    return "-" if instant is None else f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def age_text(length: timedelta | None) -> str:
    """A length of time for people: `27m 30s`; a dash for none.

    Example:
        >>> age_text(timedelta(minutes=27, seconds=30)), age_text(timedelta(milliseconds=250)), age_text(None)
        ('27m 30s', '250ms', '-')
    """
    if length is None:
        return "-"
    if timedelta(0) < abs(length) < timedelta(seconds=1):
        return f"{length / timedelta(milliseconds=1):.3g}ms"
    return duration_text(length)


def value_text(value: Any, most: int = _MOST_LETTERS) -> str:
    """A value in a cell: numbers to six digits, lists and texts cut where they become too long.

    Example:
        >>> value_text(2 / 3), value_text(None), value_text([1.5, None])
        ('0.666667', '-', '1.5, -')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return instant_text(value) if value.tzinfo is not None else str(value)
    if isinstance(value, timedelta):
        return age_text(value)
    text = ", ".join(map(value_text, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= most else f"{text[:most]}..."


def hundredths_text(share: float) -> str:
    """A share to two places, of which a small one is still more than none.

    Example:
        >>> hundredths_text(0.300474), hundredths_text(0.001), hundredths_text(0)
        ('0.30', 'below 0.01', '0.00')
    """
    return "below 0.01" if 0 < share < 0.01 else f"{share:.2f}"


def plain(value: Any) -> Any:
    """A value as JSON knows it: instants as text, lengths in seconds, numbers that are none as text."""
    if isinstance(value, float):
        return (
            value
            if math.isfinite(value)
            else ("NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity")
        )
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, datetime):
        return iso(value) if value.tzinfo is not None else value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def to_json(value: Any) -> str:
    r"""A value as JSON that may also stand in a page: no letter of it can end the element that it is in.

    Example:
        >>> to_json({"name": "</script>"})
        '{"name":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text
