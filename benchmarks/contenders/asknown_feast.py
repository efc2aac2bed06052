"""Feast `get_historical_features` with our offline store, which counts by arrival without being told."""

from __future__ import annotations

from typing import Any

from benchmarks.contenders import _feast
from benchmarks.question import Question

NAME = "asknown in Feast"
ENVIRONMENT = "project"
CLAIM = "exact but for retractions, which a Parquet source of Feast cannot say"
KINDS = ("latest",)
run = _feast.run
write = _feast.write


def load(question: Question) -> Any:
    """The store and the entity frame."""
    return _feast.load(question, "serving.feast_offline_store.AvailabilityOfflineStore", flag=False)
