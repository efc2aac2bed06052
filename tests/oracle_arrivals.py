"""R23 as plain loops: the rows of `oracle_frames.rows_of` with the arrivals that delay rules and outages give them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import oracle
from oracle_clock import micros_of

import alignment as al

Rule = Callable[[oracle.Row], int]


def order_of(row: oracle.Row, *, sequenced: bool) -> int:
    """What orders rows of one arrival: the log's sequence, or else the arrival before it was raised to the event."""
    number: int = row["sequence"] if sequenced else row["given"]
    return number


def key_of(row: oracle.Row) -> tuple[Any, ...]:
    """R2, R4: what a row is a revision of."""
    return (row["entity"], oracle.subject(row), row["issue"])


def moved(
    rows: Sequence[oracle.Row], kind: str, outages: Sequence[al.Outage], rule: Rule | None, *, sequenced: bool
) -> list[oracle.Row]:
    """The rows that ever arrive, with their new arrivals."""
    in_order = sorted(rows, key=oracle.revision_order)
    found = [dict(row) for row in in_order]
    if rule is not None:
        model(found, kind, rule)
    lost = [hold_up(row, kind, outages) for row in found]
    whole = {
        (row["entity"], oracle.subject(row)) for row in found if kind == "forecast" and row["issue"] is None
    }  # events of which all issues are withdrawn at once: their rows keep their order among each other
    last: dict[Any, tuple[int, int]] = {}
    kept = []
    for row, gone in zip(found, lost, strict=True):
        if gone:
            continue
        event = (row["entity"], oracle.subject(row))
        key = event if event in whole else key_of(row)
        order = order_of(row, sequenced=sequenced)
        if key in last:
            arrival, before = last[key]
            row["arrival"] = max(row["arrival"], arrival + (1 if order < before else 0))
        last[key] = (row["arrival"], order)
        kept.append(row)
    return kept


def model(found: list[oracle.Row], kind: str, rule: Rule) -> None:
    """The first revision of each key arrives as the rule says; the others keep their distance to it."""
    shifts: dict[Any, int] = {}
    of_event: dict[Any, int] = {}
    for row in found:
        event = (row["entity"], oracle.subject(row))
        if kind == "forecast" and row["issue"] is None:
            row["arrival"] += of_event.get(event, 0)
            continue
        key = key_of(row)
        if key not in shifts and row["event"] is not None:
            shifts[key] = rule(row) - row["arrival"]
        row["arrival"] += shifts.get(key, 0)
        if key in shifts:
            of_event[event] = shifts[key]
        if kind == "measurement" and row["event"] is not None:
            row["arrival"] = max(row["arrival"], row["event"])


def hold_up(row: oracle.Row, kind: str, outages: Sequence[al.Outage]) -> bool:
    """Move a row through the outages, the earliest first; whether it is lost."""
    for outage in sorted(outages, key=lambda one: (micros_of(one.start), micros_of(one.end))):
        start, end = micros_of(outage.start), micros_of(outage.end)
        if not start <= row["arrival"] < end:
            continue
        if outage.entities is not None and not any(
            row["entity"] == (one if isinstance(one, tuple) else (one,)) for one in outage.entities
        ):
            continue
        if outage.lost:
            return True
        if outage.slow is None:
            row["arrival"] = end
            continue
        origin = row["issue"] if kind == "forecast" and row["issue"] is not None else row["event"]
        if origin is not None and row["arrival"] > origin:
            row["arrival"] += round((row["arrival"] - origin) * (outage.slow - 1.0))
    return False
