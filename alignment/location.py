"""Where files are: a folder or an object-store address, and the few operations on them that Delta and Polars do not cover."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar
from urllib.parse import unquote, urlparse

from alignment.errors import AddressError, StoreError

if TYPE_CHECKING:
    import pyarrow.fs as pafs

TRIES = 5
"""How often an object store is asked before its failure counts; its client tries busy and unreachable stores ten times each."""
PATIENCE_S = 60.0
"""After how long it is asked no more: a store that takes connections and answers nothing holds its client up for three minutes."""
PIECE = 1 << 23
"""Bytes of a file that are on their way at once."""

T = TypeVar("T")


def holds_secret(address: str) -> bool:
    """Whether there is a user or a password in an address."""
    return "@" in address.partition("://")[2].partition("/")[0]


@dataclass(frozen=True, slots=True)
class Location:
    """A folder on disk or a prefix in an object store.

    Attributes:
        address: A path or a URI that `deltalake` and Polars accept.
        storage_options: Credentials and settings, passed through to both; None for those of the environment.
    """

    refusal: ClassVar[Callable[..., Exception]] = AddressError
    failure: ClassVar[type[Any]] = StoreError
    address: str
    storage_options: dict[str, str] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, address: str | os.PathLike[str], storage_options: dict[str, str] | None = None) -> Self:
        """The location that a user wrote.

        Raises:
            AddressError: If it holds a user, a password or a query, or names no bucket.
        """
        text = os.fspath(address)
        if holds_secret(text):
            raise cls.refusal()
        scheme, colon, rest = text.partition("://")
        if colon and "?" in rest:
            raise cls.refusal("holds a query, what comes after its question mark")
        if colon and scheme != "file" and not rest.partition("/")[0]:
            raise cls.refusal("names no bucket")
        if re.match("(s3a?|gs|az):", text) and not colon:
            raise cls.refusal("has one slash after its colon, or none, and two are needed")
        if text.startswith("file://"):
            text = unquote(urlparse(text).path)
        if "://" not in text:
            text = str(Path(text).expanduser().absolute())
        return cls(text.rstrip("/") or "/", storage_options)

    @property
    def folder(self) -> Path | None:
        """The folder, if it is a local one."""
        return None if "://" in self.address else Path(self.address)

    def child(self, *names: str) -> Self:
        """A location below this one."""
        return type(self)(self.address_of(*names), self.storage_options)

    def address_of(self, *names: str) -> str:
        """The address of what is below this one."""
        return "/".join([self.address.rstrip("/"), *names])

    def filesystem(self) -> pafs.FileSystem:
        """A file system rooted here; it takes the same options as `deltalake`."""
        import pyarrow.fs as pafs
        from deltalake.fs import DeltaStorageHandler

        if self.folder is not None:
            return pafs.SubTreeFileSystem(self.address, pafs.LocalFileSystem())
        return pafs.PyFileSystem(DeltaStorageHandler(self.address, self.storage_options))

    def _store(self) -> Any:
        # Not by way of pyarrow: its streams hand over buffers, and the store's take bytes alone.
        from deltalake._internal import DeltaFileSystemHandler

        return DeltaFileSystemHandler(self.address, self.storage_options)

    def patiently(self, ask: Callable[[], T]) -> T:
        """What the store answers; one that fails, or whose answer is cut short, is asked again.

        Args:
            ask: The same thing however often: no commit.

        Raises:
            FileNotFoundError: If there is no such file; so for a table.
            TableNotFoundError: Likewise.
            StoreError: If the store refuses, which is not asked again, or keeps failing.
            DeltaError: If something else keeps failing.
            OSError: Likewise.
        """
        if self.folder is not None:
            return ask()
        from deltalake.exceptions import DeltaError, TableNotFoundError

        begun = time.monotonic()
        for attempt in range(1, TRIES):
            try:
                with self.plainly():
                    return ask()
            except (FileNotFoundError, TableNotFoundError):
                raise
            except (DeltaError, OSError) as error:
                if getattr(error, "lasting", False) or time.monotonic() - begun > PATIENCE_S:
                    raise
                time.sleep(0.05 * 2**attempt)
        with self.plainly():
            return ask()

    @contextlib.contextmanager
    def plainly(self) -> Iterator[None]:
        """What a store's client raises meanwhile says what is wrong, if it is about the store.

        Raises:
            StoreError: If the store refuses or fails.
        """
        try:
            yield
        except Exception as error:
            told = None if self.folder is not None else self.failure.of(error, self.address)
            if told is None:
                raise
            raise told from error

    def exists(self, name: str) -> bool:
        """Whether a file is here."""
        if self.folder is not None:
            return (self.folder / name).exists()
        info = self.patiently(lambda: self.filesystem().get_file_info(name))
        return bool(info.is_file)

    def names(self, prefix: str = "") -> list[str]:
        """What lies directly below `prefix`, folders included."""
        import pyarrow.fs as pafs

        if self.folder is not None:
            folder = self.folder / prefix
            return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        selector = pafs.FileSelector(prefix, allow_not_found=True, recursive=False)
        return sorted(info.base_name for info in self.patiently(lambda: self.filesystem().get_file_info(selector)))

    def files_below(self, prefix: str = "") -> list[str]:
        """The files below `prefix`, however deep, as their names from here."""
        import pyarrow.fs as pafs

        if self.folder is not None:
            found = sorted(path for path in (self.folder / prefix).rglob("*") if path.is_file())
            return [path.relative_to(self.folder).as_posix() for path in found]
        selector = pafs.FileSelector(prefix, allow_not_found=True, recursive=True)
        infos = self.patiently(lambda: self.filesystem().get_file_info(selector))
        return sorted(info.path for info in infos if info.is_file)

    def read(self, name: str) -> bytes:
        """A whole file."""
        if self.folder is not None:
            return (self.folder / name).read_bytes()

        def ask() -> bytes:
            with self.filesystem().open_input_stream(name) as stream:
                return bytes(stream.read())

        return self.patiently(ask)

    def write(self, name: str, content: bytes) -> None:
        """A whole file, in place of any that was there."""
        if self.folder is not None:
            with self._draft(name) as draft:
                draft.write_bytes(content)
            return
        self.patiently(lambda: self._put(name, [content]))  # the same bytes under the same name, however often

    def send(self, name: str, file: Path) -> None:
        """A whole file as it is on this machine, in place of any that was there; it is in memory only a piece at a time."""
        if self.folder is not None:
            with self._draft(name) as draft:
                shutil.copyfile(file, draft)
            return

        def put() -> None:
            with file.open("rb") as stream:
                self._put(name, iter(lambda: stream.read(PIECE), b""))

        self.patiently(put)

    def fetch(self, name: str, file: Path) -> None:
        """A whole file, copied to one on this machine."""

        def ask() -> None:
            with self.filesystem().open_input_stream(name) as stream, file.open("wb") as target:
                while piece := stream.read(PIECE):
                    target.write(piece)

        self.patiently(ask)

    def _put(self, name: str, pieces: Iterable[bytes]) -> None:
        stream = self._store().open_output_stream(name)  # nothing is there before it is closed
        for piece in pieces:
            stream.write(piece)
        stream.close()

    @contextlib.contextmanager
    def _draft(self, name: str) -> Iterator[Path]:
        path = Path(self.address) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            yield draft
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    def move(self, name: str, target: str) -> None:
        """The same file under another name; a store copies it itself, and forgets the old name afterwards."""
        if self.folder is not None:
            (self.folder / target).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).replace(self.folder / target)
            return
        self.patiently(lambda: self._store().copy_file(name, target))
        self.remove(name)

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        if self.folder is not None:
            (self.folder / name).unlink(missing_ok=True)
            return
        with contextlib.suppress(FileNotFoundError):
            self.patiently(lambda: self.filesystem().delete_file(name))
