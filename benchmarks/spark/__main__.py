"""`python -m benchmarks.spark`: asknown on Spark beside plain Spark SQL, beside the local engine, and with a heavy entity."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

import alignment as al
from benchmarks.environments import HERE
from benchmarks.spark.cluster import cluster
from benchmarks.spark.data import Files, even, skewed
from benchmarks.spark.statements import ANSWERS, FORMS, PICKED, Question, features, statement
from benchmarks.spark.tasks import stages, wait_until_idle

CLOSE = 1e-9
CASES = ("sql", "overhead", "skew")


def main() -> int:
    """Run the chosen cases; 1 if an answer was wrong, else 0."""
    chosen = _arguments()
    figures: dict[str, Any] = {
        "python": platform.python_version(),
        "options": {k: str(v) for k, v in vars(chosen).items()},
    }
    with cluster(workers=chosen.workers, memory=chosen.memory, scratch=chosen.data / "spark") as session:
        figures["spark"] = session.version
        for case in chosen.only or CASES:
            figures[case] = {"sql": _sql, "overhead": _overhead, "skew": _skew}[case](session, chosen)
            if chosen.json is not None:
                chosen.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if all(one["right"] for case in chosen.only or CASES for one in figures[case]) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spark", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", action="append", choices=CASES, help="one case; may be repeated")
    parser.add_argument(
        "--rows", type=int, default=10_000_000, help="observations of `sql` and the first of `overhead`"
    )
    parser.add_argument(
        "--many", type=int, default=50_000_000, help="observations of `skew` and the second of `overhead`"
    )
    parser.add_argument("--spine", type=int, default=100_000, help="spine rows")
    parser.add_argument("--entities", type=int, nargs="+", default=[1_000, 100], help="entities of `sql`")
    parser.add_argument("--questions", nargs="+", default=list(FORMS), choices=list(FORMS), help="questions of `sql`")
    parser.add_argument("--forms", nargs="+", help="forms of SQL; default: all that the question has")
    parser.add_argument("--rounds", type=int, default=2, help="timed rounds after the warm-up")
    parser.add_argument("--longest", type=float, default=900, help="seconds after which a form of SQL is given up")
    parser.add_argument("--workers", type=int, default=2, help="executors of one core each")
    parser.add_argument("--memory", default="2g", help="heap of each executor and of the driver")
    parser.add_argument("--data", type=Path, default=HERE / ".data", help="where data sets are kept between runs")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args()


# --- against plain SQL ------------------------------------------------------------------------------------------------


def _sql(session: Any, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    for entities in chosen.entities:
        files = even(chosen.rows, chosen.spine, entities, chosen.data)
        session.read.parquet(str(files.observations)).createOrReplaceTempView("observations")
        session.read.parquet(str(files.spine)).createOrReplaceTempView("spine")
        for question in chosen.questions:
            names = [name for name in FORMS[question] if chosen.forms is None or name in chosen.forms]
            print(f"{chosen.rows:,} x {chosen.spine:,}, {entities:,} entities, {question}", flush=True)
            exact = pl.DataFrame(_answer(_local(files, question))).sort("row")
            runs: dict[str, Callable[[], Any]] = {"asknown": lambda: _ours(session, files, question)}  # noqa: B023
            runs |= {name: lambda name=name: session.sql(statement(name, question)) for name in names}  # type: ignore[misc]  # noqa: B023
            out = chosen.data / "spark" / "answer"
            wrong: dict[str, int | None] = {"asknown": _wrong(_written(runs["asknown"](), out), exact)}
            for name, run in list(runs.items())[1:]:
                done = _finished(session, lambda run=run, out=out: _write(run(), out), chosen.longest)  # type: ignore[misc]
                wrong[name] = _wrong(_read(out), exact) if done else None
            walls: dict[str, list[float]] = {name: [] for name in runs if wrong[name] is not None}
            for _ in range(chosen.rounds):
                for name, seconds in walls.items():
                    seconds.append(_timed(lambda run=runs[name], out=out: _write(run(), out)))  # type: ignore[misc]
            ours = statistics.median(walls["asknown"])
            for name, count in wrong.items():
                if count is None:
                    least = f"over {chosen.longest:.0f} s, given up: over {chosen.longest / ours:.1f} times asknown"
                    print(f"  {name:10} {least}", flush=True)
                    continue
                wall = statistics.median(walls[name])
                judged = f"WRONG in {count} rows" if count else "right"
                print(f"  {name:10} {wall:8.1f} s   {wall / ours:5.1f} times asknown   {judged}", flush=True)
            told = {"rows": chosen.rows, "spine": chosen.spine, "entities": entities, "question": question}
            found.append(told | {"right": not any(wrong.values()), "wrong": wrong, "seconds": walls})
    return found


def _finished(session: Any, run: Callable[[], Any], longest: float) -> bool:
    """Run it; False if it took longer than that many seconds and was cancelled."""
    given_up = threading.Event()
    session.sparkContext.setInterruptOnCancel(True)

    def cancel() -> None:
        given_up.set()
        session.sparkContext.cancelAllJobs()

    timer = threading.Timer(longest, cancel)
    timer.start()
    try:
        run()
    except Exception:
        if not given_up.is_set():
            raise
        wait_until_idle(session)
        return False
    finally:
        timer.cancel()
    return True


def _view(files: Files, declared: list[Any]) -> al.FeatureView:
    return al.FeatureView("o", ["entity"], str(files.observations), declared)


def _local(files: Files, question: Question) -> pl.DataFrame:
    rows = al.FeatureView("o", ["entity"], str(files.observations / "*.parquet"), features(question))
    return al.point_in_time_join(pl.read_parquet(files.spine), [rows])


def _ours(session: Any, files: Files, question: Question) -> Any:
    view = _view(files, features(question))
    return al.point_in_time_join(str(files.spine), [view], engine="spark", spark=session)


def _ours_written(session: Any, files: Files, out: Path) -> None:
    _write(_ours(session, files, "open"), out)


def _answer(frame: pl.DataFrame) -> pl.DataFrame:
    """The answers under the names of the question; of SQL they have them."""
    ours = [name for name in frame.columns if name.startswith("o__")]
    return frame.rename(dict(zip(ours, ANSWERS, strict=True))) if ours else frame


def _write(answer: Any, out: Path) -> None:
    answer.write.mode("overwrite").parquet(str(out))


def _written(answer: Any, out: Path) -> pl.DataFrame:
    _write(answer, out)
    return _read(out)


def _read(out: Path) -> pl.DataFrame:
    return _answer(pl.read_parquet(out / "*.parquet")).sort("row")


def _wrong(given: pl.DataFrame, exact: pl.DataFrame) -> int:
    """In how many rows an answer is wrong: picked values equal, aggregates within 1e-9 (relative)."""
    if given["row"].to_list() != exact["row"].to_list():
        return max(given.height, exact.height)
    right = pl.Series([True] * exact.height)
    for name in ANSWERS:
        one, other = exact[name], given[name]
        same = one.eq_missing(other)
        if name not in PICKED:
            same = same | ((one - other).abs() <= CLOSE * one.abs().clip(1.0)).fill_null(value=False)
        right = right & same
    return int((~right).sum())


def _timed(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


# --- against the local engine -----------------------------------------------------------------------------------------


def _overhead(session: Any, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    for rows in (chosen.rows, chosen.many):
        files = even(rows, chosen.spine, chosen.entities[0], chosen.data)
        out = chosen.data / "spark" / "answer"
        exact = _answer(_local(files, "open")).sort("row")
        same = bool(_written(_ours(session, files, "open"), out).equals(exact, null_equal=True))
        runs: dict[str, Callable[[], Any]] = {
            "local": partial(_local, files, "open"),
            "spark": partial(_ours_written, session, files, out),
        }
        walls = {name: statistics.median(_timed(run) for _ in range(chosen.rounds)) for name, run in runs.items()}
        local, spark = walls["local"], walls["spark"]
        told = "the same rows" if same else "OTHER rows"
        print(
            f"{rows:,} x {chosen.spine:,}: local {local:.1f} s, spark {spark:.1f} s: {spark / local:.1f} times, {told}",
            flush=True,
        )
        found.append({"rows": rows, "spine": chosen.spine, "right": same, "local": local, "spark": spark})
    return found


# --- a heavy entity ---------------------------------------------------------------------------------------------------


def _skew(session: Any, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    files = skewed(chosen.many, chosen.spine, 1_000, chosen.data)
    declared = [
        al.latest("temp"),
        al.latest("load"),
        al.lag("temp", "24h"),
        al.window("temp", ["mean", "std", "min", "max", "sum"], "1h"),
    ]
    out = chosen.data / "spark" / "answer"
    view = _view(files, declared)

    def ours() -> None:
        _write(al.point_in_time_join(str(files.spine), [view], engine="spark", spark=session), out)

    ours()
    before = max(stage.number for stage in stages(session))
    wall = _timed(ours)
    ran = [stage for stage in stages(session, after=before) if len(stage.seconds) > 2]
    print(f"{chosen.many:,} x {chosen.spine:,}, half of both one entity's: {wall:.1f} s", flush=True)
    for stage in ran:
        ratio = stage.longest / max(stage.median, 1e-3)
        print(
            f"  stage {stage.number}: {len(stage.seconds)} tasks, median {stage.median:.2f} s, longest {stage.longest:.2f} s: {ratio:.2f} times",
            flush=True,
        )
    answering = ran[-1]
    exact = al.point_in_time_join(
        pl.read_parquet(files.spine), [al.FeatureView("o", ["entity"], str(files.observations / "*.parquet"), declared)]
    ).sort("row")
    same = bool(pl.read_parquet(out / "*.parquet").sort("row").equals(exact, null_equal=True))
    print(f"  {'the same rows as' if same else 'OTHER rows than'} the local engine", flush=True)
    told = {
        str(stage.number): {"tasks": len(stage.seconds), "median": stage.median, "longest": stage.longest}
        for stage in ran
    }
    bound = answering.longest <= 2 * answering.median
    return [{"rows": chosen.many, "right": same, "wall": wall, "stages": told, "within_twice_the_median": bound}]


if __name__ == "__main__":
    sys.exit(main())
