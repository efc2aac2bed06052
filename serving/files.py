"""Parquet files and pictures that a user names: what is wrong with the file is said, not raised from inside a library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import polars as pl

from serving.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PICTURES = (".png", ".svg", ".pdf")


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The rows of a Parquet file.

    Args:
        path: The file.
        columns: Which of its columns; None reads all.

    Returns:
        The frame.

    Raises:
        OptionError: If it is not a Parquet file, or lacks a column.
        OSError: If it cannot be read.
        ComputeError: If the operating system could not read it whole.
    """
    if path.is_dir():
        raise OptionError(f"{path} is a folder, not a Parquet file", f"name the files: {path}/*.parquet")
    try:
        return pl.read_parquet(path, columns=None if columns is None else list(columns))
    except pl.exceptions.ColumnNotFoundError as error:
        raise OptionError(f"{path}: {str(error).partition(chr(10))[0]}", "name a file that has this column") from error
    except pl.exceptions.ComputeError as error:
        if is_about_storage(error):
            raise
        reader = f'pl.read_csv("{path}")' if path.suffix.lower() == ".csv" else "your reader's frame"
        raise OptionError(f"{path} is not a Parquet file", f"convert it: {reader}.write_parquet(...)") from error


def is_about_storage(error: Exception) -> bool:
    """Whether Polars or deltalake passes on what the operating system said: a full disk, say."""
    return "os error" in str(error)


def check_picture(path: Path | None) -> None:
    """Refuse a picture in a form that nobody promised, before the work is done.

    Args:
        path: Where the picture is to go; None for none.

    Raises:
        OptionError: If its ending is none of .png, .svg, .pdf.
    """
    if path is not None and path.suffix.lower() not in PICTURES:
        raise OptionError(
            f"--picture {path} does not end in {', '.join(PICTURES)}", f"write --picture {path.with_suffix('.png')}"
        )


class ParquetFile:
    """A Parquet file that is written frame by frame, and is there only once all of it is.

    Args:
        path: The file; None writes nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._writer: Any = None

    def write(self, frame: pl.DataFrame) -> None:
        """Add rows; all frames have the same columns."""
        if self._path is None:
            return
        table = frame.to_arrow()
        if self._writer is None:
            from pyarrow import parquet

            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = parquet.ParquetWriter(self._partial, table.schema, compression="zstd")
        self._writer.write_table(table.cast(self._writer.schema))

    @property
    def _partial(self) -> Path:
        if self._path is None:
            raise ValueError("there is no file")
        return self._path.with_name(self._path.name + ".partial")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._writer is None or self._path is None:
            return
        self._writer.close()
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink()
