"""What a real store refuses is said, with what to do about it: in Python and on the command line, and no secret, mark-up or waiting."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from object_store import SECRET, ObjectStore

import alignment as al
from ingestion import StoreError, create_log, list_logs, open_log
from serving.cli import UNREACHABLE, run

NOISE = ("\x1b", "<", "RequestId", "tx0", "Generic", "Server returned", SECRET, SECRET[::-1])


@pytest.fixture
def bucket(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in object_store.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{object_store.bucket()}"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"bucket": "s3://nosuchbucket"}, "no such bucket"),
        ({"AWS_SECRET_ACCESS_KEY": SECRET[::-1]}, "wrong keys"),
        ({"AWS_ACCESS_KEY_ID": "AKIANOBODY"}, "wrong keys"),
        ({"AWS_ALLOW_HTTP": "false"}, "plain http"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_store_refuses_is_said_at_once(
    changed: dict[str, str],
    reason: str,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    place = changed.pop("bucket", bucket)
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    waits: list[float] = []
    monkeypatch.setattr("alignment.location.time.sleep", waits.append)
    for ask in (
        lambda: open_log(f"{place}/logs", "mast"),
        lambda: create_log(f"{place}/logs", "mast", entities=[]),
        lambda: list_logs(f"{place}/logs"),
    ):
        with pytest.raises(StoreError) as caught:
            ask()
        assert caught.value.reason == reason
        assert caught.value.__cause__ is not None
        assert not [noise for noise in NOISE if noise in str(caught.value)]
    assert waits == []
    pl.DataFrame({"station": ["a"]}).write_parquet(tmp_path / "rows.parquet")
    for words in (
        ("log", "info", f"{place}/logs", "mast"),
        ("log", "append", f"{place}/logs", "mast", str(tmp_path / "rows.parquet"), "--entities", "station"),
    ):
        assert run(words) == UNREACHABLE
        told = capfd.readouterr()
        assert told.err.startswith("StoreError: the store of ")
        assert "\nhint: " in told.err
        assert not [noise for noise in NOISE if noise in told.out + told.err]


def test_a_frame_in_a_bucket_that_is_not_there_is_missed_by_name(bucket: str) -> None:
    for address, kind, text in (
        (f"{bucket}/none.parquet", al.MissingFileError, f"there is no Parquet file at '{bucket}/none.parquet'"),
        ("s3://nosuchbucket/none.parquet", al.StoreError, "has no bucket 'nosuchbucket'"),
    ):
        with pytest.raises(kind) as caught:
            al.FeatureView("mast", ["station"], address, [al.latest("temp")])
        assert text in str(caught.value)
        assert not [noise for noise in NOISE if noise in str(caught.value)]
