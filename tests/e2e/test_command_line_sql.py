"""`asknown sql`: views and functions over logs, at a prompt and for programs; what it refuses, and the text for elsewhere."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest

import alignment as al
import ingestion
from serving import cli_sql
from serving.cli import run
from serving.errors import QueryError
from serving.sql_session import SqlSession

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
KNOWN = "FROM mast_as_of('2025-06-01T12:10:00Z') ORDER BY ALL"


def minutes(*values: int) -> list[datetime]:
    return [NOON + timedelta(minutes=value) for value in values]


@pytest.fixture
def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the log of a mast, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    append("logs", "mast")
    return tmp_path


def append(root: str, provider: str) -> None:
    rows = pl.DataFrame(
        {
            "station": ["mast", "mast", "mast", "hill"],
            "event_time": minutes(-30, -20, -20, -30),
            "arrival_time": minutes(-5, 5, 25, -4),
            "temp": [21.0, 22.0, 20.5, float("nan")],
        }
    )
    ingestion.create_log(root, provider, entities=["station"], exist_ok=True).append(rows)


def test_a_query_prints_what_was_known_as_a_table(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sql", KNOWN]) == 0
    captured = capsys.readouterr()
    assert [line.split() for line in captured.out.splitlines()] == [
        ["station", "event_time", "arrival_time", "temp"],
        ["hill", "2025-06-01", "11:30:00Z", "2025-06-01", "11:56:00Z", "nan"],
        ["mast", "2025-06-01", "11:30:00Z", "2025-06-01", "11:55:00Z", "21"],
        ["mast", "2025-06-01", "11:40:00Z", "2025-06-01", "12:05:00Z", "22"],
    ]
    assert captured.err == ""
    assert run(["sql", KNOWN, "--limit", "1"]) == 0
    assert capsys.readouterr().err == "the first 1 rows; --limit N prints more, --format csv all\n"


def test_programs_get_json_and_csv(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = """SELECT station, temp, temp, arrival_time - event_time AS delay, event_time, [1, NULL] AS l, sum(2) OVER () AS n
        FROM mast WHERE log_sequence IN (0, 3) ORDER BY log_sequence; """
    assert run(["sql", query, "--format", "json"]) == 0
    row = {"station": "mast", "temp": 21.0, "temp_2": 21.0, "delay": 1500.0, "event_time": "2025-06-01T11:30:00Z"}
    row |= {"l": [1, None], "n": 4}
    hill = row | {"station": "hill", "temp": "NaN", "temp_2": "NaN", "delay": 1560.0}
    assert json.loads(capsys.readouterr().out) == [row, hill]
    assert run(["sql", query, "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "station,temp,temp_2,delay,event_time,l,n",
        'mast,21.0,21.0,1500.0,2025-06-01T11:30:00.000000Z,"[1, null]",4',
        'hill,NaN,NaN,1560.0,2025-06-01T11:30:00.000000Z,"[1, null]",4',
    ]


def test_results_go_to_files_whole_or_not_at_all(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("rows.parquet", "rows.csv", "rows.json"):
        assert run(["sql", KNOWN, "--output", f"out/{name}"]) == 0
        assert capsys.readouterr().err == f"3 rows -> out/{name}\n"
    log = ingestion.open_log("logs", "mast")
    assert pl.read_parquet("out/rows.parquet").equals(al.snapshot(log, NOON + timedelta(minutes=10)))
    assert len(json.loads(Path("out/rows.json").read_text())) == 3
    assert run(["sql", "FROM mast WHERE false", "--output", "out/none.json"]) == 0
    assert json.loads(Path("out/none.json").read_text()) == []
    fails = "SELECT CAST(station AS INT) FROM mast"
    assert run(["sql", fails, "--output", "out/bad.csv"]) == 2
    assert sorted(path.name for path in Path("out").iterdir()) == ["none.json", "rows.csv", "rows.json", "rows.parquet"]


@pytest.mark.parametrize(
    "query",
    [
        "COPY mast TO 'x.parquet'",
        "EXPLAIN ANALYZE COPY mast TO 'x.parquet'",
        "EXPLAIN (ANALYZE, FORMAT json) COPY mast TO 'x.parquet'",
        "PREPARE a AS COPY mast TO 'x.parquet'; EXECUTE a",
        "ATTACH 'x.db'",
        "EXPORT DATABASE 'x'",
        "SELECT 1; COPY mast TO 'x.parquet'",
    ],
)
def test_nothing_is_written_by_a_query(logged: Path, capsys: pytest.CaptureFixture[str], query: str) -> None:
    assert run(["sql", query]) == 2
    assert sorted(path.name for path in logged.iterdir()) == ["logs"]
    assert "are not run here: the session is for reading\n\nhint: " in capsys.readouterr().err.replace(
        "Parser Error", "are not run here: the session is for reading\n\nhint: "
    )


def test_errors_say_what_there_is(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sql", "FROM masts"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("QueryError: Catalog Error: Table with name masts does not exist!")
    assert captured.err.endswith("hint: there are mast, mast_as_of(t); DESCRIBE NAME lists the columns of a view.\n")
    assert run(["sql", "DROP VIEW mast; FROM mast"]) == 2
    assert capsys.readouterr().err.endswith(
        "hint: there are mast_as_of(t); DESCRIBE NAME lists the columns of a view.\n"
        "What was dropped comes back with .refresh, or in a new session.\n"
    )
    for query, hint in (
        ("FROM mast_as_of()", "give it an instant: FROM mast_as_of('2026-06-01T12:00:00Z')"),
        ("FROM mast_as_of(1, 2, 3)", "give it an instant: FROM mast_as_of('2026-06-01T12:00:00Z')"),
        ("SELECT mast_as_of('2026-06-01')", "write it after FROM: FROM mast_as_of('2026-06-01T12:00:00Z')"),
    ):
        assert run(["sql", query]) == 2
        assert capsys.readouterr().err.endswith(f"hint: {hint}\n")
    assert run(["sql", "FROM mast", "--root", "nowhere"]) == 3
    assert capsys.readouterr().err == (
        "NoLogsError: there are no logs at 'nowhere'\n\n"
        "hint: asknown log append nowhere PROVIDER FILE --entities COLUMN\nor say where they are: --root FOLDER\n"
    )
    for arguments, text in (
        (["--format", "parquet"], "OptionError: Parquet goes to a file\n\nhint: add --output rows.parquet\n"),
        (
            ["--output", "x.txt"],
            "OptionError: --output x.txt: it is not said in which form\n\nhint: end it in .csv, .json or .parquet\n",
        ),
    ):
        assert run(["sql", "FROM mast", *arguments]) == 2
        assert capsys.readouterr().err == text


def test_the_root_is_that_of_the_declared_providers(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("logs").rename("elsewhere")
    Path("asknown.yaml").write_text("root: elsewhere\nproviders: {}\n")
    assert run(["sql", "SELECT count(*) AS n FROM mast", "--format", "csv"]) == 0
    assert capsys.readouterr().out == "n\n4\n"


def test_a_query_comes_from_a_pipe(
    logged: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("CREATE TABLE t AS FROM mast; SELECT count(*) AS n FROM t;"))
    assert run(["sql", "--format", "csv"]) == 0
    assert capsys.readouterr().out == "n\n4\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run(["sql"]) == 2
    assert capsys.readouterr().err == 'OptionError: there is no query\n\nhint: write it: asknown sql "FROM ..."\n'


def test_the_prompt_goes_on_after_errors_and_sees_later_rows_when_told(
    logged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = iter(
        ["SELECT count(*) AS n", "FROM mast;", "FROM nothing;", "", None, ".refresh", "SELECT count(*) AS n FROM mast;"]
    )
    prompts: list[str] = []

    def read(shown: str) -> str:
        prompts.append(shown)
        line = next(lines, "END")
        if line is None:
            append("logs", "mast")
            line = "SELECT count(*) AS n FROM mast;"
        if line == "END":
            raise EOFError
        return line

    with SqlSession("logs") as session:
        cli_sql.prompt(session, read, 10)
    captured = capsys.readouterr()
    numbers = [line for line in captured.out.splitlines() if line.strip().isdigit()]
    assert [int(number) for number in numbers] == [4, 4, 8]
    assert "QueryError: Catalog Error" in captured.err
    assert prompts[:3] == ["asknown> ", "    ...> ", "asknown> "]


def test_names_are_those_of_providers_as_far_as_sql_knows_them(logged: Path) -> None:
    for provider in ("grid-load", "grid.load", "2nd", "order"):
        append("logs", provider)
    with SqlSession("logs") as session:
        names = {provider: one.names.as_of for provider, one in session.opened.items()}
        assert names == {
            "2nd": "_2nd_as_of",
            "grid-load": "grid_load_as_of",
            "grid.load": "grid_load_2_as_of",
            "mast": "mast_as_of",
            "order": "order_as_of",
        }
        for name in (*names.values(),):
            answer = session.ask(f"FROM {name}('2025-06-01T12:10:00Z')")
            assert answer is not None
            assert answer.head(9)[0].height == 3
        answer = session.ask('FROM "order"')
        assert answer is not None


def test_a_store_that_duckdb_does_not_reach_is_read_by_way_of_arrow(logged: Path) -> None:
    log = ingestion.open_log("logs", "mast")
    log.add_column("Wind 10m", pl.UInt8)
    with SqlSession("logs", through_arrow=True) as session:
        answer = session.ask(KNOWN)
        assert answer is not None
        known = log.table.logical_to_stored(al.snapshot(log, NOON + timedelta(minutes=10)))
        assert answer.head(9)[0].equals(known)


def test_files_that_went_away_are_told_of(logged: Path) -> None:
    with SqlSession("logs") as session:
        append("logs", "mast")
        ingestion.open_log("logs", "mast").compact(vacuum=True)
        with pytest.raises(QueryError, match="the log was compacted or erased from meanwhile"):
            session.ask("FROM mast").head(1)
        session.refresh()
        answer = session.ask("FROM mast")
        assert answer is not None
        assert answer.head(9)[0].height == 8


def test_the_printed_macros_run_in_a_plain_duckdb(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sql", "--print-macros", "--source", "files"]) == 0
    with duckdb.connect() as connection:
        connection.execute(capsys.readouterr().out)
        assert connection.sql("SELECT count(*) FROM mast_as_of('2025-06-01T12:10:00Z', 1)").fetchall() == [(2,)]
    assert run(["sql", "--print-macros"]) == 0
    assert f"FROM delta_scan('{logged}/logs/mast');" in capsys.readouterr().out
    assert run(["sql", "--print-macros", "--dialect", "spark"]) == 0
    assert f"FROM delta.`{logged}/logs/mast`;" in capsys.readouterr().out
