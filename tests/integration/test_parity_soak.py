"""Parity: what servers answer while providers send, correct, withdraw, load history and fall silent is what training says."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import parity
import pytest

FULL_COUNT = 1_000_000

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")


def show(outcome: parity.Outcome) -> None:
    report = outcome.report
    print(
        f"{report.vectors:,} vectors, {report.values:,} values at {report.positions:,} positions in"
        f" {report.evaluations} joins; {report.differences} differences; {report.head_differences:,} at the head,"
        f" {report.unexplained} without a row behind them, {report.late.height:,} late rows;"
        f" {outcome.kills} kills; {dict(outcome.statuses)}; log rows {outcome.rows}; seconds {outcome.seconds}"
    )
    print(report.late.group_by("provider", "why").len().sort("provider", "why"))


def test_some_thousand_vectors_are_what_training_says(tmp_path: Path) -> None:
    outcome = parity.run(tmp_path / "logs", vectors=4_000, replicas=1, lived=5.0, kills=1)
    show(outcome)
    parity.check(outcome, 4_000)


@pytest.mark.soak
def test_a_million_vectors_are_what_training_says(tmp_path: Path) -> None:
    vectors = max(20_000, round(FULL_COUNT * float(os.environ.get("ASKNOWN_SOAK", "1"))))
    outcome = parity.run(tmp_path / "logs", vectors=vectors, replicas=2, kills=2)
    show(outcome)
    parity.check(outcome, vectors)
    assert set(outcome.statuses) == {"present", "null", "expired", "retracted", "missing"}
    assert outcome.report.head_differences > 0
    assert set(outcome.report.late["why"]) >= {"backfill"}
    assert outcome.replicas == {"replica-0", "replica-1"}
