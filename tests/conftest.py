"""What all tests share: where the real data sets are, and how much of the long runs to do."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent

# Tests import each other's helpers as `tests.oracle`. At the end of the path, so that an installed wheel is tested and not
# the checkout around it.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))


def shared_folder() -> Path:
    """The folder with the real data sets and the peer cases: ASKNOWN_SHARED, by default `../shared` beside the repository."""
    return Path(os.environ.get("ASKNOWN_SHARED", ROOT.parent / "shared")).resolve()


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Find a file of the shared folder by its path there; the test is skipped, with the reason, where it is absent."""

    def find(relative: str) -> Path:
        path = shared_folder() / relative
        if not path.exists():
            pytest.skip(f"{relative} not found below {shared_folder()}; set ASKNOWN_SHARED")
        return path

    return find


@pytest.fixture(scope="session")
def soak() -> Callable[[int], int]:
    """Scale the count of a long run by ASKNOWN_SOAK (1 = all of it): `soak(200)` is 20 at ASKNOWN_SOAK=0.1."""
    share = float(os.environ.get("ASKNOWN_SOAK", "1"))
    return lambda count: max(1, round(count * share))
