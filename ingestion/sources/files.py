"""Files that a provider drops into a folder or a bucket: new ones, and ones that were written anew."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import polars as pl
import pyarrow.fs as pafs
from pydantic import Field, field_validator

from ingestion.errors import PayloadError, SourceError
from ingestion.instants import Clock, from_us, system_clock
from ingestion.sources.base import Fetched, Payload, Progress
from ingestion.sources.layout import Layout
from ingestion.sources.parsing import parse_payload
from ingestion.sources.redaction import Redactor
from ingestion.sources.settings import Duration, SourceSettings, from_environment, length_of
from ingestion.sources.times import read_instants
from ingestion.storage import Location

_NOT_YET = re.compile(
    r"(?:^|/)[._~]|~$|\.(?:tmp|temp|part|partial|filepart|crdownload|download|swp|swx|lock|inprogress)$", re.IGNORECASE
)
"""Names that writers give to what is not finished, and that nobody gives to data."""
_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_ARROW = b"ARROW1"


class FilesSource(SourceSettings):
    """A folder or bucket that is looked into again and again.

    Attributes:
        kind: `files`.
        path: The folder, or the address of a bucket and prefix such as `s3://bucket/feed`.
        pattern: Which files: `*` and `?` stay within a folder, `**/` goes into folders.
        layout: How their bytes become rows.
        name_pattern: A regular expression with named groups that must be found in a file's name; the groups become columns,
            read as instants where the layout says so.
        settle: A file in a folder is read when it has not changed for so long. Buckets show whole files only.
        incomplete_for: How long a file whose end is missing (Parquet, Arrow, gzip, JSON) counts as being written; after that it
            is read, and its fault told.
        max_files: Of one fetch.
        max_bytes: Of one fetch; a single file may be greater.
        storage_options: Settings of the bucket without secrets, as `deltalake` takes them.
        storage_options_env: Settings whose values are in environment variables: option to variable.
    """

    kind: Literal["files"] = "files"
    path: str = Field(min_length=1)
    pattern: str = "*"
    layout: Layout = Layout()
    name_pattern: str | None = None
    settle: Duration = "5s"
    incomplete_for: Duration = "10m"
    max_files: int = Field(default=100, ge=1)
    max_bytes: int = Field(default=256_000_000, ge=1)
    storage_options: dict[str, str] = Field(default_factory=dict)
    storage_options_env: dict[str, str] = Field(default_factory=dict)

    @field_validator("path")
    @classmethod
    def _holds_no_password(cls, path: str) -> str:
        if (
            "://" in path
            and "@" in path.partition("://")[2].partition("/")[0]
            and not path.startswith(("abfs", "wasb"))
        ):
            raise ValueError("path holds a user or password; take them from the environment: storage_options_env")
        return path

    @field_validator("name_pattern")
    @classmethod
    def _is_a_pattern(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"name_pattern is no regular expression: {error}") from None
        return pattern

    @field_validator("storage_options")
    @classmethod
    def _options_hold_no_secrets(cls, options: dict[str, str]) -> dict[str, str]:
        for name in options:
            if re.search(r"secret|password|token|account_key|access_key(?!_id)|sas", name, re.IGNORECASE):
                raise ValueError(f"storage option {name!r} is a credential; put it into storage_options_env")
        return options

    @property
    def whole_state_problem(self) -> str | None:
        """Why this cannot be the source of a whole state; `None` if it can."""
        return None if self.max_files == 1 else "may read several states at once; say max_files: 1."

    def open(self, provider_name: str, environment: Mapping[str, str], *, clock: Clock = system_clock) -> Files:
        """The source at work.

        Args:
            provider_name: For messages.
            environment: Where credentials are.
            clock: Tells when bytes were in hand.

        Raises:
            SourceError: If a credential is not in the environment.
        """
        redactor = Redactor()
        secret = {
            option: from_environment(name, environment, provider=provider_name, place=redactor.url(self.path))
            for option, name in self.storage_options_env.items()
        }
        options = {**self.storage_options, **secret}
        location = Location.of(self.path, options or None)
        return Files(provider_name, self, location, redactor=Redactor(secret.values()), clock=clock)


@dataclass(frozen=True, slots=True, order=True)
class _Entry:
    """A file as a listing shows it, in the order in which files are read."""

    modified_us: int
    name: str
    size: int

    @property
    def look(self) -> str:
        """What a look can tell of its version, without reading it."""
        return f"{self.size}-{self.modified_us}"


class Files:
    """A `FilesSource` at work.

    What was read is in `progress.seen`: a file's version is its size, its time of change and a digest. A look compares the
    first two, so that files are read again only when they changed, and handed on only when their bytes did.

    Args:
        provider: For messages.
        declared: Where to look, for what.
        location: The folder or bucket.
        redactor: Takes secrets out of what is shown.
        clock: Tells when bytes were in hand.
    """

    kind = "files"

    def __init__(
        self, provider: str, declared: FilesSource, location: Location, *, redactor: Redactor, clock: Clock
    ) -> None:
        self._provider = provider
        self._declared = declared
        self._location = location
        self._redactor = redactor
        self._clock = clock
        self._wanted = re.compile(_glob(declared.pattern))
        self._looks: dict[str, tuple[str, datetime]] = {}
        self._same_bytes: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Files({self._provider!r}, {self._location.address!r})"

    def fetch(self, progress: Progress, *, now: datetime) -> Fetched:
        """The files that are new or were written anew, oldest change first.

        Raises:
            SourceError: If the folder cannot be listed, or nothing but files that cannot be read are new.
        """
        changed = [entry for entry in self._entries() if not self._is_known(entry, progress.seen)]
        ready = [entry for entry in changed if self._has_settled(entry, now)]
        self._looks = {entry.name: self._looks[entry.name] for entry in changed if entry.name in self._looks}
        payloads: list[Payload] = []
        unreadable: list[str] = []
        size = 0
        more = False
        for entry in ready:
            if len(payloads) >= self._declared.max_files or (payloads and size + entry.size > self._declared.max_bytes):
                more = True
                break
            try:
                content = self._whole(entry, now)
            except OSError as error:
                unreadable.append(f"{entry.name} cannot be read: {self._said(error)}")
                continue
            if content is None or self._is_same(entry, content, progress.seen):
                continue
            payloads.append(self._payload(entry, content))
            size += len(content)
        if unreadable and not payloads:
            raise SourceError(self._provider, self._location.address, unreadable[0], "may this job read it?")
        return Fetched(payloads=tuple(payloads), version=f"{len(payloads)} files" if payloads else None, more=more)

    def parse(self, payload: Payload) -> pl.DataFrame:
        """The rows of a file.

        Raises:
            PayloadError: If it is not laid out as declared, or its name does not match.
        """
        layout = self._declared.layout
        frame = parse_payload(payload.content, layout, provider=self._provider, label=payload.label)
        if self._declared.name_pattern is None:
            return frame
        found = re.search(self._declared.name_pattern, payload.label)
        if found is None:
            raise PayloadError(
                self._provider, payload.label, f"the name does not match {self._declared.name_pattern!r}"
            )
        for name, text in found.groupdict().items():
            column = pl.Series(name, [text] * frame.height, dtype=pl.String)
            how = layout.time_format(name)
            if how is not None:
                column, problems = read_instants(column, how)
                if problems.null_count() < len(problems):
                    raise PayloadError(self._provider, payload.label, f"{name} in the name: {problems[0]}")
            frame = frame.with_columns(column)
        return frame

    def close(self) -> None:
        """Nothing to give back."""

    # ---- looking ------------------------------------------------------------------------------------------------------

    def _entries(self) -> list[_Entry]:
        """The files there are, in the order of their last change.

        Raises:
            SourceError: If the folder is not there or cannot be listed.
        """
        try:
            found = _local(self._location.folder) if self._location.folder is not None else _remote(self._location)
            return sorted(e for e in found if self._wanted.fullmatch(e.name) and not _NOT_YET.search(e.name))
        except FileNotFoundError:
            raise SourceError(
                self._provider, self._location.address, "there is no such folder", "make it, or mend the path."
            ) from None
        except Exception as error:  # noqa: BLE001 - object stores have errors of their own
            raise SourceError(
                self._provider, self._location.address, f"cannot be listed: {self._said(error)}"
            ) from None

    def _is_known(self, entry: _Entry, seen: Mapping[str, str]) -> bool:
        return seen.get(entry.name, "").startswith(entry.look + "-") or self._same_bytes.get(entry.name) == entry.look

    def _has_settled(self, entry: _Entry, now: datetime) -> bool:
        """Whether a file has not changed for a while: by its own time, or, should clocks differ, by two looks."""
        if self._location.folder is None:
            return True
        settle = length_of(self._declared.settle)
        if from_us(entry.modified_us) <= now - settle:
            return True
        look, since = self._looks.get(entry.name, ("", now))
        if look != entry.look or since > now:
            since = now
        self._looks[entry.name] = (entry.look, since)
        return now - since >= settle

    # ---- reading ------------------------------------------------------------------------------------------------------

    def _whole(self, entry: _Entry, now: datetime) -> bytes | None:
        """A file's bytes, if it is whole and stays the same while it is read; `None` if not, or if it is gone."""
        try:
            content = _read(self._location, entry.name)
            after = self._location.modified_us(entry.name)
        except FileNotFoundError:
            return None
        if len(content) != entry.size or after != entry.modified_us:
            return None
        being_written = from_us(entry.modified_us) > now - length_of(self._declared.incomplete_for)
        return None if being_written and _lacks_its_end(content, entry.name) else content

    def _is_same(self, entry: _Entry, content: bytes, seen: Mapping[str, str]) -> bool:
        """Whether a file was only touched: written anew with the bytes that it had."""
        if seen.get(entry.name, "").rpartition("-")[2] != _digest(content):
            return False
        self._same_bytes[entry.name] = entry.look
        return True

    def _payload(self, entry: _Entry, content: bytes) -> Payload:
        return Payload(
            content=content,
            label=entry.name,
            received_time=self._clock(),
            version=f"{entry.look}-{_digest(content)}",
        )

    def _said(self, error: BaseException) -> str:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        return self._redactor.text(text.strip().splitlines()[0][:200])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _glob(pattern: str) -> str:
    """A glob as a regular expression over names with `/`."""
    parts: Iterable[str] = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    meanings = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(meanings.get(part, re.escape(part)) for part in parts)


def _local(folder: Path) -> Iterator[_Entry]:
    """The files in a folder and those below it; what vanishes meanwhile is left out.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    for path in folder.rglob("*"):
        try:
            told = path.stat()
        except OSError:
            continue
        if path.is_file():
            yield _Entry(told.st_mtime_ns // 1_000, path.relative_to(folder).as_posix(), told.st_size)


def _remote(location: Location) -> Iterator[_Entry]:
    """The files below a prefix in an object store."""
    selector = pafs.FileSelector("", allow_not_found=True, recursive=True)
    for info in location.filesystem().get_file_info(selector):
        if info.type == pafs.FileType.File:
            yield _Entry((info.mtime_ns or 0) // 1_000, info.path.lstrip("/"), info.size)


def _read(location: Location, name: str) -> bytes:
    """A whole file as it lies there: compressed files stay so."""
    if location.folder is not None:
        return (location.folder / name).read_bytes()
    with location.filesystem().open_input_stream(name, compression=None) as stream:
        return bytes(stream.read())


def _lacks_its_end(content: bytes, name: str) -> bool:
    """Whether a file can be seen to go on: formats that have an end, without theirs."""
    if content.startswith(_GZIP):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
                while stream.read(1 << 20):
                    pass
        except EOFError:
            return True
        except (OSError, zlib.error):
            return False
        return False
    if not content:
        return True
    if content.startswith(_PARQUET):
        return not content.endswith(_PARQUET) or len(content) < 12
    if content.startswith(_ARROW):
        return not content.endswith(_ARROW) or len(content) < 16
    if name.lower().endswith((".parquet", ".json", ".geojson")):
        return not content.rstrip().endswith((b"}", b"]", _PARQUET))
    return False
