"""Through Feast and without it the answers are the same, whatever the seed, the engine, the row order and the hashes."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, String
from feast_repos import OURS_OFFLINE, store
from makers import at
from oracle_frames import Source, answers

import alignment as al

MINUTE = timedelta(minutes=1)
COLUMNS = ["temp", "note"]


def made(seed: int, rows: int = 400) -> tuple[pl.DataFrame, pd.DataFrame]:
    """Observations with late rows and corrections on few instants, so that ties and exact boundaries are common."""
    draw = random.Random(seed)
    ten = at("10:00")
    assert ten is not None
    seen, cells = set(), []
    while len(cells) < rows:
        key = (draw.choice("ab"), draw.choice(["1", "11"]), ten + draw.randrange(40) * 10 * MINUTE)
        arrival = key[2] + draw.choice([0, 10, 10, 20, 60, 300]) * MINUTE
        if (key, arrival) not in seen:
            seen.add((key, arrival))
            cells.append((*key, arrival, draw.choice([None, float(len(cells))]), f"n{len(cells)}"))
    instant = pl.Datetime("us", "UTC")
    schema = {
        "site": pl.String,
        "meter": pl.String,
        "event_time": instant,
        "arrival_time": instant,
        "temp": pl.Float64,
        "note": pl.String,
    }
    asked = [(draw.choice("abc"), draw.choice(["1", "11"]), ten + draw.randrange(90) * 5 * MINUTE) for _ in range(120)]
    return pl.DataFrame(cells, schema=schema, orient="row"), pd.DataFrame(
        asked, columns=["site", "meter", "event_timestamp"]
    )


def feast_store(folder: Path, frame: pl.DataFrame, ttl: timedelta | None, **offline: Any) -> FeatureStore:
    frame.write_parquet(folder / "rows.parquet")
    keys = [Entity(name=name, join_keys=[name], value_type=ValueType.STRING) for name in ("site", "meter")]
    source = FileSource(
        name="rows",
        path=str(folder / "rows.parquet"),
        timestamp_field="event_time",
        created_timestamp_column="arrival_time",
    )
    fields = [Field(name="temp", dtype=Float64), Field(name="note", dtype=String)]
    view = FeatureView(name="v", entities=keys, schema=fields, source=source, ttl=ttl)
    found = store(
        folder, online={"type": "sqlite", "path": str(folder / "o.db")}, offline={"type": OURS_OFFLINE, **offline}
    )
    found.apply([*keys, view])
    return found


def asked_of(feast: FeatureStore, asked: pd.DataFrame) -> list[list[Any]]:
    answer = feast.get_historical_features(asked, [f"v:{name}" for name in COLUMNS]).to_arrow()
    return [answer[name].to_pylist() for name in COLUMNS]


def expected_of(frame: pl.DataFrame, asked: pd.DataFrame, ttl: timedelta | None) -> list[list[Any]]:
    """What the rules say, as plain loops."""
    age = None if ttl is None else f"{ttl // MINUTE}m"
    source = Source("v", frame, ("site", "meter"), tuple(map(al.latest, COLUMNS)), max_event_age=age)
    found = answers(pl.from_pandas(asked), [source], prediction_time="event_timestamp")
    return [[answer.value for answer in found[f"v__{name}"]] for name in COLUMNS]


def by_event(frame: pl.DataFrame) -> pl.DataFrame:
    """The same rows as they count with arrival off: known at their event, revisions in the order of their creation."""
    order = pl.col("arrival_time").to_physical().alias("log_sequence")
    return frame.with_columns(order, arrival_time=pl.col("event_time"))


@pytest.mark.parametrize("ttl", [None, timedelta(minutes=50)], ids=["no ttl", "ttl"])
@pytest.mark.parametrize("engine", ["local", "duckdb"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_answers_are_those_of_the_oracle(tmp_path: Path, seed: int, engine: str, ttl: timedelta | None) -> None:
    frame, asked = made(seed)
    assert asked_of(feast_store(tmp_path, frame, ttl, engine=engine), asked) == expected_of(frame, asked, ttl)


@pytest.mark.parametrize("ttl", [None, timedelta(minutes=50)], ids=["no ttl", "ttl"])
def test_with_arrival_off_they_are_those_of_rows_that_were_known_at_their_event(
    tmp_path: Path, ttl: timedelta | None
) -> None:
    frame, asked = made(4)
    assert asked_of(feast_store(tmp_path, frame, ttl, arrival=False), asked) == expected_of(by_event(frame), asked, ttl)


def test_the_order_of_rows_in_the_file_does_not_matter(tmp_path: Path) -> None:
    frame, asked = made(5)
    found = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        found.append(
            asked_of(
                feast_store(tmp_path / str(number), frame.sample(fraction=1, shuffle=True, seed=number), None), asked
            )
        )
    assert found[0] == found[1] == found[2]


SCRIPT = """
import sys, tempfile, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import hashlib
import test_offline_differential as here
frame, asked = here.made(6)
with tempfile.TemporaryDirectory() as folder:
    found = here.asked_of(here.feast_store(Path(folder), frame, None), asked)
print(hashlib.sha256(repr(found).encode()).hexdigest())
"""


def test_three_hash_seeds_give_the_same_answers(tmp_path: Path) -> None:
    frame, asked = made(6)
    expected = hashlib.sha256(repr(expected_of(frame, asked, None)).encode()).hexdigest()
    here = Path(__file__).resolve()
    path = os.pathsep.join([str(here.parent), str(here.parents[1]), str(Path(al.__file__).parents[1])])
    for seed in ("0", "1", "4242"):
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout.strip() == expected
