"""A whole state must come whole: what a source leaves out would be taken back."""

from __future__ import annotations

from typing import Any

import pytest

from ingestion.errors import ProviderError
from ingestion.providers import Provider

URL = "https://data.example/state"


def declare(**source: Any) -> Provider:
    return Provider(name="p", entities=["plant"], state="whole", source=source)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ({"kind": "sql", "url_env": "DB", "table": "load", "cursor_column": "id"}, "leave out cursor_column"),
        ({"kind": "files", "path": "drop"}, "say max_files: 1"),
        ({"kind": "http", "url": URL + "?from={since}", "start": "1d"}, "leave {since} out"),
        ({"kind": "http", "url": URL, "paging": {"kind": "page_number"}}, "say resume: false"),
    ],
)
def test_a_source_that_reads_parts_is_refused(source: dict[str, Any], problem: str) -> None:
    with pytest.raises(ProviderError, match=f"a whole state must come whole, and its source (?s:.*){problem}"):
        declare(**source)


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "sql", "url_env": "DB", "table": "load"},
        {"kind": "files", "path": "drop", "max_files": 1},
        {"kind": "http", "url": URL},
        {"kind": "http", "url": URL, "paging": {"kind": "page_number"}, "resume": False},
    ],
)
def test_a_source_that_reads_all_is_taken(source: dict[str, Any]) -> None:
    assert declare(**source).state == "whole"
