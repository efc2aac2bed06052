"""What a wheel of asknown holds: our three packages, the licence, nothing else."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = {"alignment", "ingestion", "serving"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_our_three_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert tops == {*SHIPPED, "asknown-0.1.0.dist-info"}


def test_the_wheel_holds_no_compiled_files(wheel: zipfile.ZipFile) -> None:
    assert [name for name in wheel.namelist() if "__pycache__" in name or name.endswith((".pyc", ".nbi", ".nbc"))] == []


def test_every_module_of_the_checkout_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    there = set(wheel.namelist())
    ours = {str(path.relative_to(ROOT)) for package in SHIPPED for path in (ROOT / package).rglob("*.py")}
    assert ours - there == set()


def test_the_wheel_is_typed_and_licensed(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {f"{package}/py.typed" for package in SHIPPED} <= names
    licence = wheel.read("asknown-0.1.0.dist-info/licenses/LICENSE").decode()
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_the_core_needs_no_feast_spark_redis_or_web_framework(wheel: zipfile.ZipFile) -> None:
    headers = email.message_from_bytes(wheel.read("asknown-0.1.0.dist-info/METADATA"))
    requirements = headers.get_all("Requires-Dist", [])
    core = {line.split(";")[0].split(">")[0].split("<")[0].strip() for line in requirements if "extra ==" not in line}
    assert core == {
        "deltalake",
        "duckdb",
        "numba",
        "numpy",
        "polars",
        "pyarrow",
        "rich",
        "typer",
        "tzdata",
    }


def test_the_three_names_belong_to_this_distribution_alone() -> None:
    owners = metadata.packages_distributions()
    # An editable install names no files, so a missing owner is fine; another owner is not.
    assert {name: set(owners.get(name, ["asknown"])) for name in SHIPPED} == {name: {"asknown"} for name in SHIPPED}


@pytest.mark.skipif("ASKNOWN_TEST_SITE" not in os.environ, reason="only `make test WHEEL=1` tests the built wheel")
@pytest.mark.parametrize("package", sorted(SHIPPED))
def test_it_is_the_wheel_that_is_tested(package: str) -> None:
    module = __import__(package)
    assert Path(module.__file__).is_relative_to(os.environ["ASKNOWN_TEST_SITE"])
