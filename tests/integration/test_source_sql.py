"""Reading databases on from where the last reading stopped: SQLite always, PostgreSQL as a real server."""

from __future__ import annotations

import io
import json
import logging
import sqlite3
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
from services import Server, free_port

from ingestion.errors import PayloadError, SourceError
from ingestion.sources.base import Fetched, Progress
from ingestion.sources.sql import Sql, SqlSource

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


OPEN: list[Sql] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """All sources that a test opened are closed after it."""
    yield
    while OPEN:
        OPEN.pop().close()


def opened(settings: dict[str, Any], environment: dict[str, str]) -> Sql:
    OPEN.append(SqlSource.model_validate(settings).open("meter", environment, clock=lambda: NOON))
    return OPEN[-1]


def fetch(source: Sql, cursor: dict[str, Any] | None = None) -> Fetched:
    # As the ledger keeps it: through JSON.
    return source.fetch(Progress(cursor=json.loads(json.dumps(cursor))), now=NOON)


def read_all(source: Sql, cursor: dict[str, Any] | None = None) -> tuple[list[pl.DataFrame], dict[str, Any] | None]:
    """Batch after batch until there is no more, and the last cursor."""
    batches = []
    while True:
        fetched = fetch(source, cursor)
        batches += [source.parse(payload) for payload in fetched.payloads]
        cursor = fetched.cursor or cursor
        if not fetched.more:
            return batches, cursor


# ---- SQLite ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "meters.db", isolation_level=None)
    connection.execute("CREATE TABLE load (id INTEGER, plant TEXT, at TEXT, kw REAL)")
    yield connection
    connection.close()


def insert(connection: sqlite3.Connection, *ids: int, plant: str = "north") -> None:
    rows = [(i, plant, (NOON + timedelta(minutes=i)).isoformat(), i / 2) for i in ids]
    connection.executemany("INSERT INTO load VALUES (?, ?, ?, ?)", rows)


def reading(tmp_path: Path, **settings: Any) -> Sql:
    settings = {"url": f"sqlite:///{tmp_path / 'meters.db'}", "table": "load", "cursor_column": "id", **settings}
    return opened(settings, {})


def test_only_what_came_after_is_read(lite: sqlite3.Connection, tmp_path: Path) -> None:
    insert(lite, 2, 1)
    source = reading(tmp_path, layout={"columns": {"plant": "plant", "event_time": "at", "load_kw": "kw"}})
    first = fetch(source)
    assert source.parse(first.payloads[0]).to_dicts() == [
        {"plant": "north", "event_time": NOON + timedelta(minutes=1), "load_kw": 0.5},
        {"plant": "north", "event_time": NOON + timedelta(minutes=2), "load_kw": 1.0},
    ]
    assert first.cursor == {"by": ["id"], "at": [{"type": "int", "value": 2}], "more": False}
    assert (first.payloads[0].label, first.version) == (f"sqlite:///{tmp_path / 'meters.db'} load", "2 rows")
    nothing = fetch(source, first.cursor)
    assert (nothing.payloads, nothing.cursor) == ((), None)
    insert(lite, 3)
    (second,), _ = read_all(source, first.cursor)
    assert second["id" if "id" in second.columns else "load_kw"].to_list() == [1.5]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_ties_that_are_null_come_last_and_stop_nothing(lite: sqlite3.Connection, tmp_path: Path, size: int) -> None:
    rows = [(n, plant, NOON.isoformat(), kw) for n in (1, 2) for plant in ("a", None) for kw in (0.5, None)]
    lite.executemany("INSERT INTO load VALUES (?, ?, ?, ?)", rows)
    batches, cursor = read_all(reading(tmp_path, tie_columns=["plant", "kw"], batch_rows=size))
    found = [row for batch in batches for row in batch.select("id", "plant", "kw").rows()]
    assert found == [(n, plant, kw) for n, plant, _, kw in rows]
    insert(lite, 2, 3)
    read_on, _ = read_all(reading(tmp_path, tie_columns=["plant", "kw"], batch_rows=size), cursor)
    assert [batch["id"].to_list() for batch in read_on] == [[3]]  # what comes before the null is not looked for again


def test_rows_that_have_no_place_are_told(lite: sqlite3.Connection, tmp_path: Path) -> None:
    insert(lite, 1)
    source = reading(tmp_path)
    assert fetch(source).notes == ()
    lite.execute("INSERT INTO load VALUES (NULL, 'north', ?, 1.0)", (NOON.isoformat(),))
    told = ("rows whose id is null are never read; choose a cursor_column without nulls",)
    assert fetch(source).notes == told
    assert fetch(source, fetch(source).cursor).notes == told


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_batches_tear_nothing_apart(lite: sqlite3.Connection, tmp_path: Path, size: int) -> None:
    for number in range(7):
        insert(lite, number, plant="north")
        insert(lite, number, plant="south")
    source = reading(tmp_path, tie_columns=["plant"], batch_rows=size)
    batches, _ = read_all(source)
    rows = [row for batch in batches for row in batch.select("id", "plant").rows()]
    assert rows == [(number, plant) for number in range(7) for plant in ("north", "south")]
    assert all(batch.height <= size for batch in batches)


def test_rows_of_one_place_stay_together_without_a_tie_column(lite: sqlite3.Connection, tmp_path: Path) -> None:
    insert(lite, 1, 2, 2, 3, 3, 4)
    batches, _ = read_all(reading(tmp_path, batch_rows=2))
    assert [batch["id"].to_list() for batch in batches] == [[1], [2, 2], [3, 3], [4]]
    insert(lite, 2)
    with pytest.raises(SourceError) as caught:
        read_all(reading(tmp_path, batch_rows=2))
    assert str(caught.value) == (
        f"provider 'meter': sqlite:///{tmp_path / 'meters.db'} load: more than 2 rows have id = 2\n\n"
        "hint: name tie_columns that tell them apart, or raise batch_rows."
    )


def test_late_rows_are_found_by_looking_back(lite: sqlite3.Connection, tmp_path: Path) -> None:
    insert(lite, 10, 20)
    source = reading(tmp_path, overlap=5, batch_rows=2)
    _, cursor = read_all(source)
    insert(lite, 17, 14, 21, 22)  # 14 is later than we look back
    batches, cursor = read_all(source, cursor)
    assert [row for batch in batches for row in batch["id"]] == [17, 20, 21, 22]
    strict = reading(tmp_path)
    assert [batch["id"].to_list() for batch in read_all(strict, cursor)[0]] == []


def test_a_query_is_read_like_a_table(lite: sqlite3.Connection, tmp_path: Path) -> None:
    insert(lite, 1, 2, 3)
    query = "SELECT id AS number, kw, ':x' AS odd, 50 % 3 AS two FROM load -- all of them;"
    with pytest.raises(ValueError, match="query must be one statement"):
        reading(tmp_path, table=None, query=query + " ; DROP TABLE load")
    source = reading(tmp_path, table=None, query=query, cursor_column="number", start=1)
    (frame,), _ = read_all(source)
    assert frame.to_dicts() == [
        {"number": 2, "kw": 1.0, "odd": ":x", "two": 2},
        {"number": 3, "kw": 1.5, "odd": ":x", "two": 2},
    ]


def test_without_a_cursor_column_everything_is_read(lite: sqlite3.Connection, tmp_path: Path) -> None:
    insert(lite, 1, 2)
    source = reading(tmp_path, cursor_column=None)
    for _ in range(2):
        (frame,), cursor = read_all(source)
        assert (frame.height, cursor) == (2, None)


def test_texts_order_rows_too(lite: sqlite3.Connection, tmp_path: Path) -> None:
    insert(lite, 1, 2, 3)
    source = reading(tmp_path, cursor_column="at", start="2025-06-01T12:01:00+00:00", layout={"text": ["at"]})
    batches, cursor = read_all(source)
    assert [batch["id"].to_list() for batch in batches] == [[2, 3]]
    assert cursor is not None
    assert cursor["at"] == [{"type": "text", "value": "2025-06-01T12:03:00+00:00"}]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"table": "gone"}, "no such table: gone"),
        ({"cursor_column": "gone"}, "no such column: gone"),
        ({"cursor_column": "Gone"}, "there is no column 'Gone'"),  # in quotes, which SQLite takes for a text
        ({"layout": {"columns": {"load_kw": "kwh"}}}, r"'kwh' \(for load_kw\)\n\nhint: did you mean 'kw'"),
        ({"url": "sqlite:////nowhere/x.db"}, "there is no such database"),
        ({"table": None, "query": "SELECT nonsense"}, "no such column: nonsense"),
        ({"cursor_column": "at", "overlap": 5}, "overlap is a number, but the cursor column holds str"),
    ],
)
def test_what_cannot_be_read_says_why(
    lite: sqlite3.Connection, tmp_path: Path, settings: dict[str, Any], problem: str
) -> None:
    lite.execute("INSERT INTO load VALUES (1, NULL, '2025-06-01T12:00Z', 1.0)")
    source = reading(tmp_path, **settings)
    with pytest.raises(SourceError, match=problem):
        fetch(source, fetch(source).cursor)


def test_a_row_without_a_cursor_value_is_never_new(lite: sqlite3.Connection, tmp_path: Path) -> None:
    lite.execute("INSERT INTO load VALUES (NULL, 'north', '', 1.0)")
    insert(lite, 1)
    assert [batch["id"].to_list() for batch in read_all(reading(tmp_path))[0]] == [[1]]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"url": "postgresql://ann:s3cr3t@h/d"}, "url holds a password"),
        ({"url": "postgresql://ann@h/d?password=s3cr3t"}, "url holds a password"),
        ({"url_env": "DB"}, "give url_env or url, one of them"),
        ({"query": "SELECT 1"}, "give table or query, one of them"),
        ({"cursor_column": None, "overlap": 1}, "belong to cursor_column"),
        ({"zone": "Berlin"}, "is not an IANA time zone"),
    ],
)
def test_declarations_that_mean_nothing_or_hold_secrets(tmp_path: Path, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        reading(tmp_path, **settings)
    assert "s3cr3t" not in str(caught.value)


def test_an_address_that_is_none_or_of_nobody() -> None:
    for url, problem in (("not an address s3cr3t", "cannot be read"), ("klingon://x:s3cr3t@h/d", "kind 'klingon'")):
        with pytest.raises(SourceError, match=problem) as caught:
            SqlSource(url_env="DB", table="load").open("meter", {"DB": url})
        assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(SourceError, match="environment variable DB is not set"):
        SqlSource(url_env="DB", table="load").open("meter", {})


# ---- PostgreSQL ------------------------------------------------------------------------------------------------------


PASSWORD = "s3cr3t/pa$$"


def address(server: Server, user: str = "tester") -> str:
    return f"postgresql://{user}@127.0.0.1:{server.port}/postgres"


@pytest.fixture(scope="module")
def server(postgres: Server) -> Server:
    """PostgreSQL with a user who has to show a password."""
    rules = postgres.folder / "data" / "pg_hba.conf"
    rules.write_text("host all tester 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
    with psycopg.connect(address(postgres, "postgres"), autocommit=True) as owner:
        owner.execute(f"CREATE ROLE tester SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
        owner.execute("SELECT pg_reload_conf()")
    return postgres


@pytest.fixture
def real(server: Server) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(address(server), password=PASSWORD, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS load")
        yield connection


def from_postgres(server: Server, **settings: Any) -> Sql:
    settings = {"url": address(server), "password_env": "PASSWORD", "table": "public.load", **settings}
    return opened(settings, {"PASSWORD": PASSWORD})


KINDS: dict[str, tuple[str, list[Any]]] = {
    "int": ("bigint", [-(2**63), 5, 2**53 + 1]),
    "instant": ("timestamptz", [NOON, NOON + timedelta(microseconds=1), NOON + timedelta(days=1)]),
    "local": ("timestamp", [NOON.replace(tzinfo=None), NOON.replace(tzinfo=None) + timedelta(microseconds=1)]),
    "date": ("date", [date(2025, 6, 1), date(2025, 6, 2)]),
    "text": ("text", ["Zebra", "apfel", "äpfel", "12"]),
    "decimal": ("numeric", [Decimal("1.0000000000000000000001"), Decimal("1.0000000000000000000002"), Decimal(3)]),
    "float": ("double precision", [0.1, 0.1 + 2**-56, 1e300]),
    "uuid": ("uuid", ["00000000-0000-0000-0000-000000000001", "ffffffff-0000-0000-0000-000000000001"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_cursor_of_every_type_goes_on_exactly(server: Server, real: psycopg.Connection[Any], kind: str) -> None:
    sql_type, values = KINDS[kind]
    real.execute(f"CREATE TABLE load (at {sql_type}, n int)")  # type: ignore[arg-type]
    for number, value in enumerate(values):
        real.execute("INSERT INTO load VALUES (%s, %s)", [value, number])
    source = from_postgres(server, cursor_column="at", batch_rows=1, zone="UTC")
    batches, cursor = read_all(source)
    ordered = [row[0] for row in real.execute("SELECT n FROM load ORDER BY at")]
    assert [n for batch in batches for n in batch["n"]] == ordered
    assert cursor is not None
    assert cursor["at"][0]["type"] == kind
    assert fetch(source, cursor).payloads == ()


def test_types_come_as_they_are(server: Server, real: psycopg.Connection[Any]) -> None:
    real.execute("""CREATE TABLE load AS SELECT 1 AS id, timestamptz '2025-06-01 14:00+02' AS event_time,
        numeric '1.50' AS price, 9007199254740993 AS big, 'NaN'::float8 AS nan, NULL::float8 AS nothing,
        ARRAY[1.5, NULL]::float8[] AS vector, '{"a": [1]}'::jsonb AS document, date '2025-06-01' AS day,
        true AS ok, 'é'::text AS name, '\\x00ff'::bytea AS raw, interval '1 hour' AS lasting,
        ARRAY['a', NULL] AS words, '10.0.0.1'::inet AS address""")
    with psycopg.connect(address(server), password=PASSWORD, autocommit=True) as other:
        other.execute("ALTER ROLE tester SET timezone TO 'Asia/Kathmandu'")
    (frame,), _ = read_all(from_postgres(server, cursor_column="id"))
    assert frame.schema == {
        "id": pl.Int64,
        "event_time": pl.Datetime("us", "UTC"),
        "price": pl.Decimal(38, 2),
        "big": pl.Int64,
        "nan": pl.Float64,
        "nothing": pl.Null,
        "vector": pl.List(pl.Float64),
        "document": pl.String,
        "day": pl.Date,
        "ok": pl.Boolean,
        "name": pl.String,
        "raw": pl.Binary,
        "lasting": pl.Duration("us"),
        "words": pl.List(pl.String),
        "address": pl.String,
    }
    row = frame.row(0, named=True)
    assert row["event_time"] == NOON
    assert (row["big"], row["price"], row["document"]) == (2**53 + 1, Decimal("1.50"), '{"a":[1]}')
    assert (row["vector"], row["raw"], row["address"]) == ([1.5, None], b"\x00\xff", "10.0.0.1")


def test_instants_without_a_zone_are_refused_unless_one_is_said(server: Server, real: psycopg.Connection[Any]) -> None:
    real.execute(
        "CREATE TABLE load AS SELECT 1 AS id, timestamp '2025-06-01 14:00' AS event_time, timestamp '2025-01-01' AS seen"
    )
    source = from_postgres(server, cursor_column="id")
    with pytest.raises(
        PayloadError, match="no value of 'event_time' can be read: '2025-06-01 14:00:00.000000' has no time zone"
    ):
        read_all(source)
    renamed = from_postgres(server, cursor_column="id", layout={"columns": {"at": "event_time"}})
    with pytest.raises(PayloadError, match="column 'at' has no time zone\n\nhint: say which, e.g. zone: \"UTC\"."):
        read_all(renamed)
    (frame,), _ = read_all(from_postgres(server, cursor_column="id", zone="Europe/Berlin"))
    assert frame.row(0) == (1, NOON, datetime(2024, 12, 31, 23, tzinfo=UTC))


@pytest.mark.parametrize("overlap", [10, None])
def test_a_transaction_that_commits_late_is_found_by_looking_back(
    server: Server, real: psycopg.Connection[Any], overlap: int | None
) -> None:
    real.execute("CREATE TABLE load (id bigserial, v text)")
    source = from_postgres(server, cursor_column="id", overlap=overlap)
    with psycopg.connect(address(server), password=PASSWORD) as slow:
        slow.execute("INSERT INTO load (v) VALUES ('slow')")  # takes id 1, commits after id 2
        real.execute("INSERT INTO load (v) VALUES ('quick')")
        (first,), cursor = read_all(source)
        slow.commit()
    batches, _ = read_all(source, cursor)
    assert first["v"].to_list() == ["quick"]
    found = [v for batch in batches for v in batch["v"]]
    assert found == (["slow", "quick"] if overlap else [])  # strictly greater alone would lose it


def test_writers_at_work_lose_nothing(server: Server, real: psycopg.Connection[Any]) -> None:
    """Four writers commit out of order while we read; with a look back over what they hold open, every row is found."""
    together = threading.Barrier(4)  # no one is more than two steps, that is 16 numbers, behind another

    real.execute("CREATE TABLE load (id bigserial PRIMARY KEY, v int)")
    stop = threading.Event()

    def write(number: int) -> None:
        with psycopg.connect(address(server), password=PASSWORD) as connection:
            for step in range(40):
                connection.execute("INSERT INTO load (v) VALUES (%s), (%s)", [number, number])
                stop.wait(0.001 * ((step * 7 + number) % 5))
                connection.commit()
                together.wait(30)

    writers = [threading.Thread(target=write, args=[number]) for number in range(4)]
    source = from_postgres(server, cursor_column="id", overlap=50, batch_rows=17)
    found: set[int] = set()
    cursor: dict[str, Any] | None = None
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        batches, cursor = read_all(source, cursor)
        found |= {i for batch in batches for i in batch["id"]}
    for writer in writers:
        writer.join()
    batches, cursor = read_all(source, cursor)
    found |= {i for batch in batches for i in batch["id"]}
    assert found == {row[0] for row in real.execute("SELECT id FROM load")}
    assert len(found) == 320


def test_a_slow_statement_is_ended_and_nothing_can_be_written(server: Server, real: psycopg.Connection[Any]) -> None:
    real.execute("CREATE TABLE load AS SELECT 1 AS id")
    twice = from_postgres(server, table=None, query="SELECT id, id + 1 AS id FROM load")
    with pytest.raises(SourceError, match="two columns are called 'id'\n\nhint: name them apart: SELECT a.x AS a_x"):
        fetch(twice)
    slow = from_postgres(server, table=None, query="SELECT 1 AS id, pg_sleep(20)::text", timeout="100ms")
    with pytest.raises(SourceError, match="canceling statement due to statement timeout"):
        fetch(slow)
    writing = from_postgres(server, table=None, query="SELECT nextval('numbers') AS id")
    real.execute("CREATE SEQUENCE IF NOT EXISTS numbers")
    with pytest.raises(SourceError, match="read-only transaction"):
        fetch(writing)


def test_a_server_that_restarts_is_read_on(server: Server, real: psycopg.Connection[Any]) -> None:
    real.execute("CREATE TABLE load AS SELECT 1 AS id")
    source = from_postgres(server, cursor_column="id")
    _, cursor = read_all(source)
    real.execute("INSERT INTO load VALUES (2)")
    real.close()
    server.stop()
    with pytest.raises(SourceError, match="refused"):
        fetch(source, cursor)
    server.start()
    (frame,), _ = read_all(source, cursor)
    assert frame["id"].to_list() == [2]


def test_the_password_is_nowhere_to_be_read(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = io.StringIO()
    with_password = address(server).replace("tester@", "tester:s3cr3t%2Fpa$$@")
    elsewhere = with_password.replace(f":{server.port}", f":{free_port()}")
    wrong = with_password.replace("s3cr3t", "wrong-s3cr3t")
    for url in (with_password, elsewhere, wrong):
        source = opened({"url_env": "DB", "query": "SELECT * FROM nothing"}, {"DB": url})
        with pytest.raises(SourceError) as caught:
            fetch(source)
        traceback.print_exception(caught.value, file=said)
        print(source, vars(source), vars(caught.value), file=said)
    text = said.getvalue() + caplog.text
    assert 'relation "nothing" does not exist' in text
    assert 'password authentication failed for user "tester"' in text
    assert "s3cr3t" not in text
