"""Feast `get_historical_features(filter_by_created_timestamp=True)`, the duckdb (ibis) offline store."""

from __future__ import annotations

from typing import Any

from benchmarks.contenders import _feast
from benchmarks.question import Question

NAME = "feast duckdb"
ENVIRONMENT = "project"
CLAIM = "exact but for retractions, which it cannot say"
KINDS = ("latest",)
run = _feast.run
write = _feast.write


def load(question: Question) -> Any:
    """The store and the entity frame."""
    return _feast.load(question, "duckdb")
