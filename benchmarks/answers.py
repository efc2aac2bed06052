"""Whether an answer is right: compared, row by row, with the reference."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from json import dumps
from pathlib import Path

import polars as pl

from benchmarks.data import DataSet
from benchmarks.question import Question

REFERENCE = "duckdb_sql"
CLOSE = 1e-9  # sums may be rounded in another order; picked values must be equal


@dataclass(frozen=True)
class Verdict:
    """How many of the checked rows are wrong, and the first of them."""

    checked: int
    wrong: int
    first: str = ""

    def __str__(self) -> str:
        if not self.wrong:
            return f"right ({self.checked:,} rows)"
        return f"WRONG {_percent(self.wrong / self.checked)} of {self.checked:,}"


def _percent(share: float) -> str:
    return f"{share:.2%}" if share >= 0.0001 else f"{share:.1e}"


def reference_answer(question: Question, data: DataSet) -> Path:
    """The exact answer of the checked rows, by the reference contender; kept beside the data."""
    asked = {
        **question.to_dict(),
        "observations": str(data.checked_observations),
        "from_disk": False,
        "output": "",
        "log": "",
    }
    asked["kind"] = "latest" if question.kind == "training_set" else question.kind
    asked["spine"] = str(data.checked_spine) if question.spine else ""
    name = sha256(dumps([asked, _statement_version()], sort_keys=True).encode()).hexdigest()[:12]
    target = data.spine.parent / f"reference-{name}.parquet"
    if not target.exists():
        code = (
            "import sys, json; from pathlib import Path; from benchmarks.question import Question;"
            f"from benchmarks.contenders import {REFERENCE} as c;"
            "c.write(c.run(c.load(Question.from_dict(json.loads(sys.argv[1])))), Path(sys.argv[2]))"
        )
        part = target.with_suffix(".part")
        subprocess.run(
            [sys.executable, "-c", code, dumps(asked), str(part)], check=True, cwd=Path(__file__).parent.parent
        )
        part.rename(target)
    return target


def _statement_version() -> str:
    return sha256((Path(__file__).parent / "contenders" / f"{REFERENCE}.py").read_bytes()).hexdigest()


def judge(answer: Path, reference: Path, question: Question) -> Verdict:
    """Compare an answer with the reference on the reference's rows.

    A row is wrong if any of its columns differs: null against a value, or numbers that are not equal (aggregates: not
    within 1e-9 of each other, relative). A row that is missing is wrong; so is one that is there twice, and, where the
    reference covers everything, one too many.
    """
    keys, columns = question.key_columns(), question.answer_columns()
    exact, given = pl.read_parquet(reference), pl.read_parquet(answer)
    exact = exact.select(*keys, *(pl.col(name).cast(pl.Float64) for name in columns))
    given = given.select(
        *(pl.col(name).cast(exact.schema[name]) for name in keys),
        *(pl.col(name).cast(pl.Float64).fill_nan(None).alias(f"{name}__given") for name in columns),
    )
    extra = 0
    if question.kind == "snapshot":
        extra = given.join(exact, on=keys, how="anti").height
    twice = given.filter(given.select(keys).is_duplicated()).select(keys).unique().with_columns(twice=True)
    joined = exact.join(given.unique(keys).with_columns(there=True), on=keys, how="left").join(
        twice, on=keys, how="left"
    )
    same = [_same(name, question) for name in columns]
    right = pl.all_horizontal(pl.col("there").fill_null(value=False), pl.col("twice").is_null(), *same)
    wrong = joined.filter(~right)
    first = str(wrong.drop("there", "twice").row(0, named=True)) if wrong.height else ""
    return Verdict(exact.height + extra, wrong.height + extra, first)


def _same(name: str, question: Question) -> pl.Expr:
    exact, given = pl.col(name), pl.col(f"{name}__given")
    if question.kind != "windows":
        return exact.eq_missing(given)
    near = (exact - given).abs() <= CLOSE * pl.max_horizontal(exact.abs(), pl.lit(1.0))
    return (exact.is_null() & given.is_null()) | near.fill_null(value=False)
