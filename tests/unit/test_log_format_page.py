"""The page about the log's format names the columns and records that a log has, and what is null in which."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

import ingestion
from ingestion.append import _confirm

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "log-format.md"
START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
EVERYWHERE = {"log_sequence", "batch_id", "record_kind"}


def table_of(head: str) -> list[list[str]]:
    """The cells of the table of the page whose first heading is this."""
    text = PAGE.read_text(encoding="utf-8").split(f"| {head} |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def a_log_with_all_kinds(root: Path) -> ingestion.ObservationLog:
    """A forecast log in which every kind of record was made."""
    log = ingestion.create_log(
        root,
        "wind",
        entities=["site"],
        kind="forecast",
        key=["run"],
        schema={"site": pl.String, "run": pl.String, "speed": pl.Float64},
        retention="2d",
        publish_margin="1ms",
        clock=lambda: START + 2 * HOUR,
    )

    def rows(*sites: str | None, day: int = 0) -> pl.DataFrame:
        issue = START - day * 24 * HOUR
        frame = pl.DataFrame({"site": sites, "run": "r", "speed": 1.0, "issue_time": issue, "published_time": issue})
        return frame.with_columns(event_time=issue + HOUR, received_time=issue, is_retraction=None)

    started = {"source": "test", "started": START, "ended": START}
    log.append(rows("a", "gone"), batch_id="1", poll=ingestion.Poll(**started, outcome="rows"))
    log.append(rows("old", day=9).drop("received_time", "published_time", "is_retraction"), batch_id="2")
    withdrawal = pl.DataFrame({"site": ["a"], "run": ["r"], "is_retraction": True})
    empty = {name: pl.lit(None, pl.Datetime("us", "UTC")) for name in ("event_time", "issue_time")}
    log.append(withdrawal.with_columns(**empty), batch_id="3")
    bad = rows("a", "a", None)
    log.append(bad, batch_id="4", reasons=pl.Series(["too fast", None, None]))
    log.append(rows(None).with_columns(speed=2.0), batch_id="5")
    log.record_poll(ingestion.Poll(**started, outcome="failed", error="no answer"))
    open_rows = log.quarantine()["log_sequence"]
    ingestion.release_quarantined(log, [open_rows[1]], changes={"site": "b"})
    ingestion.drop_quarantined(log, [open_rows[2]], why="a test")
    micros = int((START + 3 * HOUR).timestamp() * 1_000_000)
    _confirm(log.table, "1", micros - 1, micros)  # as when the commit was confirmed late
    log.retire()
    log.erase({"site": "gone"})
    return log


def test_the_page_says_what_a_log_stores(tmp_path: Path) -> None:
    log = a_log_with_all_kinds(tmp_path)
    table = log.table
    table.refresh()
    own = {"site", "run", "speed"}
    columns = table_of("column")
    stored = {field.name: str(field.type.type) for field in table.delta.schema().fields if field.name not in own}
    assert {name.strip("`"): kind for name, kind, _ in columns} == stored
    files = table.files()["path"].to_list()
    raw = pl.concat([pl.read_parquet(table.address_of(path)) for path in files], how="diagonal")
    kinds = table_of("`record_kind` | what it records | has | may have")
    assert {kind.strip("`") for kind, *_ in kinds} == set(raw["record_kind"])
    for kind, _, has, may_have in kinds:
        rows = raw.filter(record_kind=kind.strip("`"))
        filled = {name for name in rows.columns if rows[name].null_count() < rows.height}
        whole = {name for name in rows.columns if rows[name].null_count() == 0}
        has_names, may_names = names_in(has) | EVERYWHERE, names_in(may_have)
        assert has_names <= whole, kind
        assert filled <= has_names | may_names, kind
        assert may_names <= filled, kind


def names_in(cell: str) -> set[str]:
    """The columns that a cell speaks of."""
    words = {"entities": "site", "ids": "run", "values": "speed"}
    return set(re.findall(r"`([a-z_]+)`", cell)) | {name for word, name in words.items() if word in cell}


def test_renamed_and_widened_columns_have_one_name_and_type_in_every_file(tmp_path: Path) -> None:
    log = ingestion.create_log(tmp_path, "mast", entities=["site"], schema={"site": pl.String, "n": pl.Int8})
    frame = pl.DataFrame(
        {"site": ["a"], "event_time": START, "arrival_time": START, "n": 1}, schema_overrides={"n": pl.Int8}
    )
    log.append(frame)
    log.add_column("later", pl.Float64)
    log.rename_column("n", "number")
    log.widen_column("number", pl.Int32)
    log.append(frame.rename({"n": "number"}).with_columns(later=2.0))
    table = log.table
    table.refresh()
    for path in table.files()["path"]:
        schema = pl.read_parquet_schema(table.address_of(path))
        assert (schema["number"], schema["later"]) == (pl.Int32, pl.Float64)
        assert "n" not in schema
    metadata = {field.name: field.metadata for field in table.delta.schema().fields}
    assert metadata["number"] == {"asknown.since": "0", "asknown.type": "Int32", "asknown.aliases": '["n"]'}
    assert metadata["later"]["asknown.since"] == "1"
