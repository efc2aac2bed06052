"""The notebooks run from top to bottom, and show what is stored in them."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from conftest import shared_folder
from notebook_runs import NOTEBOOKS, code_cells, pictures, run, shown

REAL_DATA = {"05_revisions_in_epidemic_data.ipynb"}
MACHINE = re.compile(r"/(?:home|root|tmp|work|usr|Users)/|site-packages|ipykernel_")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_shows_what_is_stored_in_it(path: Path, tmp_path: Path) -> None:
    shared = shared_folder()
    if path.name in REAL_DATA and shared is None:
        pytest.skip("reference data is not here: set ASKNOWN_SHARED to its folder")
    stored, now = nbformat.read(path, as_version=4), run(path, tmp_path, shared)
    for number, (before, after) in enumerate(zip(code_cells(stored), code_cells(now), strict=True), start=1):
        assert shown(after) == shown(before), f"code cell {number}; if the new one is right: make notebooks"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_can_be_read_where_it_cannot_be_run(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert 5 <= len(cells) <= 12
    assert pictures(notebook), "a picture says more"
    assert all(width >= 600 for width, _ in pictures(notebook))
    assert any("assert " in cell.source for cell in cells), "what it claims, it checks"
    kinds = {kind for cell in cells for kind, _ in shown(cell)}
    assert kinds <= {"stdout", "value", "picture"}  # no warnings, no widgets
    assert MACHINE.findall(path.read_text(encoding="utf-8")) == []
    assert path.stat().st_size < 600_000
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    links = [link for text in texts for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_notebooks_are_numbered_in_the_order_of_reading() -> None:
    numbers = [path.name[:3] for path in NOTEBOOKS]
    assert numbers == [f"{number:02}_" for number in range(1, len(numbers) + 1)]
