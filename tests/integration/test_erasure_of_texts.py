"""An erasure also reaches what has no columns: payloads without a key, the ledger's texts, and what waits in the spool."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ingestion import ObservationLog, create_log, open_log
from ingestion.ledger import Part, Poll
from ingestion.naming import Names
from ingestion.providers import Provider
from ingestion.spool import Flusher, Header, LogSink, Record, Spool, SpoolPlace
from ingestion.spool.frames import encode, mark_of
from serving.cli import run

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Hands:
    """A clock that goes on by a second when it is read."""

    now = NOON

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
def log(tmp_path: Path) -> ObservationLog:
    schema = {"person": pl.String, "steps": pl.Int64}
    log = create_log(tmp_path / "logs", "visits", entities=["person"], schema=schema, clock=Hands())
    log.append(rows(("alice", 1), ("bob", 2)))
    return log


def rows(*values: tuple[str | None, int]) -> pl.DataFrame:
    frame = pl.DataFrame(values, schema={"person": pl.String, "steps": pl.Int64}, orient="row")
    return frame.with_columns(event_time=pl.lit(NOON - timedelta(hours=1)))


def poll(outcome: str = "rows", **more: object) -> Poll:
    return Poll(source="files", started=NOON, ended=NOON, outcome=outcome, **more)  # type: ignore[arg-type]


def files_with(folder: Path, text: str) -> list[Path]:
    """Files that hold a text, Parquet files by their values."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            held = (
                str(pl.read_parquet(path).rows()) if path.suffix == ".parquet" else path.read_bytes().decode("latin-1")
            )
            found += [path] if text in held else []
    return found


def held(log: ObservationLog, entity: dict[str, object]) -> dict[str, int]:
    return {holding.place: holding.rows for holding in log.erase(entity).holdings}


# ---------------------------------------------------------------------------------------------------------- quarantine


def test_what_could_not_be_parsed_is_erased_if_it_names_the_entity(log: ObservationLog, tmp_path: Path) -> None:
    aside = [
        ("cannot be parsed: cut off", '{"person":"alice","steps":'),
        ("cannot be parsed: cut off", '{"person":"al\\u0069ce","steps":'),
        ("cannot be parsed: cut off", '{"person":"alicette","steps":'),
        ("refused", [{"person": "alice", "steps": 1}, {"person": "bob", "steps": 2}]),
        ("cannot be parsed: alice.csv has no rows", "\x00"),
    ]
    log.record_poll(poll("refused"), aside=aside)
    log.append(rows((None, 3)).with_columns(note=pl.lit("alice")), evolve=True)  # its key is null, its note is not
    before = log.scan().collect().sort("log_sequence")
    assert held(log, {"person": "alice"}) == {"log": 1, "quarantine": 4, "records": 1}
    left = open_log(tmp_path / "logs", "visits").quarantine()
    # alicette is somebody else; of the fifth only the reason named alice, what came stays
    assert left["payload"].to_list() == ['{"person":"alicette","steps":', "\x00"]
    assert left["reason"][1] == "cannot be parsed: [erased].csv has no rows"
    assert files_with(tmp_path, "alice.csv") == []
    after = log.scan().collect().sort("log_sequence")
    assert after.equals(before.filter(pl.col("person") != "alice"))  # the others keep their positions
    assert held(log, {"person": "alice"}) == {}


def test_a_quarantined_row_of_another_entity_stays(log: ObservationLog) -> None:
    bad = rows(("bob", 3)).with_columns(note=pl.lit("with alice"))
    log.append(bad, evolve=True, reasons=pl.Series(["bad"]))
    assert held(log, {"person": "alice"}) == {"log": 1}
    assert log.quarantine().height == 1


def test_bytes_are_looked_into(log: ObservationLog) -> None:
    table = io.BytesIO()
    rows(("alice", 1)).write_ipc_stream(table)
    log.record_poll(poll("refused"), aside=[("refused", table.getvalue().hex())])
    assert held(log, {"person": "alice"}) == {"log": 1, "quarantine": 1}


def test_numbers_are_numbers_and_the_command_line_may_write_them(tmp_path: Path) -> None:
    log = create_log(
        tmp_path, "visits", entities=["person"], schema={"person": pl.Int64, "steps": pl.Int64}, clock=Hands()
    )
    log.append(pl.DataFrame({"person": [17, 1], "event_time": [NOON - timedelta(hours=1)] * 2, "steps": [1, 17]}))
    aside = [
        ("cut off", '{"person":17,"at":'),
        ("cut off", '{"person":1,"at":"2026-01-17"'),
        ("refused", {"person": 17.0}),
    ]
    log.record_poll(poll("refused"), aside=aside)
    assert run(["log", "erase", str(tmp_path), "visits", "person=17", "--yes"]) == 0
    assert log.quarantine()["payload"].to_list() == ['{"person":1,"at":"2026-01-17"']
    assert log.scan().collect()["person"].to_list() == [1]


def test_a_log_that_knows_no_columns_yet_can_be_erased_from(tmp_path: Path) -> None:
    log = create_log(tmp_path, "visits", entities=["person"], clock=Hands())
    log.record_poll(poll("refused"), aside=[("cut off", '{"person":"alice"')])
    assert held(log, {"person": "alice"}) == {"quarantine": 1}
    assert log.quarantine().is_empty()


# -------------------------------------------------------------------------------------------------------------- ledger


def test_texts_of_polls_lose_the_entity_and_keep_their_place(log: ObservationLog, tmp_path: Path) -> None:
    log.append(
        rows(("bob", 4)), poll=poll(notes=("new category: 'alice'",), version="alice-1", cursor={"after": "alice"})
    )
    log.record_poll(poll("failed", error="cannot read alice.csv"))
    log.record_poll(poll("empty", parts=(Part(label="bob.csv", version="1-2"),)))
    before = log.polls()
    report = log.erase({"person": "alice"})
    assert {holding.place: holding.rows for holding in report.holdings} == {"log": 1, "records": 2}
    assert report.complete  # the cursor was not the last one
    after = open_log(tmp_path / "logs", "visits").polls()
    assert after["notes"][0].to_list() == ["new category: '[erased]'"]
    assert (after["version"][0], after["error"][1]) == ("[erased]-1", "cannot read [erased].csv")
    changed = ["notes", "version", "error", "cursor"]
    assert after.drop(changed).equals(before.drop(changed))
    assert log.progress(seen=True).seen == {"bob.csv": "1-2"}
    assert files_with(tmp_path, "alice") == []


def test_a_cursor_that_is_needed_stays_and_the_report_says_so(log: ObservationLog) -> None:
    log.record_poll(poll("empty", cursor={"after": "alice"}, parts=(Part(label="alice.csv", version="1-2"),)))
    report = log.erase({"person": "alice"})
    assert not report.complete
    assert "the last poll's cursor contains the value" in str(report)
    assert "files whose names contained the value are read again" in str(report)
    assert log.progress(seen=True).cursor == {"after": "alice"}
    assert log.progress(seen=True).seen == {"[erased].csv": "1-2"}


# --------------------------------------------------------------------------------------------------------------- spool


def spooled(person: str | None, steps: int = 1, *, offset: int | None = None, **more: object) -> Record:
    header = Header(
        provider="visits",
        source="push",
        received_us=int(NOON.timestamp()) * 10**6,
        rows=1,
        offset=offset,
        **more,  # type: ignore[arg-type]
    )
    return Record(header, line(person, steps))


def line(person: str | None, steps: int) -> bytes:
    return json.dumps({"person": person, "event_time": "2026-03-01T10:00:00Z", "steps": steps}).encode()


def spool_of(log: ObservationLog) -> Spool:
    return Spool(Path(log.root) / "_job" / "spool", clock=lambda: NOON)


def flush(spool: Spool, log: ObservationLog) -> list[tuple[str, int]]:
    contract = {"columns": {"person": "String", "steps": "Int64"}}
    declared = {"name": "visits", "entities": ["person"], "source": {"kind": "push"}, "contract": contract}
    provider = Provider.model_validate(declared)
    Flusher(spool, lambda _name: LogSink(provider, log)).flush()
    return log.scan().sort("log_sequence").collect().select("person", "steps").rows()


def test_what_waits_in_the_spool_does_not_come_back(log: ObservationLog) -> None:
    two = Header(provider="visits", source="push", received_us=1, rows=2)
    with spool_of(log) as spool:
        spool.put(spooled("alice", 10)).result()
        spool.put(Record(two, line("alice", 11) + b"\n" + line("bob", 12))).result()
        spool.put_all([spooled("alice", 13), spooled("bob", 14)]).result()
        spool.put(
            Record(Header(provider="visits", source="push", received_us=1, rows=0, form="raw"), b'{"person":"alice"')
        )
    report = log.erase({"person": "alice"})
    assert report.complete
    assert {holding.place: holding.rows for holding in report.holdings} == {"log": 1, "spool": 4}
    with spool_of(log) as spool:
        assert spool.usage().records == 5
        assert flush(spool, log) == [("bob", 2), ("bob", 12), ("bob", 14)]
    assert log.quarantine().is_empty()


def test_other_providers_rows_in_the_spool_are_theirs(log: ObservationLog) -> None:
    other = Record(Header(provider="other", source="push", received_us=1, rows=1), line("alice", 15))
    with spool_of(log) as spool:
        spool.put(other).result()
    assert held(log, {"person": "alice"}) == {"log": 1}
    with spool_of(log) as spool:
        assert spool.read(spool.sealed()[0]) == [other]


def test_what_was_confirmed_stays_confirmed(log: ObservationLog) -> None:
    with spool_of(log) as spool:
        spool.put(spooled("alice", offset=7)).result()
        spool.put(spooled("alice", key="request-1", digest="d")).result()
    log.erase({"person": "alice"})
    with spool_of(log) as spool:
        assert spool.put(spooled("alice", key="request-1", digest="d")).result().repeated
        assert flush(spool, log) == [("bob", 2)]
    assert log.progress().cursor == {"epoch": 0, "offset": 7}  # a broker does not send it again


def test_keys_and_damaged_pieces_that_name_the_entity_go(log: ObservationLog) -> None:
    with spool_of(log) as spool:
        for key in ("alice/1", "bob/1"):
            spool.put(spooled("bob", 20, key=key)).result()
        flush(spool, log)
        spool.put(spooled("bob", 21, key="alice/2", label="visits/alice")).result()
        name = next(path.stem for path in spool.folder.glob("*.wal"))
    broken = bytearray(mark_of(name) + encode(spooled("alice")))
    broken[-1] ^= 1
    path = spool.folder / f"{name}.wal"
    path.write_bytes(path.read_bytes() + broken)
    assert log.erase({"person": "alice"}).complete
    assert files_with(spool.folder, "alice") == []
    with spool_of(log) as spool:
        assert spool.knows("push", "visits", "bob/1")
        assert not spool.knows("push", "visits", "alice/1")


@pytest.mark.parametrize("form", ["json", "stream", "file", "parquet", "csv"])
def test_documents_lose_the_rows_of_the_entity(log: ObservationLog, form: str) -> None:
    frame, buffer = rows(("alice", 1), ("bob", 2)), io.BytesIO()
    if form == "json":
        buffer.write(json.dumps({"meta": {}, "rows": [{"person": "alice"}, {"person": "bob"}]}).encode())
    elif form == "csv":
        frame.write_csv(buffer)
    elif form == "stream":
        frame.write_ipc_stream(buffer)
    elif form == "file":
        frame.write_ipc(buffer)
    else:
        frame.write_parquet(buffer)
    header = Header(provider="visits", source="push", received_us=1, rows=2, form="document", media_type="x/y")
    with spool_of(log) as spool:
        spool.put(Record(header, buffer.getvalue())).result()
    log.erase({"person": "alice"})
    with spool_of(log) as spool:
        (record,) = spool.read(spool.sealed()[0])
    names = Names({"person": "alice"}), Names({"person": "bob"})
    # what cannot be taken apart goes whole
    assert [name.content(record.payload) for name in names] == [False, form != "csv"]
    assert record.header.rows == (0 if form == "csv" else 1)


def test_a_running_job_makes_an_erasure_incomplete_if_something_waits(log: ObservationLog) -> None:
    with spool_of(log) as spool:
        assert log.erase({"person": "alice"}).complete  # nothing waits: nothing can come back
        spool.put(spooled("alice", 30)).result()
        report = log.erase({"person": "alice"})
        assert not report.complete
        assert "something of the entity is in it Let the job store what waits, or stop it; then erase again." in str(
            report
        )
        assert flush(spool, log) == [("bob", 2), ("alice", 30)]
        assert log.erase({"person": "alice"}).complete


def test_the_command_line_finds_a_spool_elsewhere(
    log: ObservationLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Spool(tmp_path / "state" / "spool") as spool:
        spool.put(spooled("alice")).result()
    arguments = ["log", "erase", log.root, "visits", "person=alice", "--state", str(tmp_path / "state"), "--json"]
    assert run([*arguments, "--dry-run"]) == 0
    assert [(row["place"], row["rows"]) for row in json.loads(capsys.readouterr().out)] == [("log", 1), ("spool", 1)]
    assert run([*arguments, "--yes"]) == 0
    assert SpoolPlace(spool.folder).count("visits", {"person": "alice"}) == 0
