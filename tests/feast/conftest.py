"""Feast is imported once, its own warnings aside; what it warns of while it works is named one by one."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # only while importing: Feast's dependencies deprecate each other
    import feast.infra.online_stores.sqlite  # noqa: F401

os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)  # Feast sets it for its server; the tests that follow count in memory

HERE = Path(__file__).parent
FEASTS_OWN = (
    "ignore:fetch_arrow_table:DeprecationWarning",  # ibis calls DuckDB by an old name
    "ignore:(Saving dataset|Retrieving datasets|On demand feature view) is an experimental feature:RuntimeWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let Feast's own warnings pass in the tests of this folder, and in no others."""
    for item in items:
        if HERE in item.path.parents:
            for text in FEASTS_OWN:
                item.add_marker(pytest.mark.filterwarnings(text))
