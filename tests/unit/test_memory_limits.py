"""A limit on memory: how it is written, what it refuses, what becomes of the folder, and that it is kept."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

import alignment as al
from alignment import memory
from alignment.dataset_writing import write_rows
from alignment.engines import spilling_store
from alignment.errors import DatasetError, DefinitionError, MemoryLimitError, NullKeyError, SpillError
from alignment.join import ENGINES
from alignment.memory import Portions, parse_bytes

T0 = datetime(2026, 1, 1, tzinfo=UTC)
SITES = ["a", "b", "c", "d", "e"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So little room that everything is made in many parts."""
    monkeypatch.setattr(memory.Portions, "of", lambda _room: Portions(batch=1_000, group=20_000, out=1_500))
    monkeypatch.setattr("alignment.larger.fits", lambda *_: False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def observed(rows: int = 300) -> pl.DataFrame:
    events = [T0 + timedelta(minutes=7 * n) for n in range(rows)]
    return pl.DataFrame(
        {
            "site": [SITES[n * n % 5] for n in range(rows)],
            "event_time": events,
            "arrival_time": [event + timedelta(minutes=n % 40) for n, event in enumerate(events)],
            "load_kw": [None if n % 11 == 0 else n / 3 for n in range(rows)],
        }
    )


def asked(rows: int = 90) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "site": [["a", "b", "c", "zz", None][n % 5] for n in range(rows)],
            "prediction_time": [T0 + timedelta(minutes=23 * (rows - n)) for n in range(rows)],
            "note": [f"row {n}" for n in range(rows)],
        }
    )


def meter(frame: Any) -> al.FeatureView:
    features = [al.latest("load_kw"), al.window("load_kw", ["mean", "count"], "3h"), al.sequence("load_kw", 3)]
    return al.FeatureView("meter", ["site"], frame, features)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 4 << 30), ("4 gib", 4 << 30), ("1.5MB", 1_500_000), ("2G", 2 * 10**9), ("77", 77), (5, 5)],
)
def test_a_limit_is_a_number_or_has_a_unit(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "4 XB", 0, -1, True, None, 1.5])
def test_what_is_no_amount_of_memory_is_refused(text: Any) -> None:
    with pytest.raises(MemoryLimitError, match=r'(?s)memory_limit=.* is no amount of memory.*memory_limit="4GiB"'):
        parse_bytes(text)


def test_a_limit_below_what_the_process_has_is_refused() -> None:
    with pytest.raises(MemoryLimitError, match=r"leaves too little: the process already has .* MiB in memory"):
        al.point_in_time_join(asked(), meter(observed()), memory_limit="10MiB")


def test_who_passes_paths_is_not_told_to_pass_paths(tmp_path: Path) -> None:
    paths = {"spine": tmp_path / "spine.parquet", "rows": tmp_path / "rows.parquet"}
    asked().write_parquet(paths["spine"])
    observed().write_parquet(paths["rows"])
    for questions, rows, told in (
        (paths["spine"], paths["rows"], False),
        (str(paths["spine"]), pl.scan_parquet(paths["rows"]), False),
        (asked(), paths["rows"], True),
        (paths["spine"], observed(), True),
    ):
        with pytest.raises(MemoryLimitError, match="allow at least") as raised:
            al.build_dataset(questions, meter(rows), memory_limit="10MiB")
        assert ("or pass paths instead of frames" in str(raised.value)) == told


def test_a_folder_that_holds_something_is_refused_before_spark_is_started(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(DatasetError, match="is not empty"):
        al.build_dataset(asked(), meter(observed()), engine="spark", into=tmp_path)


@pytest.mark.parametrize("engine", ["duckdb", "spark"])
@pytest.mark.parametrize("ask", [al.point_in_time_join, al.build_dataset])
def test_an_engine_that_keeps_no_limit_refuses_it(ask: Any, engine: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        ask(asked(), meter(observed()), memory_limit="4GiB", engine=engine)
    assert str(raised.value) == (
        f"memory_limit='4GiB' is given with engine='{engine}', which does not keep it\n\n"
        'hint: use engine="local", or leave the limit out.'
    )
    for spill in ("/data/tmp", Path("/data/tmp")):
        with pytest.raises(DefinitionError, match=f"spill='/data/tmp' is given with engine='{engine}', which does not"):
            ask(asked(), meter(observed()), spill=spill, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("ask", [al.point_in_time_join, al.build_dataset])
def test_a_limit_that_is_none_is_refused_by_every_engine(ask: Any, engine: str) -> None:
    with pytest.raises(al.AlignmentError, match="memory_limit='nonsense'"):
        ask(asked(), meter(observed()), memory_limit="nonsense", engine=engine)


@pytest.mark.parametrize("spill", ["s3://bucket/tmp", Path("s3://bucket/tmp"), "file:///tmp"])
@pytest.mark.parametrize("ask", [al.point_in_time_join, al.build_dataset])
def test_what_does_not_fit_cannot_wait_at_an_address(ask: Any, spill: str | Path) -> None:
    with pytest.raises(DefinitionError, match=r"(?s)spill='.*' is an address.*name one, e.g. spill='/data/tmp'"):
        ask(asked(), meter(observed()), memory_limit="64GiB", spill=spill)


@pytest.mark.parametrize("ask", [al.point_in_time_join, al.build_dataset, al.leak_report])
def test_threads_are_refused_where_the_cluster_has_its_own(ask: Any) -> None:
    with pytest.raises(DefinitionError, match="threads=2 is given with engine='spark', whose tasks have a thread each"):
        ask(asked(), meter(observed()), threads=2, engine="spark")


def test_what_fits_is_not_laid_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignment.larger.answer_in_parts", lambda *_a, **_k: pytest.fail("it fits"))
    joined = al.point_in_time_join(asked(), meter(observed()), memory_limit="64GiB")
    assert joined.equals(al.point_in_time_join(asked(), meter(observed())))


@pytest.mark.usefixtures("small")
def test_a_join_of_files_is_the_same_in_parts(tmp_path: Path) -> None:
    observed().write_parquet(tmp_path / "rows.parquet", row_group_size=50)
    asked().write_parquet(tmp_path / "spine.parquet", row_group_size=20)
    view = meter(tmp_path / "rows.parquet")
    joined = al.point_in_time_join(
        tmp_path / "spine.parquet", view, memory_limit="64GiB", spill=tmp_path / "spill", status=True
    )
    assert joined.equals(al.point_in_time_join(asked(), meter(observed()), status=True))
    assert names(tmp_path / "spill") == []


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("release", ["final", "first", "1h"])
def test_a_data_set_in_parts_has_the_same_bytes(tmp_path: Path, release: str) -> None:
    label = al.label("load_kw", "30m", tolerance="10m", release=release)
    whole = al.build_dataset(asked(), meter(observed()), label=label)
    parts = al.build_dataset(asked(), meter(observed()), label=label, into=tmp_path / "parts", memory_limit="64GiB")
    whole.write(tmp_path / "whole")
    assert parts.manifest == whole.manifest
    assert parts.frame.equals(whole.frame)
    assert parts.scan().select("label").collect().equals(whole.frame.select("label"))
    for name in ("data.parquet", "manifest.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert names(tmp_path) == ["parts", "whole"]
    assert names(tmp_path / "parts") == ["data.parquet", "manifest.json"]


@pytest.mark.usefixtures("small")
def test_a_data_set_in_parts_can_be_copied_and_written_again(tmp_path: Path) -> None:
    build = lambda: al.build_dataset(asked(), meter(observed()), into=tmp_path / "one", memory_limit="64GiB")  # noqa: E731
    dataset = build()
    assert repr(dataset) == f"Dataset(90 rows in {tmp_path / 'one'}, as of {dataset.manifest['as_of']})"
    dataset.write(tmp_path / "two")
    assert (tmp_path / "two/data.parquet").read_bytes() == (tmp_path / "one/data.parquet").read_bytes()
    dataset.write(tmp_path / "one")
    build()


def test_a_data_set_of_this_machine_has_one_layout(tmp_path: Path) -> None:
    made = al.build_dataset(asked(5), meter(observed(5)))
    with pytest.raises(DatasetError) as raised:
        made.write(tmp_path / "one", layout="delta")
    assert str(raised.value) == (
        "layout='delta' is none of a data set that is built here: it is one Parquet file\n\n"
        'hint: leave it out; of engine="spark" there is layout="delta" too.'
    )
    made.write(tmp_path / "one", layout="parquet")
    assert names(tmp_path / "one") == ["data.parquet", "manifest.json"]


@pytest.mark.usefixtures("small")
def test_another_data_set_is_not_overwritten_in_parts(tmp_path: Path) -> None:
    al.build_dataset(asked(50), meter(observed()), into=tmp_path, memory_limit="64GiB")
    before = (tmp_path / "data.parquet").read_bytes()
    with pytest.raises(DatasetError, match="holds another data set"):
        al.build_dataset(asked(), meter(observed()), into=tmp_path, memory_limit="64GiB")
    assert (tmp_path / "data.parquet").read_bytes() == before
    assert names(tmp_path) == ["data.parquet", "manifest.json"]


def test_a_data_set_that_fits_is_written_too(tmp_path: Path) -> None:
    dataset = al.build_dataset(asked(), meter(observed()), into=tmp_path / "set")
    assert json.loads((tmp_path / "set/manifest.json").read_text())["content_hash"] == dataset.manifest["content_hash"]


@pytest.mark.usefixtures("small")
def test_a_spine_without_rows_gives_no_rows_in_parts(tmp_path: Path) -> None:
    whole = al.build_dataset(
        asked(0).cast({"site": pl.String, "prediction_time": pl.Datetime("us", "UTC")}), meter(observed())
    )
    spine = whole.frame.select("site", "prediction_time", "note")
    parts = al.build_dataset(spine, meter(observed()), into=tmp_path, memory_limit="64GiB")
    assert parts.frame.equals(whole.frame)
    assert parts.manifest["content_hash"] == whole.manifest["content_hash"]


@pytest.mark.usefixtures("small")
def test_bad_rows_are_refused_in_parts_and_nothing_is_left(tmp_path: Path) -> None:
    rows = observed().with_columns(site=pl.when(pl.int_range(pl.len()) != 250).then("site"))
    with pytest.raises(NullKeyError, match="'site' is null in 1 rows"):
        al.build_dataset(asked(), meter(rows), into=tmp_path / "set", memory_limit="64GiB", spill=tmp_path / "spill")
    assert names(tmp_path / "spill") == []
    assert not (tmp_path / "set/data.parquet").exists()


@pytest.mark.usefixtures("small")
def test_more_at_one_instant_than_fits_is_refused(tmp_path: Path) -> None:
    rows = observed().with_columns(
        arrival_time=pl.lit(T0 + timedelta(days=1)),
        event_time=pl.col("event_time") - timedelta(days=2),
        site=pl.lit("a"),
    )
    with pytest.raises(MemoryLimitError, match=r"300 rows of one group of 'site' are needed at once"):
        al.point_in_time_join(asked(), meter(rows), memory_limit="64GiB", spill=tmp_path)
    assert names(tmp_path) == []


@pytest.mark.usefixtures("small")
def test_moved_arrivals_that_do_not_fit_are_refused() -> None:
    outage = al.Outage("meter", T0, T0 + timedelta(hours=2))
    with pytest.raises(MemoryLimitError, match="outages and delays move arrivals"):
        al.build_dataset(asked(), meter(observed()), outages=outage, memory_limit="64GiB")


@pytest.mark.usefixtures("small")
def test_a_full_disk_is_said_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spilling_store.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(SpillError, match=r"has 100 B free, and up to .* KiB may have to be kept there"):
        al.point_in_time_join(asked(), meter(observed()), memory_limit="64GiB", spill=tmp_path)


KILLED = """
    import os, signal, sys
    from alignment.engines.spilling_store import spill_folder
    with spill_folder(sys.argv[1], 0) as spill:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = names(tmp_path)
    assert [name.startswith(spilling_store.PREFIX) for name in left] == [True]
    with spilling_store.spill_folder(tmp_path, 0):
        mine = names(tmp_path)
        assert len(mine) == 1
        assert mine != left
        assert spilling_store.remove_left(tmp_path) == []
        assert names(tmp_path) == mine
    assert names(tmp_path) == []


def test_a_disk_that_fills_up_is_said(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    store = spilling_store.Store(tmp_path / "full", {"n": pl.Int64()})
    with pytest.raises(SpillError, match="rows cannot be kept on disk: .*No space left on device"):
        store.add(0, pl.DataFrame({"n": [1]}))
    store.remove()
    assert names(tmp_path) == []


def test_rows_are_written_alike_whatever_they_come_in(tmp_path: Path) -> None:
    frame = pl.DataFrame({"n": range(300_000), "t": ["x", "y", None] * 100_000})

    def pieces(step: int) -> Iterator[pl.DataFrame]:
        return (frame.slice(n, step) for n in range(0, frame.height, step))

    write_rows(pieces(1 << 20), tmp_path / "whole")
    write_rows(pieces(77_777), tmp_path / "parts")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "parts").read_bytes()


LIMIT_MIB = 480
BUILD = """
    import sys
    from pathlib import Path
    import polars as pl
    import alignment as al
    folder, limit = Path(sys.argv[1]), sys.argv[2] or None
    features = [al.window("load_kw", ["mean", "max"], "6h"), *(al.latest(f"load_{n}") for n in range(8))]
    view = al.FeatureView("meter", ["site"], folder / "rows.parquet", features)
    dataset = al.build_dataset(folder / "spine.parquet", view, into=folder / f"set{limit}", memory_limit=limit)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) // 1024, dataset.manifest["content_hash"])
"""


def test_a_limit_is_kept_that_the_build_exceeds_without_it(tmp_path: Path) -> None:
    rows = 3_000_000
    events = pl.select(
        (pl.int_range(rows) * 1_000_000 + 1_767_225_600_000_000).cast(pl.Datetime("us", "UTC"))
    ).to_series()
    pl.DataFrame(
        {
            "site": pl.int_range(rows, eager=True) * 7919 % 500,
            "event_time": events,
            "arrival_time": events + timedelta(minutes=3),
            "load_kw": pl.int_range(rows, eager=True).cast(pl.Float64) / 7,
            **{f"load_{n}": pl.int_range(rows, eager=True) * n for n in range(8)},
        }
    ).write_parquet(tmp_path / "rows.parquet", row_group_size=1 << 17)
    events.sample(100_000, seed=1).alias("prediction_time").to_frame().with_columns(
        site=pl.int_range(100_000) % 500
    ).write_parquet(tmp_path / "spine.parquet")

    def built(limit: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(BUILD), str(tmp_path), limit],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        peak, content = done.stdout.split()
        return int(peak), content

    peak, content = built(f"{LIMIT_MIB}MiB")
    without, same = built("")
    assert content == same
    assert peak <= LIMIT_MIB < without
