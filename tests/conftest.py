"""What all tests share: where the modules beside the tests are, the Hypothesis budgets, the shared reference data."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import prometheus_client  # noqa: F401 - before Feast, which would have it count in files, without taking labels back
import pytest
from hypothesis import HealthCheck, Phase, settings

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:  # `oracle`, `strategies` and their kin, whatever the import mode
    sys.path.insert(0, str(HERE))

SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
PHASES = [
    Phase.explicit,
    Phase.reuse,
    Phase.generate,
    Phase.shrink,
]  # explaining a failure takes longer than finding it
for profile, examples in (("default", 30), ("ci", 100), ("soak", 2000)):
    settings.register_profile(
        profile,
        max_examples=examples,
        deadline=None,
        derandomize=profile == "default",
        phases=PHASES,
        suppress_health_check=SLOW_IS_FINE,
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def _lines_end_with_their_test() -> Iterator[None]:
    """What a command set up for its process's lines would turn those of later tests into fields."""
    yield
    structlog = sys.modules.get("structlog")
    if structlog is not None:
        root, ours = logging.getLogger(), structlog.stdlib.ProcessorFormatter
        root.handlers = [handler for handler in root.handlers if not isinstance(handler.formatter, ours)]


def shared_folder() -> Path | None:
    """The reference data and peer cases: `ASKNOWN_SHARED`, or `../shared` beside the checkout; None if neither is there."""
    given = os.environ.get("ASKNOWN_SHARED")
    folder = Path(given) if given else HERE.parent.parent / "shared"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared folder; a test that asks for it is skipped where there is none."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("reference data is not here: set ASKNOWN_SHARED to its folder")
    return folder


from object_store import object_store, proxy  # noqa: E402, F401 - fixtures; findable only from here on
from services import mosquitto, nats, postgres, redis  # noqa: E402, F401 - fixtures; findable only from here on
