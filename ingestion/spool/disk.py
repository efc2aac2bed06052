"""The few things that a spool asks of a disk, each durable when it returns."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class Disk:
    """Files that only grow, are cut, or are replaced whole. Tests put one in its place that fails."""

    def create(self, path: Path, head: bytes) -> int:
        """A new file with its first bytes; returns its descriptor.

        Raises:
            OSError: If it cannot be made; then it is not there.
        """
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        try:
            self.write(file, head)
            self.sync(file)
            self.sync_folder(path.parent)
        except OSError:
            os.close(file)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        return file

    def write(self, file: int, content: bytes) -> None:
        """Append all of `content`.

        Raises:
            OSError: If not all of it could be written; some of it may be.
        """
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(file, rest) :]

    def sync(self, file: int) -> None:
        """Make what was written last through a crash of the machine.

        Raises:
            OSError: If it may not last.
        """
        if hasattr(os, "fdatasync"):
            os.fdatasync(file)
        else:
            os.fsync(file)

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder last.

        Raises:
            OSError: If they may not last.
        """
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def cut(self, path: Path, size: int) -> None:
        """Shorten a file.

        Raises:
            OSError: If it cannot be shortened.
        """
        file = os.open(path, os.O_WRONLY)
        try:
            os.ftruncate(file, size)
            os.fsync(file)
        finally:
            os.close(file)

    def append(self, path: Path, content: bytes) -> None:
        """Append to a file, which is made if it is not there; after a failure it is as long as before.

        Raises:
            OSError: If it cannot be written.
        """
        new = not path.exists()
        file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        size = os.fstat(file).st_size
        try:
            self.write(file, content)
            self.sync(file)
            if new:
                self.sync_folder(path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file, size)
            raise
        finally:
            os.close(file)

    def replace(self, path: Path, content: bytes) -> None:
        """Put a file in the place of another, whole.

        Raises:
            OSError: If it cannot be written; the file is as before then.
        """
        draft = path.with_name(f"{path.name}.new")
        file = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        try:
            self.write(file, content)
            self.sync(file)
        finally:
            os.close(file)
        draft.replace(path)
        self.sync_folder(path.parent)

    def remove(self, path: Path) -> None:
        """Delete a file.

        Raises:
            OSError: If it cannot be deleted.
        """
        path.unlink(missing_ok=True)
        self.sync_folder(path.parent)
