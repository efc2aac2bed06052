"""Rows on disk while a join is made: one file per kind of row, in pieces that can be found again by number."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path

import polars as pl

from alignment.errors import SpillError
from alignment.memory import size_text

PREFIX, LOCK = "asknown-spill-", "in-use"
_SHARE = 0.8
"""What rows come to on disk at most, of their size in memory, however badly they compress, is taken to be this."""


@contextlib.contextmanager
def spill_folder(parent: str | Path | None, needed: int) -> Iterator[Spill]:
    """A new folder that is gone afterwards, also after an error; what a killed run left beside it is removed first.

    Args:
        parent: Where; None for the system's folder of temporary files.
        needed: Bytes of rows, in memory, that may have to be kept at first.

    Raises:
        SpillError: If it cannot be made, or the disk is too full.
    """
    home = Path(tempfile.gettempdir() if parent is None else parent)
    try:
        home.mkdir(parents=True, exist_ok=True)
        remove_left(home)
        _check_free(home, needed)
        folder, lock = _locked(home)
    except OSError as error:
        raise SpillError(f"{home} cannot hold rows: {error}", "name a folder that can: spill='/data/tmp'.") from error
    spill = Spill(folder)
    try:
        yield spill
    finally:
        spill.close()
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _check_free(home: Path, needed: int) -> None:
    """Refuse a disk that is too full.

    Raises:
        SpillError: If it is.
    """
    free = shutil.disk_usage(home).free
    if free < needed * _SHARE:
        raise SpillError(
            f"{home} has {size_text(free)} free, and up to {size_text(needed * _SHARE)} may have to be kept there",
            "name another folder, e.g. spill='/data/tmp', or allow more memory.",
        )


def _locked(home: Path) -> tuple[Path, int]:
    """A new folder and its lock, which is held before the folder has the name by which others look for left ones."""
    made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=home))
    lock = os.open(made / LOCK, os.O_CREAT | os.O_RDWR)
    _try_lock(lock)
    return made.rename(home / made.name[1:]), lock


def remove_left(home: Path) -> list[Path]:
    """Remove what runs left that were killed; which folders that were."""
    removed = []
    for folder in home.glob(f"{PREFIX}*"):
        try:
            lock = os.open(folder / LOCK, os.O_RDWR)
        except OSError:  # another's, or not locked yet
            continue
        try:
            if _try_lock(lock):
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder)
        finally:
            os.close(lock)
    return removed


def _try_lock(lock: int) -> bool:
    """Whether nobody else holds it; False where the system has no locks."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class Spill:
    """A folder of stores.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stores: list[Store] = []

    def store(self, schema: Mapping[str, pl.DataType]) -> Store:
        """A new store for rows with these columns."""
        self._stores.append(Store(self._folder / str(len(self._stores)), schema))
        return self._stores[-1]

    def check(self, needed: int) -> None:
        """Refuse to go on if so many more bytes of rows, in memory, may have to be kept than there is disk for.

        Raises:
            SpillError: If that is so.
        """
        _check_free(self._folder.parent, needed)

    def close(self) -> None:
        """Remove all stores."""
        for store in self._stores:
            store.remove()


class Store:
    """Rows of one kind under numbers; those of a number come back in the order in which they were added.

    Args:
        path: The file; made here.
        schema: Columns of the rows.

    Attributes:
        rows: How many rows there are under each number.
        sizes: How many bytes they take in memory.
    """

    def __init__(self, path: Path, schema: Mapping[str, pl.DataType]) -> None:
        self._path = path
        self._file: FileIO = path.open("w+b", buffering=0)
        self._schema = dict(schema)
        self._places: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self._end = 0
        self.rows: dict[int, int] = defaultdict(int)
        self.sizes: dict[int, int] = defaultdict(int)

    def add(self, number: int, frame: pl.DataFrame) -> None:
        """Keep rows under a number.

        Raises:
            SpillError: If the disk is full.
        """
        written = io.BytesIO()
        frame.write_ipc_stream(written, compression="lz4")
        try:
            self._file.seek(self._end)
            left = written.getbuffer()
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise SpillError(
                f"rows cannot be kept on disk: {error}", "name a folder with more room: spill=."
            ) from error
        size = written.getbuffer().nbytes
        self._places[number].append((self._end, size))
        self._end += size
        self.rows[number] += frame.height
        self.sizes[number] += int(frame.estimated_size())

    def pieces(self, numbers: Sequence[int]) -> Iterator[pl.DataFrame]:
        """The rows under some numbers, as they were added."""
        for place, size in sorted(place for number in numbers for place in self._places.get(number, ())):
            self._file.seek(place)
            yield pl.read_ipc_stream(io.BytesIO(self._file.read(size)))

    def read(self, numbers: Sequence[int]) -> pl.DataFrame:
        """The rows under some numbers together."""
        found = list(self.pieces(numbers))
        return pl.concat(found, rechunk=False) if found else pl.DataFrame(schema=self._schema)

    def forget(self, numbers: Sequence[int]) -> None:
        """Say that the rows under some numbers will not be asked for again."""
        for number in numbers:
            self._places.pop(number, None)

    def remove(self) -> None:
        """Give the disk back."""
        self._file.close()
        self._path.unlink(missing_ok=True)
