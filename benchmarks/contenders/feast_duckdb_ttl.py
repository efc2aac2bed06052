"""Feast `get_historical_features(filter_by_created_timestamp=True)`, the same with a ttl of 24 hours, which bounds its join."""

from __future__ import annotations

from typing import Any

from benchmarks.contenders import _feast
from benchmarks.question import Question

NAME = "feast duckdb ttl 24h"
ENVIRONMENT = "project"
CLAIM = "as without ttl, and events older than 24 h are null"
KINDS = ("latest",)
run = _feast.run
write = _feast.write


def load(question: Question) -> Any:
    """The store and the entity frame."""
    return _feast.load(question, "duckdb", ttl_hours=24)
