"""The faults of the mutation run are still faults: each one's text is in the source exactly once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from faults import FAULTS, place_of


def test_there_are_enough_of_them_and_no_two_are_the_same():
    assert len(FAULTS) >= 30
    assert len({(fault.old, fault.new) for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_the_text_of_a_fault_is_in_the_source_once(fault):
    source = place_of(fault).read_text()
    assert source.count(fault.old) == 1
    compile(source.replace(fault.old, fault.new), str(place_of(fault)), "exec")
