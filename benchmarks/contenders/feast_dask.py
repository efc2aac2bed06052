"""Feast `get_historical_features(filter_by_created_timestamp=True)`, the default file store."""

from __future__ import annotations

from typing import Any

from benchmarks.contenders import _feast
from benchmarks.question import Question

NAME = "feast dask"
ENVIRONMENT = "project"
CLAIM = "as the duckdb store, and wrong where an event has many revisions"
KINDS = ("latest",)
run = _feast.run
write = _feast.write


def load(question: Question) -> Any:
    """The store and the entity frame."""
    return _feast.load(question, "dask")
