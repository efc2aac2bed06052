"""Brokers that are never reached: the ledger and the status tell, and say which address."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from jobs_process import asknown, running
from services import free_port

import ingestion
from ingestion import Poll
from ingestion.jobs import status_of
from ingestion.providers import Provider


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("nats", '{{kind: nats, servers: ["nats://127.0.0.1:{port}"], stream: ROWS}}'),
        ("mqtt", '{{kind: mqtt, port: {port}, topic: "rows/#"}}'),
        ("nats", "{{kind: nats, stream: ROWS, user_env: NOBODY_SET, password_env: NOBODY_SET}}"),
    ],
)
def test_a_broker_that_is_never_reached_is_failing(tmp_path: Path, kind: str, source: str) -> None:
    port = free_port()
    said = "NOBODY_SET is not set" if "NOBODY" in source else f"{kind}://127.0.0.1:{port}: "
    (tmp_path / "asknown.yaml").write_text(
        f"root: logs\nproviders:\n  far: {{entities: [station], source: {source.format(port=port)}}}\n"
    )

    def polls() -> pl.DataFrame:
        try:
            return ingestion.open_log(tmp_path / "logs", "far").polls()
        except ingestion.LogNotFoundError:
            return pl.DataFrame()

    with running(tmp_path) as job:
        job.until(lambda: polls().height > 0)
        told = [line for line in job.lines() if line["event"] in {"not consuming", "not reached"}]
        assert said in told[0]["problem"]
        assert "None" not in told[0]["problem"]
        job.until(lambda: len([line for line in job.lines() if line["event"].startswith("not ")]) > (kind == "mqtt"))
    found = polls()
    assert (found.height, found["outcome"][0], found["source"][0]) == (1, "failed", kind)
    assert said in found["error"][0]
    (status,) = json.loads(asknown(tmp_path, "status", "--json").stdout)
    assert (status["state"], status["failures"]) == ("failing", 1)


def test_a_log_in_which_nothing_has_come_is_not_well_but_waits(tmp_path: Path) -> None:
    provider = Provider(name="new", entities=("station",))
    log = provider.open(tmp_path)
    now = ingestion.system_clock()
    assert status_of(provider, str(tmp_path), now=now).state == "waiting"
    log.record_poll(Poll(source="http", started=now, ended=now, outcome="empty"))
    assert status_of(provider, str(tmp_path), now=now).state == "ok"
