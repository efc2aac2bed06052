"""Sentences of an explanation: what a feature asks for, and why one row was not used."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from alignment.durations import EARLIEST, LATEST

if TYPE_CHECKING:
    from alignment.explain_report import FeatureExplanation

_UNITS = (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1))
_LIMITS = {"max_event_age": "event_time", "max_arrival_age": "arrival_time", "max_issue_age": "issue_time"}
_FIRST = {"latest": ("column",), "lag": ("column", "by"), "window": ("column", "aggregate", "length")}
_FIRST |= {"forecast": ("column", "lead"), "sequence": ("column", "length"), "age": ()}

_COUNTED = {
    "expired": "expired",
    "not_arrived": "not yet arrived",
    "after_as_of": "arrived after as_of",
    "beyond_position": "beyond the position",
    "short_notice": "with short notice",
    "superseded": "superseded",
    "retracted": "retracted",
    "retraction": "retracting",
    "older_issue": "of older runs",
    "outside_window": "outside of the window",
    "null_skipped": "null",
    "older_event": "older",
    "quarantined": "quarantined",
}


def span_text(span: timedelta) -> str:
    """A length of time as people say it, at most two units.

    Example:
        >>> span_text(timedelta(minutes=90)), span_text(timedelta(microseconds=1)), span_text(timedelta(0))
        ('1h 30m', '1us', '0s')
    """
    left = abs(span) // timedelta(microseconds=1)
    parts: list[str] = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return ("-" if span < timedelta(0) else "") + (" ".join(parts) or "0s")


def instant_text(instant: datetime) -> str:
    """An instant in UTC, to the second unless it is finer; the first and the last stand for all that lies beyond them.

    Example:
        >>> from datetime import UTC
        >>> instant_text(datetime(2026, 1, 5, 10, 30, tzinfo=UTC)), instant_text(LATEST)
        ('2026-01-05 10:30:00Z', 'the end of year 9999 or later')
    """
    if instant in (EARLIEST, LATEST):
        return "the start of year 1 or earlier" if instant == EARLIEST else "the end of year 9999 or later"
    return f"{instant:%Y-%m-%d %H:%M:%S}" + (f".{instant.microsecond:06}" if instant.microsecond else "") + "Z"


def declared_text(declared: Mapping[str, Any]) -> str:
    """A declaration as it is written.

    Example:
        >>> declared_text({"feature": "lag", "name": "temp_lag_1h", "column": "temp", "by": "1h"})
        "lag('temp', '1h')"
    """
    kind = declared["feature"]
    if kind == "age":
        return f"{declared['of'].removesuffix('_time')}_age()"
    first = _FIRST[kind]
    hidden = {"feature", "name", *first}
    words = [repr(declared[name]) for name in first]
    words += [
        f"{name}={value!r}" for name, value in declared.items() if name not in hidden and value not in ("0s", False)
    ]
    return f"{kind}({', '.join(words)})"


def sentence(feature: FeatureExplanation, row: Mapping[str, Any], taken: Mapping[str, Any] | None) -> str:
    """Why a row was not used.

    Args:
        feature: What was asked.
        row: The row, with its `reason`.
        taken: The row that took its part, if one did.
    """
    said = _reason(feature, row, taken)
    if row["given_arrival_time"] is None or row["reason"] in ("not_arrived", "after_as_of"):
        return said
    return f"{said}; it arrived at {arrival_text(row)}"


def arrival_text(row: Mapping[str, Any]) -> str:
    """When a row arrived; of one that was moved also when it had arrived before."""
    given = row["given_arrival_time"]
    return instant_text(row["arrival_time"]) + ("" if given is None else f" (given {instant_text(given)})")


def _reason(feature: FeatureExplanation, row: Mapping[str, Any], taken: Mapping[str, Any] | None) -> str:
    reason, arrival = row["reason"], row["arrival_time"]
    other = "" if taken is None else name_of(taken)
    if reason == "not_arrived":
        return f"had not arrived: it arrived at {arrival_text(row)}{_later(arrival, feature.t, 't')}"
    if reason == "after_as_of" and feature.as_of is not None:
        return f"arrived at {arrival_text(row)}{_later(arrival, feature.as_of, 'as_of')}"
    if reason == "beyond_position":
        return f"its log_sequence {row['log_sequence']} lies beyond the position {feature.position}"
    if reason == "short_notice":
        return f"{_notice(row)}, and min_notice is {feature.declared['min_notice']}"
    if reason == "superseded" and taken is not None:
        return f"replaced by revision {taken['revision']}: {other}"
    if reason == "retracted":
        return f"retracted by {other}"
    if reason == "retraction":
        return "it is a retraction: it takes away what had arrived before it"
    if reason == "older_issue" and taken is not None:
        return f"a newer run has this event: {other}, issued at {instant_text(taken['issue_time'])}"
    if reason == "outside_window":
        return _outside(feature, row)
    if reason == "null_skipped":
        return "its value is null, and nulls are passed over"
    if reason == "expired":
        return _expired(feature, row)
    return "a newer event was picked" + ("" if taken is None else f": {_event_of(taken, row)}")


def _later(arrival: datetime, limit: datetime, name: str) -> str:
    return "" if arrival == LATEST else f", {span_text(arrival - limit)} after {name}"


def name_of(row: Mapping[str, Any]) -> str:
    """How to call a row: by its place, and when it arrived."""
    return f"row {row['row']}, which arrived at {arrival_text(row)}"


def _notice(row: Mapping[str, Any]) -> str:
    notice = row["event_time"] - row["arrival_time"]
    if notice < timedelta(0):
        return f"it arrived {span_text(-notice)} after its event"
    return f"it arrived {span_text(notice)} before its event"


def _event_of(taken: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    if taken["event_time"] == row["event_time"]:  # of another id
        return f"row {taken['row']}, of the same instant"
    return f"row {taken['row']} of {instant_text(taken['event_time'])}"


def starts_after(event_from: datetime, declared: Mapping[str, Any]) -> datetime | None:
    """The instant after which a feature looks, where its first instant does not count itself.

    Example:
        >>> first = datetime.fromisoformat("2026-01-05T10:00:00.000001+00:00")
        >>> starts_after(first, {"feature": "window"}), starts_after(first, {"feature": "lag"})
        (datetime.datetime(2026, 1, 5, 10, 0, tzinfo=datetime.timezone.utc), None)
    """
    if declared["feature"] not in ("window", "sequence"):
        return None
    return event_from - timedelta(microseconds=1) if event_from > EARLIEST else EARLIEST


def _outside(feature: FeatureExplanation, row: Mapping[str, Any]) -> str:
    event, first = row["event_time"], feature.event_from
    if first is None or event > feature.event_until:
        gap, end = event - feature.event_until, feature.event_until
        return f"its event is {span_text(gap)} later than the last that counts, {instant_text(end)}"
    after = starts_after(first, feature.declared)
    if after is None:
        return f"its event is {span_text(first - event)} earlier than the first that counts, {instant_text(first)}"
    if event == after:
        return f"its event is exactly {instant_text(after)}, and only what comes after that counts"
    return (
        f"its event is {span_text(after - event)} before {instant_text(after)}, and only what comes after that counts"
    )


def _expired(feature: FeatureExplanation, row: Mapping[str, Any]) -> str:
    broken = [
        f"{limit} is {feature.declared[limit]} and this is {span_text(feature.t - row[column])} old"
        for limit, column in _LIMITS.items()
        if limit in feature.declared and row[column] is not None
    ]
    return f"it was picked and is too old: {'; '.join(broken)}"


def counts_text(counts: Mapping[str, int]) -> str:
    """How many rows were not used for each reason, in words.

    Example:
        >>> counts_text({"not_arrived": 2, "older_event": 330}), counts_text({})
        ('2 not yet arrived, 330 older', 'nothing')
    """
    return ", ".join(f"{count:,} {_COUNTED[reason]}" for reason, count in counts.items()) or "nothing"
