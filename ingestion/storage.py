"""Where a log lives: what it needs of a folder or an object store beyond what everything that is written there does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
import pyarrow.fs as pafs

from alignment import location
from ingestion.errors import AddressError, StoreError

try:
    import fcntl
except ImportError:  # pragma: no cover - no such lock outside POSIX; the commit itself is safe without
    fcntl = None  # type: ignore[assignment]

COMPRESSION: Literal["lz4"] = "lz4"  # measured: three times faster to read than zstd, 15% larger
ROW_GROUP_ROWS = 131_072


@dataclass(frozen=True, slots=True)
class Location(location.Location):
    """A folder on disk or a prefix in an object store, with a log in it.

    Attributes:
        address: A path or a URI that `deltalake` and Polars accept.
        storage_options: Credentials and settings, passed through to both.
    """

    refusal = AddressError
    failure = StoreError

    def modified_us(self, name: str) -> int | None:
        """When a file was last changed, by the store's own clock."""
        info = self.patiently(lambda: self.filesystem().get_file_info(name))
        return info.mtime_ns // 1_000 if info.type == pafs.FileType.File and info.mtime_ns is not None else None

    def write_parquet(self, name: str, frame: pl.DataFrame) -> int:
        """Write a Parquet file durably; one that cannot be finished leaves nothing behind.

        Returns:
            Its size in bytes.

        Raises:
            OSError: If the disk is full, say.
        """
        if self.folder is not None:
            path = self.folder / name
            try:
                frame.write_parquet(path, compression=COMPRESSION, row_group_size=ROW_GROUP_ROWS)
                sync_file(path)
            except OSError:
                path.unlink(missing_ok=True)
                raise
            except pl.exceptions.ComputeError as error:  # so Polars tells what the system said, or half of it
                path.unlink(missing_ok=True)
                raise OSError(f"{path} cannot be written: {error}") from error
            return path.stat().st_size
        address = f"{self.address}/{name}"

        def send() -> int:
            try:  # by Polars, which lets other threads go on meanwhile; `write` does not
                frame.write_parquet(
                    address,
                    compression=COMPRESSION,
                    row_group_size=ROW_GROUP_ROWS,
                    storage_options=self.storage_options,
                )
            except pl.exceptions.ComputeError as error:
                raise OSError(f"{address} cannot be written: {error}") from error
            return int(self.filesystem().get_file_info(name).size)

        return self.patiently(send)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        """Hold a lock that the system takes back when the process dies.

        It saves lost races and guards deletion; commits are right without it.

        Yields:
            Whether there is such a lock here: on local folders of POSIX systems.
        """
        if self.folder is None or fcntl is None:
            yield False
            return
        path = self.folder / "_asknown" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                yield True
            finally:
                fcntl.flock(handle, fcntl.LOCK_UN)


def sync_file(path: Path) -> None:
    """Wait until a file is on the disk and not only in memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
