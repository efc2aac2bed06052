"""Historic files piece by piece: always the same pieces of the same file, each small enough for memory."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ingestion.errors import PayloadError
from ingestion.sources.absent import with_all_columns
from ingestion.sources.layout import Layout
from ingestion.sources.parsing import parse_payload

CHUNK_ROWS: Final = 1_000_000
"""Rows of a piece. A piece is named by its file's digest and its number, so this number must stay what it is."""
BLOCK_BYTES: Final = 16 << 20
_READ: Final = 1 << 20
_ENDINGS: Final = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of a file.

    Attributes:
        number: Counted from 0 in the file.
        records: How many rows it has there.
        fraction: How much of the file is read by its end, 0 to 1.
        rows: Parses it; raises `PayloadError`.
    """

    number: int
    records: int
    fraction: float
    rows: Callable[[], pl.DataFrame]


def digest_of(path: Path) -> str:
    """What a file is known by: a digest of its bytes, whatever it is called."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def chunks_of(path: Path, layout: Layout | None, *, provider: str, chunk_rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
    """The pieces of a file, in its order.

    Parquet, CSV and NDJSON (the latter two perhaps gzipped) are read piece by piece; JSON and Arrow as a whole.

    Args:
        path: The file.
        layout: What its columns are called; `None` takes them by their names.
        provider: For messages.
        chunk_rows: Rows of a piece.

    Yields:
        Pieces, whose rows are parsed only when they are asked for.

    Raises:
        PayloadError: If the file is of no use.
        OSError: If it cannot be read.
    """
    wanted = layout or Layout()
    kind = wanted.format if wanted.format != "auto" else _kind(path)
    if kind == "parquet":
        yield from _parquet(path, layout, provider, chunk_rows)
    elif kind in {"csv", "ndjson"} and not wanted.encoding.lower().startswith("utf-16"):
        own = wanted.model_copy(update={"format": kind})
        yield from _lines(path, own, provider, chunk_rows)
    else:
        rows = parse_payload(path.read_bytes(), wanted, provider=provider, label=path.name, max_bytes=1 << 40)
        for number, start in enumerate(range(0, rows.height, chunk_rows)):
            part = rows[start : start + chunk_rows]
            yield Chunk(
                number=number,
                records=part.height,
                fraction=min(1.0, (start + chunk_rows) / rows.height),
                rows=lambda part=part: part,  # type: ignore[misc]
            )


def _kind(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    return _ENDINGS.get(suffixes[-1], "auto") if suffixes else "auto"


# ---- Parquet ---------------------------------------------------------------------------------------------------------


def _parquet(path: Path, layout: Layout | None, provider: str, chunk_rows: int) -> Iterator[Chunk]:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise PayloadError(provider, path.name, f"not Parquet: {str(error).splitlines()[0]}") from error
    with file:
        total = file.metadata.num_rows
        for number, table in enumerate(_tables(file, chunk_rows)):
            done = min(total, number * chunk_rows + table.num_rows)
            yield Chunk(
                number=number,
                records=table.num_rows,
                fraction=done / total if total else 1.0,
                rows=lambda table=table: _laid_out(table, layout, provider, path.name),  # type: ignore[misc]
            )


def _tables(file: pq.ParquetFile, chunk_rows: int) -> Iterator[pa.Table]:
    """The rows of a file in tables of exactly `chunk_rows`, however its row groups are cut."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in file.iter_batches(batch_size=min(chunk_rows, 1 << 16)):
        waiting.append(batch)
        rows += batch.num_rows
        while rows >= chunk_rows:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, chunk_rows)
            waiting = table.slice(chunk_rows).to_batches()
            rows -= chunk_rows
    if rows:
        yield pa.Table.from_batches(waiting)


def _laid_out(table: pa.Table, layout: Layout | None, provider: str, label: str) -> pl.DataFrame:
    if layout is None:
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 - for the type checker
        return frame
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    as_arrow = layout.model_copy(update={"format": "arrow"})
    return parse_payload(sink.getvalue(), as_arrow, provider=provider, label=label, max_bytes=1 << 40)


# ---- lines -----------------------------------------------------------------------------------------------------------


def _lines(path: Path, layout: Layout, provider: str, chunk_rows: int) -> Iterator[Chunk]:
    """Pieces of a file of lines; of CSV each begins with the header again."""
    size = path.stat().st_size
    quoted = layout.format == "csv"
    with path.open("rb") as raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        records = _records(gzip.GzipFile(fileobj=raw) if packed else raw, quoted=quoted)
        header = next(records, b"") if quoted else b""
        number, waiting = 0, _Waiting()
        for record in records:
            waiting.add(record)
            if waiting.records == chunk_rows:
                place = f"{path.name}, rows from {number * chunk_rows:,}" if number else path.name
                yield _piece(waiting, number, min(1.0, raw.tell() / size), header, layout, provider, place)
                number, waiting = number + 1, _Waiting()
        if waiting.records or not number:
            place = f"{path.name}, rows from {number * chunk_rows:,}" if number else path.name
            yield _piece(waiting, number, 1.0, header, layout, provider, place)


class _Waiting:
    """Records on their way into a piece, in blocks that are parsed one by one."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.records = 0
        self._open: list[bytes] = []
        self._size = 0

    def add(self, record: bytes) -> None:
        self._open.append(record)
        self._size += len(record)
        self.records += 1
        if self._size >= BLOCK_BYTES:
            self.close()

    def close(self) -> None:
        if self._open:
            self.blocks.append(b"".join(self._open))
        self._open, self._size = [], 0


def _piece(
    waiting: _Waiting, number: int, fraction: float, header: bytes, layout: Layout, provider: str, label: str
) -> Chunk:
    waiting.close()
    blocks = waiting.blocks

    def rows() -> pl.DataFrame:
        parts = [
            parse_payload(header + block, layout, provider=provider, label=label, max_bytes=1 << 40)
            for block in blocks or [b""]
            if header or block
        ]
        if layout.mark_absent:
            parts = with_all_columns(parts)
        return pl.concat(parts, how="diagonal_relaxed") if parts else pl.DataFrame()

    return Chunk(number=number, records=waiting.records, fraction=fraction, rows=rows)


def _records(file: Iterable[bytes], *, quoted: bool) -> Iterator[bytes]:
    """Lines that are not blank, with their ends; a line break inside quotation marks belongs to its record."""
    held = b""
    for line in file:
        held += line
        if quoted and held.count(b'"') % 2:
            continue
        if held.strip():
            yield held if held.endswith(b"\n") else held + b"\n"
        held = b""
    if held.strip():
        yield held
