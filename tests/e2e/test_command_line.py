"""The command line from an empty folder: exit codes, what goes where, JSON, dry runs, the texts of errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from serving.cli import main, run

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
VIEWS = """
from datetime import UTC, datetime
import alignment as al
import ingestion

views = [
    al.FeatureView("weather", observations=ingestion.open_log("logs", "mast"), features=[al.latest("temp"), al.event_age()])
]
label = al.label("temp", horizon="10m")
spine = al.make_spine(
    {"station": ["hill", "mast"]}, datetime(2025, 6, 1, 11, tzinfo=UTC), datetime(2025, 6, 1, 13, tzinfo=UTC), "10m"
)
"""


def minutes(*values: int) -> list[datetime]:
    return [NOON + timedelta(minutes=value) for value in values]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a file of readings and a views file, which the commands run in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    rows = pl.DataFrame(
        {
            "station": ["mast"] * 4 + ["hill"] * 2,
            "event_time": minutes(-30, -20, -10, -20, -30, -20),
            "arrival_time": minutes(-5, 5, 15, 25, -4, 6),
            "temp": [21.0, 22.0, 23.0, 20.5, 11.0, 12.0],
        }
    )
    rows.write_parquet("readings.parquet")
    Path("views.py").write_text(VIEWS)
    return tmp_path


@pytest.fixture
def logged(folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert run(["log", "append", "logs", "mast", "readings.parquet", "--entities", "station"]) == 0
    capsys.readouterr()
    return folder


def test_the_same_file_is_appended_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["log", "append", "logs", "mast", "readings.parquet", "--entities", "station"]
    assert run(command) == 0
    assert capsys.readouterr().out == "mast: 6 rows appended, position 5, arrival 2025-06-01 12:25:00.000000 UTC\n"
    assert run(command) == 0
    assert capsys.readouterr().out == "mast: 0 rows appended, position 5\n  6 already in the log (same batch)\n"


def test_a_dry_run_appends_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["log", "append", "logs", "mast", "readings.parquet", "--entities", "station", "--dry-run", "--json"]) == 0
    )
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["file"], row["rows"]) == ("readings.parquet", 6)
    assert row["columns"] == ["station", "event_time", "arrival_time", "temp"]
    assert not Path("logs").exists()


def test_other_names_chosen_values_and_naive_times(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pl.read_parquet("readings.parquet").with_columns(noise=1)
    rows = rows.rename({"event_time": "valid", "arrival_time": "got"})
    rows.with_columns(pl.col("valid", "got").dt.replace_time_zone(None)).write_parquet("odd.parquet")
    command = ["log", "append", "logs", "mast", "odd.parquet", "--entities", "station", "--event-time", "valid"]
    command += ["--arrival-time", "got", "--values", "temp", "--json"]
    assert run(command) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "NaiveTimeError" in captured.err
    assert run([*command, "--zone", "UTC"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["rows"] == 6
    assert run(["log", "info", "logs", "mast", "--json"]) == 0
    (info,) = json.loads(capsys.readouterr().out)
    assert list(info["columns"]) == ["station", "temp"]
    assert info["first_event"] == "2025-06-01T11:30:00+00:00"


def test_history_without_arrivals_needs_a_delay(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pl.read_parquet("readings.parquet").unique(["station", "event_time"]).drop("arrival_time").write_parquet(
        "old.parquet"
    )
    command = ["log", "append", "logs", "old", "old.parquet", "--entities", "station", "--backfill"]
    assert run(command) == 2
    assert "UnknownArrivalError" in capsys.readouterr().err
    assert run([*command, "--delay", "25m"]) == 0
    assert run(["log", "snapshot", "logs", "old", "2025-06-01T11:55:00Z", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert {row["event_time"] for row in rows} == {"2025-06-01T11:30:00Z"}


def test_snapshot_shows_what_was_known(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["log", "snapshot", "logs", "mast", "2025-06-01T12:20:00Z", "--json"]) == 0
    before = {(row["station"], row["event_time"][11:16]): row["temp"] for row in json.loads(capsys.readouterr().out)}
    assert before["mast", "11:40"] == 22.0
    assert run(["log", "snapshot", "logs", "mast", "2025-06-01T12:25:00Z", "--json"]) == 0
    after = {(row["station"], row["event_time"][11:16]): row["temp"] for row in json.loads(capsys.readouterr().out)}
    assert after["mast", "11:40"] == 20.5


def test_snapshot_writes_all_rows_to_a_file(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["log", "snapshot", "logs", "mast", "2025-06-01T13:00:00Z", "--out", "known/now.parquet"]) == 0
    assert capsys.readouterr() == ("", "5 rows -> known/now.parquet\n")
    assert pl.read_parquet("known/now.parquet").height == 5


def test_build_and_rebuild_give_the_same_bytes_after_more_data_and_compaction(
    logged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["dataset", "build", "views.py", "sets/one", "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["inputs"]["weather"]["position"] == 5
    assert manifest["features"] == {
        "weather__temp": {"rows": 24, "nulls": 12},
        "weather__event_age": {"rows": 24, "nulls": 12},
    }

    # A correction that arrives now, and an old reading that arrives late: neither may change the data set.
    more = pl.read_parquet("readings.parquet").with_columns(
        pl.lit(NOON + timedelta(hours=2)).alias("arrival_time"), temp=-1.0
    )
    more.unique(["station", "event_time"]).write_parquet("more.parquet")
    assert run(["log", "append", "logs", "mast", "more.parquet"]) == 0
    assert run(["log", "compact", "logs", "mast", "--vacuum"]) == 0
    capsys.readouterr()

    assert run(["dataset", "rebuild", "sets/one", "--out", "sets/two"]) == 0
    assert capsys.readouterr().out.startswith("same: 24 rows, as of 2025-06-01T12:25:00+00:00, content ")
    assert Path("sets/one/data.parquet").read_bytes() == Path("sets/two/data.parquet").read_bytes()


def test_a_rebuild_finds_logs_that_were_moved(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dataset", "build", "views.py", "sets/one"]) == 0
    Path("logs").rename("elsewhere")
    assert run(["dataset", "rebuild", "sets/one"]) == 3
    capsys.readouterr()
    assert run(["dataset", "rebuild", "sets/one/manifest.json", "--logs", "elsewhere", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] is True


def test_a_rebuild_after_an_erasure_says_which_rows_are_gone(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dataset", "build", "views.py", "sets/one"]) == 0
    capsys.readouterr()
    assert run(["log", "erase", "logs", "mast", "station=hill", "--dry-run", "--json"]) == 0
    found = [(row["place"], row["rows"]) for row in json.loads(capsys.readouterr().out)]
    assert found == [("log", 2), ("data set", 12)]
    assert run(["log", "erase", "logs", "mast", "station=hill", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 14

    assert run(["dataset", "rebuild", "sets/one"]) == 1
    text = capsys.readouterr().out
    assert text.startswith("not the same: ")
    assert "12 rows, digest" in text
    assert "mast  erased " in text
    assert "2 rows of 1 entity (erasure), log_sequence 4..5; record 6" in text
    assert run(["dataset", "rebuild", "sets/one", "--json"]) == 1
    (removal,) = json.loads(capsys.readouterr().out)["removals"]["mast"]
    assert removal["log_sequences"] == [[4, 5]]
    assert b"hill" not in b"".join(
        path.read_bytes() for path in Path().rglob("*.parquet") if path.parts[0] != "readings.parquet"
    )


def test_an_erasure_asks_first_and_no_means_no(
    logged: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert run(["log", "erase", "logs", "mast", "station=hill"]) == 1
    assert capsys.readouterr() == ("", "nothing was erased\n")
    assert run(["log", "snapshot", "logs", "mast", "2025-06-01T13:00:00Z", "--json"]) == 0
    assert "hill" in capsys.readouterr().out


def test_a_spine_from_a_file_goes_before_the_declared_one(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pl.DataFrame({"station": ["mast"], "prediction_time": [NOON]}).write_parquet("spine.parquet")
    assert run(["dataset", "build", "views.py", "sets/one", "--spine", "spine.parquet", "--engine", "duckdb"]) == 0
    assert pl.read_parquet("sets/one/data.parquet").height == 1


def test_profile_prints_json_and_draws(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["log", "profile", "logs", "mast", "--json", "--picture", "pictures/mast.png"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["provider"] == "mast"
    assert captured.err == "picture -> pictures/mast.png\n"
    assert Path("pictures/mast.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (
            ["log", "info", "logs", "mst"],
            3,
            "LogNotFoundError: 'FOLDER/logs' has no log of provider 'mst'\n\nhint: did you mean 'mast'?\n",
        ),
        (
            ["log", "info", "nowhere"],
            3,
            (
                "NoLogsError: there are no logs at 'nowhere'\n\n"
                "hint: asknown log append nowhere PROVIDER FILE --entities COLUMN\n"
            ),
        ),
        (
            ["log", "append", "logs", "new", "readings.parquet"],
            2,
            (
                "OptionError: 'logs' has no log of provider 'new' yet, and it is not said which columns name the entity\n\n"
                "hint: say it: --entities station, or --entities '' for one series\n"
            ),
        ),
        (
            ["dataset", "build", "failing.py", "sets/one"],
            2,
            (
                "DeclarationError: failing.py: line 2: ZeroDivisionError: division by zero\n\n"
                "hint: run it by itself: python failing.py\n"
            ),
        ),
        (
            ["dataset", "build", "refused.py", "sets/one"],
            2,
            None,
        ),
        (
            ["log", "snapshot", "logs", "mast", "yesterday"],
            2,
            "OptionError: AS_OF 'yesterday' is not an instant\n\nhint: write AS_OF 2026-06-01T12:00:00Z\n",
        ),
        (
            ["log", "snapshot", "logs", "mast", "2025-06-01T12:00:00"],
            2,
            "OptionError: AS_OF '2025-06-01T12:00:00' has no zone\n\nhint: write AS_OF 2025-06-01T12:00:00Z\n",
        ),
        (
            ["log", "erase", "logs", "mast", "hill", "--yes"],
            2,
            "OptionError: 'hill' does not say which column it is a value of\n\nhint: write COLUMN=hill\n",
        ),
        (
            ["log", "info", "logs", "--storage-option", "timeout"],
            2,
            "OptionError: --storage-option 'timeout' has no value\n\nhint: write --storage-option timeout=VALUE\n",
        ),
        (
            ["dataset", "build", "missing.py", "sets/one"],
            2,
            (
                "DeclarationError: missing.py: there is no such file\n\n"
                'hint: write one that says: views = [al.FeatureView("weather", ...)]\n'
            ),
        ),
        (
            ["dataset", "build", "empty.py", "sets/one"],
            2,
            (
                "DeclarationError: empty.py: it has no list of views called 'views'\n\n"
                'hint: add a line such as: views = [al.FeatureView("weather", ...)]\n'
            ),
        ),
        (
            ["dataset", "build", "broken.py", "sets/one"],
            2,
            "DeclarationError: broken.py: line 1: '(' was never closed\n\nhint: correct the line\n",
        ),
        (
            ["dataset", "build", "no_spine.py", "sets/one"],
            2,
            (
                "OptionError: no_spine.py declares no spine and --spine is not given\n\n"
                'hint: declare one: spine = al.make_spine({"station": ["mast"]}, start, end, "1h")\n'
            ),
        ),
        (
            ["dataset", "rebuild", "views.py"],
            2,
            (
                "OptionError: views.py is not a manifest: Expecting value: line 2 column 1 (char 1)\n\n"
                "hint: name the manifest.json that `dataset build` wrote\n"
            ),
        ),
    ],
)
def test_what_is_wrong_is_said_on_standard_error(
    arguments: list[str], code: int, complaint: str | None, logged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty.py").write_text("")
    Path("broken.py").write_text("views = [(\n")
    Path("no_spine.py").write_text(VIEWS.partition("spine =")[0])
    Path("failing.py").write_text("one = 1\nviews = one / 0\n")
    Path("refused.py").write_text("import alignment as al\nviews = [al.latest('temp', max_event_age='soon')]\n")
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    if complaint is None:  # the text is pinned where the error is made
        assert captured.err.startswith("DurationError: ")
    else:
        assert captured.err == complaint.replace("FOLDER", str(logged))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["log", "append", "logs", "mast", "table.csv"], "OptionError: table.csv is not a Parquet file\n"),
        (["log", "append", "logs", "mast", "folder"], "OptionError: folder is a folder, not a Parquet file\n"),
        (
            ["dataset", "build", "views.py", "sets/one", "--spine", "table.csv"],
            "OptionError: table.csv is not a Parquet",
        ),
        (["dataset", "rebuild", "readings.parquet"], "OptionError: readings.parquet is not a manifest: "),
        (
            ["log", "append", "logs", "mast", "readings.parquet", "--zone", "Mars/Olympus"],
            "OptionError: --zone 'Mars/Ol",
        ),
        (
            ["log", "append", "logs", "mast", "readings.parquet", "--entities", "site"],
            "OptionError: the log of 'mast' has",
        ),
        (
            ["log", "profile", "logs", "mast", "--picture", "mast.txt"],
            "OptionError: --picture mast.txt does not end in",
        ),
        (
            ["quickstart", "--picture", "known.txt"],
            "OptionError: --picture known.txt does not end in .png, .svg, .pdf\n",
        ),
    ],
)
def test_wrong_files_and_values_are_usage_errors(
    arguments: list[str], complaint: str, logged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("table.csv").write_text("station,event_time,temp\nmast,2025-06-01T12:00:00Z,1\n")
    Path("folder").mkdir()
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(complaint)


def test_hints_name_the_option_that_does_it(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pl.read_parquet("readings.parquet")
    rows.with_columns(pl.col("event_time").dt.replace_time_zone(None)).write_parquet("naive.parquet")
    rows.with_columns(rain=1.0).write_parquet("wider.parquet")
    rows.with_columns(arrival_time=pl.lit(None, dtype=pl.Datetime("us", "UTC"))).write_parquet("unknown.parquet")
    rows.rename({"event_time": "time"}).write_parquet("named.parquet")
    for name, option in [
        ("naive", "--zone UTC"),
        ("wider", "--evolve"),
        ("unknown", "--delay 45m"),
        ("named", "--event-time COLUMN"),
    ]:
        assert run(["log", "append", "logs", "mast", f"{name}.parquet"]) == 2
        assert capsys.readouterr().err.endswith(f"\n      on the command line: {option}\n")


def test_an_address_of_no_known_kind_cannot_be_reached(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["log", "info", "gopher://nowhere/logs"]) == 3
    assert capsys.readouterr().err.startswith("cannot be reached: Unknown scheme: gopher")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--entities", "statoin"], "MissingColumnError: "),
        (["--entities", "station"], "MissingColumnError: "),
        (
            ["--entities", "station", "--event-time", "when"],
            "OptionError: named.parquet: it has no column 'when' for --event-time\n\nhint: its columns are station, time,",
        ),
        (
            ["--entities", "station", "--event-time", "time", "--arrival-time", "arrived"],
            "OptionError: named.parquet: ",
        ),
    ],
)
def test_a_first_batch_that_is_refused_leaves_no_log(
    options: list[str], complaint: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pl.read_parquet("readings.parquet").rename({"event_time": "time"}).write_parquet("named.parquet")
    for dry in (["--dry-run"], []):
        assert run(["log", "append", "logs", "mast", "named.parquet", *options, *dry]) == 2
        assert capsys.readouterr().err.startswith(complaint)
        assert not Path("logs").exists()
    assert run(["log", "append", "logs", "mast", "named.parquet", "--entities", "station", "--event-time", "time"]) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_cannot_be_reached(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["log", "snapshot", "logs", "mast", "2025-06-01T13:00:00Z", "--out", "/dev/full"]) == 3
    assert capsys.readouterr().err.startswith("cannot be reached: ")


def test_a_fault_of_asknown_itself_exits_with_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise RuntimeError("a fault")

    monkeypatch.setattr("serving.cli.run", fail)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 70
    assert "RuntimeError: a fault" in capsys.readouterr().err


def test_a_file_that_is_not_there_cannot_be_reached(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["log", "append", "logs", "mast", "none.parquet", "--entities", "station"]) == 3
    assert capsys.readouterr().err.startswith("cannot be reached: ")


@pytest.mark.parametrize("arguments", [["--nonsense"], ["log", "append"], ["dataset", "build", "views.py"], ["coffee"]])
def test_usage_errors_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Usage: asknown" in captured.err


def test_version_and_help_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == "asknown 0.1.0\n"
    assert run(["log", "erase", "--help"]) == 0
    assert "Cannot be undone" in capsys.readouterr().out


def test_the_installed_command_keeps_data_and_talk_apart_and_uses_no_colour_in_a_pipe(folder: Path) -> None:
    command = [str(Path(sys.executable).parent / "asknown"), "log", "append", "logs", "mast", "readings.parquet"]
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    done = subprocess.run(
        [*command, "--entities", "station"], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.startswith("mast: 6 rows appended")
    assert done.stderr == ""
    failed = subprocess.run(
        [*command, "--event-time", "x"], capture_output=True, text=True, check=False, env=environment
    )
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("OptionError: readings.parquet: it has no column 'x' for --event-time\n")
    assert "\x1b" not in done.stdout + failed.stdout + failed.stderr


def test_a_dry_run_says_what_a_build_would_read_and_writes_nothing(
    logged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().rglob("*"))
    assert run(["dataset", "build", "views.py", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("spine: 24 rows of ")
    assert "weather  log mast " in text
    assert text.endswith("on the command line: --engine local\n")
    assert run(["dataset", "build", "views.py", "sets/one", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["reads"][0]["provider"], plan["reads"][0]["stored_rows"]) == ("mast", 6)
    assert sorted(Path().rglob("*")) == before
    assert run(["dataset", "build", "views.py", "--dry-run", "--engine", "spark"]) == 0
    text = capsys.readouterr().out
    assert (
        'advice: engine="spark"\nit is asked for, and takes one shuffle, in one bucket. engine="local" would do' in text
    )
    assert text.endswith("on the command line: --engine spark\n")
    assert run(["dataset", "build", "views.py", "--dry-run", "--engine", "sparc"]) == 2
    assert "UnknownEngineError: no engine is called 'sparc'" in capsys.readouterr().err
    assert run(["dataset", "build", "views.py"]) == 2
    assert "name a new folder, e.g. sets/one" in capsys.readouterr().err


def test_a_build_under_a_memory_limit_gives_the_same_bytes(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pl.DataFrame({"station": ["mast"], "prediction_time": [NOON]}).write_parquet("spine.parquet")
    command = ["dataset", "build", "views.py", "sets/one", "--spine", "spine.parquet"]
    assert run([*command, "--memory-limit", "8GiB"]) == 0
    command[3] = "sets/two"
    assert run(command) == 0
    assert Path("sets/one/data.parquet").read_bytes() == Path("sets/two/data.parquet").read_bytes()
    capsys.readouterr()
    for more, hint in (
        (["--spill", "elsewhere"], "hint: add --memory-limit 4GiB"),
        (["--memory-limit", "8GiB", "--providers", "x.yaml"], "hint: leave one of them out"),
        (["--memory-limit", "8GiB", "--engine", "duckdb"], "hint: leave one of them out"),
        (["--memory-limit", "8GiB", "--engine", "spark"], "hint: leave one of them out"),
        (["--engine", "spark", "--providers", "x.yaml"], "hint: leave one of them out"),
        (["--memory-limit", "8GiB", "--engine", "spark", "--dry-run"], "hint: leave one of them out"),
        (["--memory-limit", "8GiB", "--spill", "s3://bucket/x"], "hint: name one, e.g. spill='/data/tmp'"),
        (["--memory-limit", "8GiB", "--spill", "s3://bucket/x", "--dry-run"], "hint: name one, e.g. spill='/data/tmp'"),
        (["--engine", "spark"], "hint: write to a new folder"),  # said before Spark is started
        (["--memory-limit", "300MiB", "--dry-run"], "hint: allow at least "),
    ):
        assert run([*command, *more]) == 2, more
        assert hint in capsys.readouterr().err
