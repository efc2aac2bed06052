"""History from files: under a delay rule, once, piece by piece, never over what was measured."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import alignment as al
from ingestion import BatchError, ObservationLog, PayloadError, UnknownArrivalError, create_log
from ingestion.jobs import backfill
from ingestion.jobs.chunks import chunks_of
from ingestion.providers import Contract, Provider
from ingestion.sources.layout import Layout, TimeFormat
from serving.cli import run

MIDNIGHT = datetime(2025, 6, 1, tzinfo=UTC)
SCHEMA = {"meter": pl.String, "load_kw": pl.Float64}


@pytest.fixture
def log(tmp_path: Path) -> ObservationLog:
    return create_log(tmp_path / "logs", "meters", entities=["meter"], schema=SCHEMA)


def history(rows: int, meter: str = "m1") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "meter": [meter] * rows,
            "event_time": [MIDNIGHT + timedelta(hours=hour) for hour in range(rows)],
            "load_kw": [float(hour) for hour in range(rows)],
        }
    )


def written(path: Path, frame: pl.DataFrame) -> Path:
    if path.suffix == ".parquet":
        frame.write_parquet(path, row_group_size=3)
    elif path.suffix == ".csv":
        frame.with_columns(pl.col("event_time").dt.to_string("iso:strict")).write_csv(path)
    else:
        frame.with_columns(pl.col("event_time").dt.to_string("iso:strict")).write_ndjson(path)
    return path


@pytest.mark.parametrize("ending", ["parquet", "csv", "ndjson"])
def test_a_file_is_stored_in_pieces_and_a_second_run_adds_nothing(
    log: ObservationLog, tmp_path: Path, ending: str
) -> None:
    path = written(tmp_path / f"year.{ending}", history(10))
    report = backfill(log, [path], delay="45m", chunk_rows=4)
    assert (report.rows, report.arrival_kind) == (10, "declared")
    stored = log.scan(columns=["load_kw", "batch_id"]).sort("event_time").collect()
    assert stored["load_kw"].to_list() == [float(hour) for hour in range(10)]
    assert stored["batch_id"].n_unique() == 3  # 4 + 4 + 2
    assert (stored["arrival_time"] - stored["event_time"]).unique().to_list() == [timedelta(minutes=45)]
    assert set(stored["arrival_kind"]) == {"declared"}
    again = backfill(log, [path], delay="45m", chunk_rows=4)
    assert (again.rows, again.files[0].records, again.files[0].loaded) == (0, 10, 10)
    assert log.scan().collect().height == 10


def test_a_file_under_another_name_is_the_same_file(log: ObservationLog, tmp_path: Path) -> None:
    path = written(tmp_path / "year.parquet", history(5))
    backfill(log, [path], delay="45m")
    copy = tmp_path / "copy.parquet"
    copy.write_bytes(path.read_bytes())
    assert backfill(log, [copy], delay="90m").files[0].loaded == 5


def test_measured_rows_are_never_overwritten(log: ObservationLog, tmp_path: Path) -> None:
    log.append(history(3).with_columns(load_kw=pl.lit(-1.0)))
    report = backfill(log, [written(tmp_path / "year.parquet", history(5))], delay="45m")
    assert (report.rows, report.files[0].skipped_measured) == (2, 3)
    now = al.snapshot(al.Observations(log), datetime.now(UTC) + timedelta(minutes=1))
    assert now.sort("event_time")["load_kw"].to_list() == [-1.0, -1.0, -1.0, 3.0, 4.0]


def test_measured_rows_are_skipped_where_unchanged_rows_are_dropped_too(tmp_path: Path) -> None:
    log = create_log(tmp_path, "meters", entities=["meter"], schema=SCHEMA, drop_unchanged=True)
    log.append(history(3))
    report = backfill(log, [written(tmp_path / "year.parquet", history(5))], delay="45m")
    assert (report.rows, report.files[0].skipped_measured) == (2, 3)


def test_somebody_must_say_how_late_the_rows_were(log: ObservationLog, tmp_path: Path) -> None:
    with pytest.raises(UnknownArrivalError, match="nothing says how late their rows were"):
        backfill(log, [written(tmp_path / "year.parquet", history(5))])


def declared(**fields: object) -> Provider:
    contract = Contract(columns={"load_kw": {"dtype": "Float64", "min": 0, "max": 8}})
    return Provider(name="meters", entities=("meter",), contract=contract, **fields)


def test_the_declaration_says_how_late_they_were_and_what_they_may_be(tmp_path: Path) -> None:
    provider = declared(history="2h")
    log = provider.open(tmp_path)
    report = backfill(log, [written(tmp_path / "year.csv", history(10))], provider=provider)
    assert (report.rows, report.files[0].quarantined) == (9, 1)
    (reason,) = report.files[0].reasons
    assert "load_kw" in reason
    row = log.quarantine().row(0, named=True)
    assert json.loads(row["payload"])["load_kw"] in (9, 9.0, "9.0")
    assert log.scan().collect()["arrival_time"].min() == MIDNIGHT + timedelta(hours=2)


def test_a_contract_that_refuses_stops_the_run_and_keeps_what_came_before(tmp_path: Path) -> None:
    contract = Contract(columns={"load_kw": {"dtype": "Float64", "max": 5}}, on_broken_row="refuse")
    provider = Provider(name="meters", entities=("meter",), contract=contract, history="45m")
    log = provider.open(tmp_path)
    path = written(tmp_path / "year.parquet", history(10))
    with pytest.raises(BatchError, match="year.parquet: the contract refuses the rows"):
        backfill(log, [path], provider=provider, chunk_rows=4)
    assert log.scan().collect().height == 4


def test_a_layout_names_the_columns_of_files(log: ObservationLog, tmp_path: Path) -> None:
    layout = Layout(
        columns={"meter": "id", "event_time": "at", "load_kw": "kw"},
        times={"event_time": TimeFormat(zone="Europe/Berlin")},
    )
    path = tmp_path / "year.csv"
    path.write_text('id,at,kw,note\nm1,2025-06-01 12:00:00,1.5,"two\nlines, one row"\nm2,2025-06-01 12:00:00,2.5,\n')
    assert backfill(log, [path], delay="45m", layout=layout, chunk_rows=1).rows == 2
    rows = log.scan().collect().sort("meter")
    assert rows["event_time"].to_list() == [datetime(2025, 6, 1, 10, tzinfo=UTC)] * 2
    parquet = tmp_path / "other.parquet"
    pl.DataFrame({"id": ["m3"], "at": [datetime(2025, 6, 1, 12, tzinfo=UTC)], "kw": [3.5]}).write_parquet(parquet)
    assert backfill(log, [parquet], delay="45m", layout=layout).rows == 1


def test_gzip_is_seen_through(log: ObservationLog, tmp_path: Path) -> None:
    plain = written(tmp_path / "year.csv", history(10))
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    seen: list[float] = []
    report = backfill(
        log, [packed], delay="45m", chunk_rows=4, on_progress=lambda _, fraction: seen.append(round(fraction, 2))
    )
    assert report.rows == 10
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_pieces_are_the_same_however_the_row_groups_are_cut(tmp_path: Path) -> None:
    sizes = {}
    for group in (2, 3, 100):
        path = tmp_path / f"{group}.parquet"
        history(10).write_parquet(path, row_group_size=group)
        sizes[group] = [
            chunk.rows()["load_kw"].to_list() for chunk in chunks_of(path, None, provider="m", chunk_rows=4)
        ]
    assert sizes[2] == sizes[3] == sizes[100]
    assert [len(piece) for piece in sizes[2]] == [4, 4, 2]


def test_a_file_that_is_cut_off_stops_the_run_and_a_whole_one_goes_on(log: ObservationLog, tmp_path: Path) -> None:
    path = tmp_path / "year.parquet"
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(PayloadError, match="not Parquet"):
        backfill(log, [path], delay="45m")
    assert backfill(log, [written(path, history(2))], delay="45m").rows == 2


def test_a_dry_run_says_what_would_be_stored(log: ObservationLog, tmp_path: Path) -> None:
    log.append(history(3))
    before = log.position()
    report = backfill(log, [written(tmp_path / "year.parquet", history(5))], delay="45m", dry_run=True)
    assert (report.rows, report.files[0].skipped_measured, log.position()) == (2, 3, before)
    assert str(report).splitlines()[0].startswith("meters: 2 of 5 rows would be stored from 1 files as declared")


def test_the_command_loads_under_a_fixed_delay_and_under_a_schedule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tmp_path / "logs")
    log = create_log(root, "meters", entities=["meter"], schema=SCHEMA)
    first = str(written(tmp_path / "a.parquet", history(2)))
    second = str(written(tmp_path / "b.parquet", history(2, "m2")))
    assert run(["backfill", "meters", first, "--root", root, "--delay", "45m", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 2
    assert log.position() == -1
    assert run(["backfill", "meters", first, "--root", root, "--delay", "45m"]) == 0
    assert run(["backfill", "meters", second, "--root", root, "--delay", "06:00 Europe/Berlin +2d"]) == 0
    arrivals = log.scan().collect().group_by("meter").agg(pl.col("arrival_time").min()).sort("meter")
    # the first event is 02:00 of June 1 in Berlin; two days on, 06:00 there is 04:00 UTC
    assert arrivals["arrival_time"].to_list() == [
        MIDNIGHT + timedelta(minutes=45),
        datetime(2025, 6, 3, 4, tzinfo=UTC),
    ]
    capsys.readouterr()
    assert run(["backfill", "meters", first, "--root", root, "--delay", "soon"]) == 2
    assert run(["backfill", "meters", first, "--root", root]) == 2
    assert run(["backfill", "meters", str(tmp_path / "none.csv"), "--root", root, "--delay", "45m"]) == 3
    assert run(["backfill", "meters", first, "--delay", "45m"]) == 2


def test_the_command_takes_root_delay_layout_and_contract_from_a_declaration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "providers.yaml").write_text(
        "root: logs\nproviders:\n  meters:\n    entities: [meter]\n    history: 45m\n"
        "    contract: {columns: {load_kw: {dtype: Float64, max: 3}}}\n"
    )
    path = str(written(tmp_path / "a.csv", history(5)))
    declaration = str(tmp_path / "providers.yaml")
    assert run(["backfill", "meters", path, "--providers", declaration, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["quarantined"] == 1
    assert not (tmp_path / "logs").exists()
    assert run(["backfill", "meters", path, "--providers", declaration]) == 0
    assert capsys.readouterr().out.startswith("meters: 4 of 5 rows stored from 1 files as declared")


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize("block", [1, 1 << 20])
def test_rows_of_history_that_lack_columns_leave_them_as_they_are(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dry: bool,
    block: int,
) -> None:
    monkeypatch.setattr("ingestion.jobs.chunks.BLOCK_BYTES", block)
    contract = Contract(columns={"load_kw": "Float64", "wind": "Float64"}, updates="columns")
    declared = Provider(name="meters", entities=("meter",), contract=contract)
    key = {"meter": "m1", "event_time": MIDNIGHT.isoformat()}
    rows = [{**key, "load_kw": 1, "wind": 9}, {**key, "load_kw": 2}, {**key, "wind": None}]
    path = tmp_path / "year.ndjson"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    log = declared.open(tmp_path / "logs")
    report = backfill(log, [path], delay="45m", provider=declared, layout=Layout(format="ndjson"), dry_run=dry)
    assert report.rows == 3
    stored = log.scan().sort("log_sequence").collect().select("load_kw", "wind").rows()
    assert stored == ([] if dry else [(1.0, 9.0), (2.0, 9.0), (2.0, None)])
