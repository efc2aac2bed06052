"""The examples in the docstrings of the shipped modules run and print what they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import alignment
import ingestion
import serving

MODULES = sorted(
    module.name
    for package in (alignment, ingestion, serving)
    for module in pkgutil.walk_packages(package.__path__, prefix=f"{package.__name__}.")
)


@pytest.mark.parametrize("name", ["alignment", "ingestion", "serving", *MODULES])
def test_docstring_examples(name: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # examples may write files
    module = importlib.import_module(name)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.FAIL_FAST
    failed, _ = doctest.testmod(module, optionflags=options)
    assert failed == 0, f"see the output above: an example of {name} prints something else"
