"""Put hand-made faults into the kernel and the join, one at a time, and see whether the tests notice.

    python tests/mutation/run.py             # all faults
    python tests/mutation/run.py --only 7    # one of them, with what the tests said
    python tests/mutation/run.py --jit       # with the compiled kernel: slower, each fault compiles anew

Each fault is applied to a copy of the packages in a temporary folder; the checkout is never touched. Kernels run as plain
Python (`NUMBA_DISABLE_JIT`) so that no compiled kernel of an earlier run can hide a fault, and because compiling one takes
longer than running the tests on it. Before the faults the same tests run on an unchanged copy: they must pass there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from faults import FAULTS, Fault, place_of

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("alignment", "ingestion", "serving")
# The quick tests of the rules: hand-typed examples first, then drawn ones against the oracle.
TESTS = {
    "alignment": [
        "tests/unit/test_rules_visibility.py",
        "tests/unit/test_rules_features.py",
        "tests/unit/test_rules_join.py",
        "tests/unit/test_rules_labels.py",
        "tests/unit/test_rules_time.py",
        "tests/unit/test_services.py",
        "tests/differential/test_engines.py",
        "tests/differential/test_crowds.py",
        "tests/property/test_rules_laws.py",
        "tests/property/test_services_laws.py",
    ],
    "ingestion": [
        "tests/unit/test_ingestion_ledger.py",
        "tests/unit/test_polling.py",
        "tests/unit/test_ingestion_append.py",
    ],
}
TESTS["online"] = [
    "tests/unit/test_online_trimming.py",
    "tests/integration/test_online_server.py",
    "tests/differential/test_online.py",
]
TESTS["arrivals"] = ["tests/unit/test_replay.py", "tests/differential/test_arrivals.py"]
TESTS["outages"] = ["tests/unit/test_outage_drawing.py", "tests/differential/test_outage_finding.py"]
TESTS["feeds"] = ["tests/integration/test_world_outages.py"]
TESTS["maturity"] = ["tests/unit/test_label_maturity.py", "tests/differential/test_label_maturity.py"]
TESTS["delays"] = ["tests/unit/test_delay_models.py", "tests/property/test_delay_models_laws.py"]
TESTS["explanations"] = ["tests/unit/test_explain.py", "tests/property/test_explain_laws.py"]
TESTS["parts"] = ["tests/unit/test_parts.py"]
TIME_LIMIT = 600


def environment(site: Path, *, jit: bool) -> dict[str, str]:
    """What the tests of one copy run in."""
    own = {
        "PYTHONPATH": str(site),
        "NUMBA_CACHE_DIR": str(site / "numba"),
        "NUMBA_DISABLE_JIT": "0" if jit else "1",
        "POLARS_MAX_THREADS": "2",
    }
    return {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")} | own


def copy_to(site: Path, origin: Path = ROOT) -> None:
    """A copy of the packages that a fault can be put into."""
    for package in PACKAGES:
        shutil.copytree(origin / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))


def run_tests(site: Path, package: str, *, jit: bool) -> subprocess.CompletedProcess[str]:
    """The quick tests on one copy, up to the first failure."""
    found = subprocess.run(
        [sys.executable, "-c", "import alignment; print(alignment.__file__)"],
        cwd=site,
        env=environment(site, jit=jit),
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode == 0 and not found.stdout.startswith(str(site)):
        raise SystemExit(f"the tests would import {found.stdout.strip()}, not the copy in {site}")
    # Plain Python integers of numpy warn where compiled ones wrap around on purpose (hashing keys).
    arguments = ["-q", "-x", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning", "-k", "not duckdb"]
    return subprocess.run(
        [sys.executable, "-c", "import sys, pytest; sys.exit(pytest.main())", *arguments, *TESTS[package]],
        cwd=ROOT,
        env=environment(site, jit=jit) | {"PYTHONSAFEPATH": "1", "HYPOTHESIS_PROFILE": "default"},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIME_LIMIT,
    )


def judge(fault: Fault, sound: Path, *, jit: bool) -> tuple[bool, str, str]:
    """Whether a fault is caught, the test that caught it, and all that the tests said."""
    with tempfile.TemporaryDirectory(prefix="fault-") as folder:
        site = Path(folder).resolve()
        copy_to(site, sound)
        path = place_of(fault, site)
        path.write_text(path.read_text().replace(fault.old, fault.new))
        try:
            run = run_tests(site, fault.tests or fault.package, jit=jit)
        except subprocess.TimeoutExpired:
            return True, f"no end within {TIME_LIMIT} s", ""
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return run.returncode != 0, failed[0].partition(" - ")[0] if failed else "", run.stdout + run.stderr


def report(sound: Path, faults: list[Fault], *, jit: bool, jobs: int, details: bool) -> int:
    """Judge faults and print a line for each; how many survived."""
    survived = 0
    with ThreadPoolExecutor(jobs) as pool:
        for fault, (caught, by, said) in zip(
            faults, pool.map(lambda one: judge(one, sound, jit=jit), faults), strict=True
        ):
            survived += not caught
            number = FAULTS.index(fault) + 1
            print(f"{number:3} {'caught  ' if caught else 'SURVIVED'} {fault.rule:4} {fault.what}  [{by}]", flush=True)
            if details:
                print(said)
    return survived


def main() -> int:
    """Judge the faults; 0 if all are caught, 1 if one survives, 2 if the tests fail without one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, help="number of one fault")
    parser.add_argument("--first", type=int, default=1, help="number of the fault to start with")
    parser.add_argument("--jit", action="store_true", help="compile the kernels")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    chosen = parser.parse_args()
    faults = FAULTS[chosen.first - 1 :] if chosen.only is None else [FAULTS[chosen.only - 1]]
    with tempfile.TemporaryDirectory(prefix="no-fault-") as folder:
        site = Path(folder).resolve()
        copy_to(site)  # all faults start from this copy: the checkout may change meanwhile
        started = time.monotonic()
        for package in dict.fromkeys(fault.tests or fault.package for fault in faults):
            sound = run_tests(site, package, jit=chosen.jit)
            if sound.returncode != 0:
                print(sound.stdout[-3000:], sound.stderr[-3000:], "the tests fail without any fault", file=sys.stderr)
                return 2
        print(f"without a fault the tests pass ({time.monotonic() - started:.0f} s)", flush=True)
        survived = report(site, faults, jit=chosen.jit, jobs=chosen.jobs, details=chosen.only is not None)
    print(f"{len(faults) - survived} of {len(faults)} faults caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
