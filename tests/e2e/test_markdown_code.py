"""The README and every page of the docs do what they show; and the runner notices when one does not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import shared_folder
from markdown_code import Page, blocks, matches

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = ROOT / "Makefile"
PAGES = [
    page
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if page.exists() and blocks(page)
]


OUTSIDE_THE_DOCS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "feature_repo" / "README.md",
    ROOT / "notebooks" / "README.md",
]


@pytest.mark.parametrize("page", OUTSIDE_THE_DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_pages_outside_the_docs_lead_somewhere(page: Path) -> None:
    # `make docs` checks the links of the docs themselves.
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def shared_file(relative: str) -> Path:
    """A file of the shared folder; the test is skipped, with the reason, where it is absent."""
    folder = shared_folder()
    if folder is None or not (folder / relative).exists():
        pytest.skip(f"the page needs {relative} of the reference data: set ASKNOWN_SHARED to its folder")
    return (folder / relative).resolve()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_page_does_what_it_shows(page: Path, tmp_path: Path) -> None:
    Page(page, tmp_path, shared=shared_file, makefile=MAKEFILE).run()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```python\nprint(1)\n```\n\n```output\n2\n```\n", "the page shows\n2"),
        ("```console\n$ echo one\ntwo\n```\n", "the page shows\ntwo"),
        ("```console\n$ exit 2\n```\n", "exit code 2"),
        ("```sh\nmake coffee\n```\n", "no such make target in 'coffee'"),
    ],
)
def test_a_page_that_shows_something_else_fails(text: str, complaint: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(AssertionError, match=complaint):
        Page(page, tmp_path, shared=lambda relative: tmp_path / relative, makefile=MAKEFILE).run()


def test_a_page_can_write_files_and_use_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '```python title="made.py"\nanswer = 42\n```\n\n```console\n$ cat \\\n    made.py\nanswer = 42\n$ wc -l < made.py\n1\n```\n'
    )
    Page(page, tmp_path, shared=lambda relative: tmp_path / relative, makefile=MAKEFILE).run()


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a\nb", "a\nb\n", True),
        ("a  \nb", "a\nb", True),
        ("a\n...\nd", "a\nb\nc\nd\n", True),
        ("took ... s", "took 1.5 s", True),
        ("took ... s", "took 1.5 minutes", False),
        ("a.c", "abc", False),
        ("a", "a\nb", False),
    ],
)
def test_dots_stand_for_anything_and_nothing_else_does(expected: str, printed: str, same: bool) -> None:
    assert matches(expected, printed) is same
