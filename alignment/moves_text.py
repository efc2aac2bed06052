"""What moved arrivals, in words: outages, delay rules, a seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from alignment.explain_words import instant_text

MOST: Final = 6
"""Outages that are named; of more the rest is counted."""


def moves_text(moves: Mapping[str, Any]) -> str:
    """What `alignment.definitions.describe_moves` described, in one line.

    Args:
        moves: `outages`, `delays` and `seed`, as far as there are any.

    Example:
        >>> outage = {"provider": "mast", "start": "2026-06-01T08:00:00+00:00", "end": "2026-06-01T12:00:00+00:00"}
        >>> moves_text({"outages": [outage], "delays": {"meter": {"rule": "fixed", "delay": "45m"}}})
        'outage of mast from 2026-06-01 08:00:00Z to 2026-06-01 12:00:00Z; delay of meter: 45m'
        >>> moves_text({"outages": [outage | {"lost": True, "entities": ["dune"]}], "seed": 3})
        "outage of mast from 2026-06-01 08:00:00Z to 2026-06-01 12:00:00Z, lost, only of 'dune'; seed 3"
    """
    outages = moves.get("outages", [])
    parts = [_outage(one) for one in outages[:MOST]]
    if more := len(outages) - len(parts):
        parts.append(f"{more} more outage{'' if more == 1 else 's'}")
    parts += [f"delay of {provider}: {_rule(rule)}" for provider, rule in moves.get("delays", {}).items()]
    if "seed" in moves:
        parts.append(f"seed {moves['seed']}")
    return "; ".join(parts)


def all_moves_text(moves: Iterable[Mapping[str, Any]]) -> str:
    """What moved arrivals one after the other, in one line."""
    return "; then ".join(map(moves_text, moves))


def _outage(told: Mapping[str, Any]) -> str:
    start, end = (instant_text(datetime.fromisoformat(told[name])) for name in ("start", "end"))
    said = f"outage of {told['provider']} from {start} to {end}"
    said += ", lost" if told.get("lost") else ""
    said += f", slow={told['slow']:g}" if told.get("slow") is not None else ""
    if told.get("entities") is not None:
        said += f", only of {', '.join(map(repr, told['entities'])) or 'nobody'}"
    return said


def _rule(told: Mapping[str, Any]) -> str:
    if told["rule"] == "fixed":
        return str(told["delay"])
    if told["rule"] == "shifted":
        by = str(told["by"])
        return f"{by} earlier".removeprefix("-") if by.startswith("-") else f"{by} later"
    if told["rule"] == "publish_schedule":
        return f"published at {told['at']} {told['zone']}"
    return "fitted" if told["rule"] == "empirical" else str(told["rule"])
