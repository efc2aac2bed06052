"""Runs Feast's own tests of offline stores against ours.

    python tests/feast/suite.py CHECKOUT --python PYTHON [--arrival on|off] [--engine local|duckdb] [pytest options]

CHECKOUT is a clone of github.com/feast-dev/feast at the release that is installed (its wheel has no tests). PYTHON is an
interpreter with `feast[duckdb,grpcio,test]`, assertpy, mock, and what asknown needs; Feast pins pytest below ours, so it is one
of its own:

    python -m venv /tmp/feast-suite
    /tmp/feast-suite/bin/pip install "feast[duckdb,grpcio,test]==0.67.0" assertpy mock ".[feast]"

With arrival off (the default) all tests must pass. With arrival on, the fixtures are changed to say that each row was created
at its event: they stamp them now, after every question, and a store that counts by arrival would rightly answer null. Then two
tests may fail, those that assert that later revisions are seen early.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEAKY = {
    "test_historical_features_containing_backfills",
    "test_historical_features_filter_by_created_timestamp",
}
"""What asserts that a revision counts before it was created."""
MARKERS = (
    "universal_offline_stores universal_online_stores rbac_remote_integration_test integration benchmark slow cloud "
    "local_only mongodb ray_offline_stores_only xdist_group timeout"
)
CONFIGURATION = '''
"""The stores that Feast's tests run with: ours, over files."""

import os

from serving.feast_offline_store import AvailabilityOfflineStoreConfig
from tests.universal.feature_repos.universal.data_sources.file import FileDataSourceCreator

ARRIVAL = os.environ["SUITE_ARRIVAL"] == "on"


class OurSources(FileDataSourceCreator):
    """Feast's files, read by our store."""

    def create_offline_store_config(self):
        return AvailabilityOfflineStoreConfig(arrival=ARRIVAL, engine=os.environ["SUITE_ENGINE"])

    def create_data_source(self, df, destination_name, created_timestamp_column="created_ts", field_mapping=None, timestamp_field="ts"):
        mapping = field_mapping or {"ts_1": "ts"}
        event = timestamp_field
        if event not in df.columns:
            event = next((own for own, name in mapping.items() if name == timestamp_field), event)
        if ARRIVAL and created_timestamp_column in df.columns and event in df.columns:
            df = df.assign(**{created_timestamp_column: df[event]})
        return super().create_data_source(df, destination_name, created_timestamp_column, field_mapping, timestamp_field)


AVAILABLE_OFFLINE_STORES = [("local", OurSources)]
AVAILABLE_ONLINE_STORES = {"sqlite": ({"type": "sqlite"}, None)}
'''


def main() -> int:
    """0 if the tests that fail are those that may."""
    parser = argparse.ArgumentParser(description="Feast's own offline tests against our store")
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--arrival", choices=["on", "off"], default="off")
    parser.add_argument("--engine", choices=["local", "duckdb"], default="local")
    chosen, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="feast-suite-") as scratch:
        home = Path(scratch)
        shutil.copytree(chosen.checkout / "sdk" / "python" / "tests", home / "tests")
        (home / "our_configuration.py").write_text(CONFIGURATION)
        marks = "".join(f"    {name}\n" for name in MARKERS.split())
        (home / "pytest.ini").write_text(f"[pytest]\nmarkers =\n{marks}")
        subprocess.run(_command(chosen.python, more), cwd=home, env=_environment(home, chosen), check=False)
        return _judge(home / "results.xml", LEAKY if chosen.arrival == "on" else set())


def _command(python: str, more: list[str]) -> list[str]:
    folder = "tests/integration/offline_store"
    return [
        *(python, "-m", "pytest", "-q", "--integration", "-m", "not ray_offline_stores_only"),
        *(f"--ignore={folder}/test_dqm_validation.py", f"--ignore={folder}/test_s3_custom_endpoint.py"),
        *("--junitxml=results.xml", "--tb=short", *more, folder),
    ]


def _environment(home: Path, chosen: argparse.Namespace) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": f"{home}{os.pathsep}{ROOT}",
        "FULL_REPO_CONFIGS_MODULE": "our_configuration",
        "FEAST_IS_LOCAL_TEST": "True",
        "IS_TEST": "True",
        "SUITE_ARRIVAL": chosen.arrival,
        "SUITE_ENGINE": chosen.engine,
    }


def _judge(results: Path, allowed: set[str]) -> int:
    if not results.exists():
        print("Feast's tests did not run", file=sys.stderr)
        return 1
    passed, skipped, failed = 0, 0, set()
    for case in ET.parse(results).iter("testcase"):
        if case.find("skipped") is not None:
            skipped += 1
        elif case.find("failure") is not None or case.find("error") is not None:
            failed.add(case.attrib["name"])
        else:
            passed += 1
    print(f"{passed} passed, {skipped} skipped, {len(failed)} failed: {', '.join(sorted(failed)) or 'none'}")
    differing = {name.partition("[")[0] for name in failed}
    return 0 if passed and differing <= allowed else 1


if __name__ == "__main__":
    sys.exit(main())
