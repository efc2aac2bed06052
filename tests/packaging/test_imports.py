"""Who imports whom: alignment <- ingestion <- serving, absolute, and nothing shipped imports what is not shipped."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("alignment", "ingestion", "serving")
MAY_IMPORT = {
    "alignment": {"alignment"},
    "ingestion": {"alignment", "ingestion"},
    "serving": {"alignment", "ingestion", "serving"},
}
# Besides the packages themselves: their errors, the simulated world, and what needs the libraries of the extra `ingest`.
PUBLIC_MODULES = {
    "alignment.errors",
    # What a server shares with a training set: who answers for a feature, and declarations as plain data.
    "alignment.choosing",
    "alignment.definitions",
    "alignment.durations",
    "alignment.explain_words",
    "alignment.heartbeats",
    "alignment.labels",
    # Where files are, which the core writes too, and how a data set's are written.
    "alignment.dataset_writing",
    "alignment.location",
    # What a command refuses before it begins.
    "alignment.dataset",
    "alignment.join",
    "alignment.service_binding",
    # What a server's state is made of, in memory or elsewhere: rows in canonical form, their arrangement, the evaluator's store.
    "alignment.features",
    "alignment.layout",
    "alignment.online",
    "alignment.online.compiled",
    "alignment.online.growing",
    "alignment.online.store",
    "alignment.online.trimming",
    # How sure a score is, and when values settle: what reports of the shell share with those of the core.
    "alignment.resampling",
    "alignment.rows",
    "alignment.settling",
    "ingestion.instants",
    "ingestion.ledger",
    "ingestion.reading",
    "ingestion.errors",
    # What the served log shares with an observation log: where it is, its types, and which rows are an entity's.
    "ingestion.dataset_files",
    "ingestion.datasets",
    "ingestion.schema",
    "ingestion.storage",
    "ingestion.sources.simulated",
    "ingestion.sources.world_declarations",
    "ingestion.sources.world_feeds",
    "ingestion.sources.world_outages",
    "ingestion.providers",
    "ingestion.checks",
    "ingestion.spool",
    "ingestion.jobs",
}
NOT_SHIPPED = {"feature_repo", "tests", "benchmarks", "notebooks", "docs"}
FILES = [path for package in SHIPPED for path in sorted((ROOT / package).rglob("*.py"))]
# What the core may not touch: files, sockets, processes, clocks and the environment belong to the shell packages.
NOT_IN_THE_CORE = {
    "os",
    "time",
    "socket",
    "subprocess",
    "tempfile",
    "shutil",
    "random",
    "requests",
    "httpx",
    "deltalake",
}
# What may be touched nevertheless, and for what.
EXCEPTIONS = {
    ("alignment/jit.py", "os"): "where Numba's machine code is cached",
    ("alignment/jit.py", "tempfile"): "where it is cached if nothing else can be written",
    ("alignment/observations.py", "deltalake"): "whether an address is that of a Delta table",
    ("alignment/engines/spark/reading.py", "deltalake"): "which files a Delta table has",
    ("alignment/engines/spark/writing.py", "deltalake"): "which part files become a Delta table",
    ("alignment/engines/duckdb.py", "tempfile"): "where DuckDB spills what memory cannot hold",
    ("alignment/dataset_writing.py", "os"): "PathLike",
    ("alignment/dataset_writing.py", "tempfile"): "where a file for a bucket is made",
    ("alignment/location.py", "deltalake"): "the object stores that data sets go to",
    ("alignment/location.py", "os"): "what a draft of a file is called",
    ("alignment/location.py", "shutil"): "copies a file in a folder",
    ("alignment/location.py", "time"): "sleep, before a store is asked again",
    ("alignment/engines/spilling_store.py", "os"): "lays on disk what memory cannot hold",
    ("alignment/engines/spilling_store.py", "shutil"): "how much room there is, and removing it afterwards",
    ("alignment/engines/spilling_store.py", "tempfile"): "where that is, if nobody says",
    ("alignment/engines/local.py", "time"): "perf_counter, which measures durations and knows no instant",
}


def imports(path: Path) -> list[tuple[int, str, bool]]:
    """(line, dotted name of the module, relative?) of every import of a file, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, False) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, node.module or "", node.level > 0))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shipped_module_imports_only_what_its_package_may(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    wrong = []
    for line, name, relative in imports(path):
        top = name.partition(".")[0]
        if relative:
            wrong.append(f"line {line}: relative import of {name!r}")
        elif top in NOT_SHIPPED or (top in SHIPPED and top not in MAY_IMPORT[package]):
            wrong.append(f"line {line}: {package} must not import {name}")
        elif top in SHIPPED and top != package and name not in {top, *PUBLIC_MODULES}:
            wrong.append(f"line {line}: import from {top!r} itself, not from {name!r}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", [path for path in FILES if path.relative_to(ROOT).parts[0] == "alignment"], ids=str)
def test_the_core_has_no_clock_no_environment_and_no_io(path: Path) -> None:
    place = str(path.relative_to(ROOT))
    found = [(line, name.partition(".")[0]) for line, name, _ in imports(path)]
    wrong = [f"line {line}: {top}" for line, top in found if top in NOT_IN_THE_CORE and (place, top) not in EXCEPTIONS]
    assert not wrong, "\n".join(wrong)


def test_every_exception_is_still_needed() -> None:
    needed = {(str(path.relative_to(ROOT)), name.partition(".")[0]) for path in FILES for _, name, _ in imports(path)}
    assert set(EXCEPTIONS) - needed == set()


@pytest.mark.parametrize("package", SHIPPED)
def test_heavy_libraries_are_imported_only_when_they_are_needed(package: str) -> None:
    heavy = "{'numba', 'duckdb', 'matplotlib', 'sklearn', 'pandas', 'feast', 'pyspark', 'redis', 'pydantic', 'httpx', 'uvicorn', 'sqlalchemy', 'jinja2', 'plotly'}"
    code = f"import sys, {package}; print(sorted({heavy} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"


@pytest.mark.parametrize("package", SHIPPED)
def test_a_package_lists_its_public_names_and_they_exist(package: str) -> None:
    module = __import__(package)
    assert isinstance(module.__all__, list | tuple)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_the_page_on_the_data_flow_names_every_module_and_no_others() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = {Path(name).name for name in re.findall(r"`([a-z_/]+\.py)`", page)} - {"oracle.py"}
    there = {path.name for path in FILES if path.name != "__init__.py"}
    assert named == there
