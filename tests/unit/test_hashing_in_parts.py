"""A column's digest is the same whether it is in memory or read from a file in pieces, of every type."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from alignment.hashing import file_digests, frame_hash, hash_of

AT = datetime(2026, 3, 29, 1, tzinfo=UTC)
COLUMNS = {
    "float": pl.Series([1.5, None, float("nan"), -0.0, float("inf")]),
    "float32": pl.Series([1.5, 2.5, None, 0.0, 1.0], dtype=pl.Float32),
    "int": pl.Series([1, 2, 3, 4, 5]),
    "uint8": pl.Series([1, None, 3, None, 5], dtype=pl.UInt8),
    "int128": pl.Series([1, None, 1 << 100, -5, 0], dtype=pl.Int128),
    "boolean": pl.Series([True, None, False, True, True]),
    "text": pl.Series(["", "a", None, "Zürich", "longer than twelve bytes"]),
    "bytes": pl.Series([b"", b"\x00", None, b"abc", b"longer than twelve bytes"]),
    "category": pl.Series(["b", "a", None, "b", "c"], dtype=pl.Categorical),
    "enum": pl.Series(["b", "a", None, "b", "a"], dtype=pl.Enum(["a", "b"])),
    "instant": pl.Series([AT, None, AT, AT, AT], dtype=pl.Datetime("us", "UTC")),
    "local": pl.Series([AT, None, AT, AT, AT], dtype=pl.Datetime("ns", "Europe/Berlin")),
    "length": pl.Series([timedelta(hours=1), None, timedelta(0), timedelta(1), timedelta(2)]),
    "date": pl.Series([date(2026, 1, 1), None, date(1969, 1, 1), date(2026, 1, 1), date(2026, 1, 1)]),
    "time": pl.Series([time(1), None, time(2), time(3), time(4)]),
    "decimal": pl.Series([Decimal("1.50"), None, Decimal("-2.25"), Decimal(0), Decimal(3)], dtype=pl.Decimal(10, 2)),
    "null": pl.Series([None] * 5, dtype=pl.Null),
    "list": pl.Series([[1, None], [], None, [3], [4, 5, 6]], dtype=pl.List(pl.Int32)),
    "texts": pl.Series([["a", None], [], None, ["bc"], [""]], dtype=pl.List(pl.String)),
    "array": pl.Series([[1.0, None], [2.0, 3.0], None, [4.0, 5.0], [6.0, 7.0]], dtype=pl.Array(pl.Float64, 2)),
    "lists": pl.Series([[[1], []], [], None, [None, [2, 3]], [[4]]], dtype=pl.List(pl.List(pl.Int64))),
    "struct": pl.Series([{"a": 1, "b": "x"}, {"a": None, "b": None}, None, {"a": 3, "b": "z"}, {"a": 4, "b": "w"}]),
}


def in_file(frame: pl.DataFrame, folder: Path, rows: int, *, row_group: int = 2) -> str:
    path = folder / "data.parquet"
    frame.write_parquet(path, compression="lz4", row_group_size=row_group)
    assert pl.read_parquet(path).schema == frame.schema
    return hash_of(frame.height, file_digests(path, rows=rows))


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_a_column_of_any_type_hashes_alike_in_memory_and_from_a_file(name: str, rows: int, tmp_path: Path) -> None:
    frame = COLUMNS[name].alias(name).to_frame()
    assert in_file(frame, tmp_path, rows) == frame_hash(frame)


@pytest.mark.parametrize("name", COLUMNS)
def test_an_empty_column_hashes_alike_in_memory_and_from_a_file(name: str, tmp_path: Path) -> None:
    frame = COLUMNS[name].alias(name).head(0).to_frame()
    assert in_file(frame, tmp_path, 3) == frame_hash(frame)


def test_many_columns_hash_alike_and_their_order_counts(tmp_path: Path) -> None:
    frame = pl.DataFrame([column.alias(name) for name, column in COLUMNS.items()])
    assert in_file(frame, tmp_path, 3) == frame_hash(frame)
    assert frame_hash(frame) != frame_hash(frame.select(reversed(frame.columns)))


def test_a_null_in_the_last_piece_counts_from_the_first(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": [1, 2, 3, 4, None]})
    assert in_file(frame, tmp_path, 1) == frame_hash(frame)


def test_the_digest_is_that_of_the_nulls_the_sizes_and_the_values() -> None:
    frame = pl.DataFrame({"x": ["ab", None, "c"]})
    column = hashlib.sha256(b"\x00x\x00String\x00")
    column.update(bytes([0, 1, 0]))
    column.update((2).to_bytes(4, "little") + (1).to_bytes(4, "little"))
    column.update(b"abc")
    assert frame_hash(frame) == hashlib.sha256(b"3" + column.digest()).hexdigest()
