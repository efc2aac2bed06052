"""The observation log: one provider's rows, in the order in which they became known."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from deltalake.exceptions import DeltaError

from alignment import DelayRule
from ingestion.append import ROWS_PER_FILE, Attempt, append_batch, append_nothing
from ingestion.batch import Arrivals, prepare_batch, read_frame
from ingestion.compaction import CompactionReport, compact
from ingestion.datasets import Holding, register_dataset
from ingestion.definition import Kind, OnBadRow, ProviderDefinition, redefine, refused_name
from ingestion.erase import ErasablePlace, ErasureReport, erase, holdings_in_log
from ingestion.errors import DefinitionError, LogExistsError, LogNotFoundError, MissingLibraryError
from ingestion.evolution import add_columns, rename_column, widen_columns
from ingestion.info import LogInfo, log_info
from ingestion.instants import Clock, from_us, system_clock, to_us
from ingestion.ledger import Poll, heartbeats, last_poll, parts_since, polls
from ingestion.quarantine import quarantined
from ingestion.reading import (
    RESTAMP,
    FilesReport,
    Question,
    files_report,
    observation_pieces,
    observations,
    question_position,
    records,
)
from ingestion.removal import Removal, removals, retire
from ingestion.report import AppendReport
from ingestion.revisions import WholeState
from ingestion.schema import Column, delta_fields, system_fields
from ingestion.sources.base import Progress
from ingestion.storage import Location
from ingestion.store_check import refuse_unsafe_store
from ingestion.table import NO_STAMP, LogTable, create_table

if TYPE_CHECKING:
    from ingestion.spool.erasing import SpoolPlace

Address = str | os.PathLike[str]


class ObservationLog:
    """One provider's append-only rows; what `alignment` reads, at any position.

    Made by `create_log` and `open_log`. Not to be shared between threads; open it once in each.

    Attributes:
        root: The folder or address that holds the logs.
    """

    def __init__(self, root: str, table: LogTable) -> None:
        self.root = root
        self._table = table
        self._seen: tuple[int, dict[str, str]] = (0, {})

    @property
    def table(self) -> LogTable:
        """The Delta table below, for the functions of this package."""
        return self._table

    @property
    def address(self) -> str:
        """Where the log is: the root and the provider's name, absolute; a manifest records it."""
        return self._table.location.address

    @property
    def definition(self) -> ProviderDefinition:
        """What the provider is."""
        return self._table.definition

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self._table.provider

    @property
    def entities(self) -> list[str]:
        """The columns that name the entity."""
        return list(self.definition.entities)

    @property
    def kind(self) -> Kind:
        """`"measurement"` or `"forecast"`."""
        return self.definition.kind

    @property
    def key(self) -> list[str] | None:
        """The provider's id columns, if it declares ids."""
        return list(self.definition.key) if self.definition.key is not None else None

    @property
    def clock_tolerance(self) -> str:
        """How much later than its arrival an event may be."""
        return self.definition.clock_tolerance

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """The entity and value columns with their types, as they are read."""
        self._table.refresh()
        return {column.name: column.dtype for column in self._table.columns}

    def __repr__(self) -> str:
        return f"ObservationLog({self.root!r}, {self.provider!r}, position={self.position()})"

    # ------------------------------------------------------------------------------------------------------- reading

    def position(self) -> int:
        """The greatest `log_sequence` there is; -1 if the log is empty."""
        self._table.refresh()
        return self._table.head().next_sequence - 1

    def observed_through(self) -> datetime | None:
        """The greatest arrival; `None` if the log is empty."""
        self._table.refresh()
        stamp = self._table.head().last_stamp_us
        greatest = self._table.files()["max.arrival_time"].dt.epoch("us").max()
        known = [us for us in (stamp, greatest) if isinstance(us, int) and us != NO_STAMP]
        return from_us(max(known)) if known else None

    def column_since(self) -> dict[str, int]:
        """For each column that came later, the first `log_sequence` that could carry it; former names included."""
        self._table.refresh()
        late = [column for column in self._table.columns if column.since > 0]
        return {name: column.since for column in late for name in (column.name, *column.aliases)}

    def former_names(self) -> dict[str, str]:
        """For each name that a column had before it was renamed, its name now."""
        self._table.refresh()
        return {former: column.name for column in self._table.columns for former in column.aliases}

    def scan(
        self,
        *,
        position: int | None = None,
        as_of: datetime | None = None,
        event_from: datetime | None = None,
        event_until: datetime | None = None,
        columns: Sequence[str] | None = None,
        after: int | None = None,
    ) -> pl.LazyFrame:
        """Observation rows up to a position, restamps applied.

        Args:
            position: Rows with a greater `log_sequence` are left out; `None` reads all.
            as_of: Rows that arrived later are left out.
            event_from: Rows with an earlier event may be left out.
            event_until: Rows with a later event may be left out.
            columns: Value columns to return, by their name now or formerly; `None` returns all.
            after: Rows with this `log_sequence` or a lower one are left out: what came since.

        Returns:
            Entities, `event_time`, `arrival_time` (the effective one at `position`), `issue_time` (forecasts),
            `is_retraction`, `log_sequence`, `arrival_kind`, values. Files that cannot matter are not opened.

        Raises:
            PositionError: If the log has not got as far as `position`.
            UnknownColumnError: If a column does not exist and never did.
            NaiveTimeError: If an instant has no zone.
        """
        self._table.refresh()
        asked = self._question(position, as_of, event_from, event_until, after)
        return observations(self._table, asked, list(columns) if columns is not None else None)

    def scan_pieces(
        self,
        rows: int,
        *,
        position: int | None = None,
        as_of: datetime | None = None,
        event_from: datetime | None = None,
    ) -> list[pl.LazyFrame]:
        """The rows of `scan` in several frames, for whoever reads them side by side, perhaps elsewhere.

        Args:
            rows: A frame has at most so many, unless one file has more.
            position: See `scan`, as what follows.
            as_of: Rows that arrived later are left out.
            event_from: Rows with an earlier event may be left out.

        Raises:
            PositionError: If the log has not got as far as `position`.
            NaiveTimeError: If an instant has no zone.
        """
        self._table.refresh()
        return observation_pieces(self._table, self._question(position, as_of, event_from, None), rows)

    def files_for(
        self,
        *,
        position: int | None = None,
        as_of: datetime | None = None,
        event_from: datetime | None = None,
        event_until: datetime | None = None,
    ) -> FilesReport:
        """Which files `scan` opens for the same question, and which bound rules out the others.

        Raises:
            PositionError: If the log has not got as far as `position`.
            NaiveTimeError: If an instant has no zone.
        """
        self._table.refresh()
        return files_report(self._table, self._question(position, as_of, event_from, event_until))

    def _question(
        self,
        position: int | None,
        as_of: datetime | None,
        event_from: datetime | None,
        event_until: datetime | None,
        after: int | None = None,
    ) -> Question:
        return Question(
            position=question_position(self._table, position),
            after=after,
            as_of_us=to_us(as_of, "as_of") if as_of is not None else None,
            event_from_us=to_us(event_from, "event_from") if event_from is not None else None,
            event_until_us=to_us(event_until, "event_until") if event_until is not None else None,
        )

    def info(self) -> LogInfo:
        """What the log holds, from its metadata alone."""
        self._table.refresh()
        return log_info(self._table)

    def quarantine(self, *, all: bool = False) -> pl.DataFrame:  # noqa: A002 - what one would write
        """The rows that were set aside and on which nobody has decided yet.

        Args:
            all: Also those that were released or dropped.

        Returns:
            Entities, `received_time`, `batch_id`, `log_sequence`, `reason`, `row` (in its batch, from 0), `payload` (what was
            handed over), `form` (what that is: a `row` as JSON, or the `text` or base64 `bytes` of a whole that gave no rows),
            `state` (`open`, `released`, `dropped`), `decided_by` (the `log_sequence` of the record that says so), `why`.
        """
        self._table.refresh()
        return quarantined(self._table, decided=all)

    def restamps(self) -> pl.DataFrame:
        """The batches whose commit was late: `batch_id`, the later `arrival_time`, `log_sequence`."""
        self._table.refresh()
        return (
            records(self._table, RESTAMP)
            .select("batch_id", "arrival_time", "log_sequence")
            .sort("log_sequence")
            .collect()
        )

    # -------------------------------------------------------------------------------------------------------- ledger

    def progress(self, *, seen: bool = False) -> Progress:
        """How far the provider has been read: what the next poll goes on from.

        Args:
            seen: Also say which parts (files) are stored, which reads every poll once.
        """
        self._table.refresh()
        after = self._table.last_poll_record()
        if seen:
            head = self._table.head().next_sequence
            since, known = self._seen
            self._seen = (head, {**known, **parts_since(self._table, since)})
        cursor = last_poll(self._table, after).get("cursor") if after >= 0 else None
        return Progress(cursor=cursor, after=after, seen=dict(self._seen[1]) if seen else {})

    def polls(self, *, since: int = 0) -> pl.DataFrame:
        """Every attempt to get something, as `ingestion.ledger.polls` says.

        Args:
            since: Polls with a lower `log_sequence` are left out.
        """
        self._table.refresh()
        return polls(self._table, since)

    def heartbeats(self, *, position: int | None = None, as_of: datetime | None = None) -> pl.DataFrame:
        """When the provider showed that it lives, as `ingestion.heartbeats` says (R20).

        Args:
            position: Heartbeats with a greater `log_sequence` are left out.
            as_of: Heartbeats that were stamped later are left out.

        Raises:
            PositionError: If the log has not got as far as `position`.
            NaiveTimeError: If `as_of` has no zone.
        """
        return heartbeats(self, position=position, as_of=as_of)

    def record_poll(
        self,
        poll: Poll,
        *,
        after: int | None = None,
        batch_id: str | None = None,
        aside: Sequence[tuple[str, object]] = (),
        stream: tuple[str, int] | None = None,
        clock: Clock | None = None,
    ) -> AppendReport:
        """Keep an attempt that brought no row: an empty one, a failed one, one of which nothing could be read.

        Args:
            poll: The attempt.
            after: Refuse if another poll was recorded after this `log_sequence`; `None` does not look.
            batch_id: The same id twice records once.
            aside: Reason and payload of what could not be read; it goes to the quarantine.
            stream: Instead of a batch id: a sequence of batches by name, and this one's number in it.
            clock: Something that tells now, instead of the log's own clock.

        Raises:
            CommitError: If other commits kept coming first, or the store failed.
            SupersededError: If another poll was recorded after `after`.
        """
        attempt = Attempt(poll=poll, after=after, aside=tuple(aside), stream=stream, remember=batch_id is not None)
        with self._clock(clock):
            return append_nothing(self._table, batch_id or uuid.uuid4().hex, attempt)

    # ------------------------------------------------------------------------------------------------------- writing

    def append(
        self,
        frame: Any,
        *,
        batch_id: str | None = None,
        arrivals: Arrivals | None = None,
        backfill: bool = False,
        delay: DelayRule | None = None,
        received_time: datetime | None = None,
        evolve: bool = False,
        clock: Clock | None = None,
        poll: Poll | None = None,
        after: int | None = None,
        whole_state: WholeState | None = None,
        reasons: pl.Series | None = None,
        original: pl.DataFrame | None = None,
        aside: Sequence[tuple[str, object]] = (),
        extra_records: Sequence[tuple[str, str]] = (),
        stream: tuple[str, int] | None = None,
    ) -> AppendReport:
        """Append rows once, as one batch that becomes visible at one instant.

        Without arrivals in the frame the batch is stamped when it is committed:
        `arrival_time = max(now + publish_margin, last stamp + 1 us)`. A frame with `arrival_time` keeps its arrivals
        as `measured` (or as its `arrival_kind` says); nulls among them, and all of a `backfill`, need a `delay` rule.

        Args:
            frame: Entity columns, `event_time`, values; optionally `arrival_time`, `received_time`, `published_time`,
                `issue_time`, `is_retraction`, `arrival_kind`. Polars, Arrow, pandas, or the path of a Parquet file.
            batch_id: The same id twice appends once, also after a crash. Without one the batch gets a new id.
            arrivals: `"stamp"` (even if the frame has an `arrival_time`), `"given"` or `"backfill"`; `None` decides.
            backfill: The rows are history; the same as `arrivals="backfill"`.
            delay: How late rows of unknown arrival were; their `arrival_kind` is `declared` or `modelled`.
            received_time: When the rows were in hand; the stamp is never before.
            evolve: Add columns that the log lacks, widen types that are too narrow.
            clock: Something that tells now, instead of the log's own clock.
            poll: The attempt that brought the rows; kept in the ledger by the same commit.
            after: Refuse if another poll was recorded after this `log_sequence`; `None` does not look.
            whole_state: The frame is all there is: keys that live in the log and are not in it are retracted.
            reasons: One text per row: why it is to be set aside, or null; from a contract.
            original: The rows as they came, for the quarantine, if a contract changed them; same rows, same order.
            aside: Reason and payload of what could not be read; it goes to the quarantine.
            extra_records: Further records of the log in the same commit: kind and JSON.
            stream: Instead of a batch id: a sequence of batches by name, and this one's number in it, which only grows.

        Returns:
            What was appended, skipped, quarantined; the position and the arrival.

        Raises:
            BatchError: If the frame cannot be appended; a subclass says why.
            CommitError: If the commit could not be made; nothing of the batch is visible then.
            SupersededError: If another poll was recorded after `after`.
        """
        rows = read_frame(frame, self._table.location.storage_options)
        batch = prepare_batch(
            rows,
            self.definition,
            arrivals="backfill" if backfill else arrivals,
            delay=delay,
            received_time=received_time,
            reasons=reasons,
            original=original,
        )
        attempt = Attempt(
            poll=poll,
            after=after,
            whole_state=whole_state,
            aside=tuple(aside),
            records=tuple(extra_records),
            stream=stream,
            remember=batch_id is not None,
        )
        with self._clock(clock):
            return append_batch(self._table, batch, batch_id or uuid.uuid4().hex, evolve=evolve, attempt=attempt)

    @contextlib.contextmanager
    def _clock(self, clock: Clock | None) -> Iterator[None]:
        before = self._table.clock
        self._table.clock = clock or before
        try:
            yield
        finally:
            self._table.clock = before

    def redefine(self, **changes: Any) -> ProviderDefinition:
        """Change how the provider's rows are treated from now on; what a row is by cannot change.

        Args:
            changes: `clock_tolerance`, `publish_margin`, `on_bad_row`, `drop_unchanged`, `retention`.

        Returns:
            The definition as it is now.

        Raises:
            DefinitionError: If a change is to the provider's name, entities, kind or key, or cannot mean anything.
            CommitError: If other commits kept coming first.
        """
        return self._table.redefine(redefine(self.definition, changes))

    # --------------------------------------------------------------------------------------------------- maintenance

    def compact(self, *, rows_per_file: int = ROWS_PER_FILE, vacuum: bool = False) -> CompactionReport:
        """Merge small files; no answer changes at any position.

        Args:
            rows_per_file: How many rows a merged file may have.
            vacuum: Delete afterwards the files that the current version does not need; frames that were scanned before
                and not yet collected fail then.

        Raises:
            CommitError: If other commits kept coming first.
        """
        return compact(self._table, rows_per_file=rows_per_file, vacuum=vacuum)

    def retire(self, *, now: datetime | None = None) -> Removal | None:
        """Take out keys whose last event is older than the provider's retention, and leave a record of which.

        Raises:
            CommitError: If other commits kept coming first.
        """
        return retire(self._table, now)

    def erase(
        self,
        entity: Mapping[str, Any],
        *,
        places: Sequence[ErasablePlace] = (),
        state: str | os.PathLike[str] | None = None,
    ) -> ErasureReport:
        """Remove an entity from every file and older version, the quarantine, registered data sets and other places.

        Args:
            entity: Entity columns and their values.
            places: Other places that may hold it.
            state: The folder in which a job keeps its state, if it is not `_job` beside the logs: what waits in the
                spool there is erased too.

        Raises:
            ErasureError: If a name is not an entity column, or a value is null.
            CommitError: If other commits kept coming first.
            MissingLibraryError: If there is a spool and the library that reads it is not installed.
        """
        return erase(self._table, self.root, entity, places=[*self._spools(state), *places])

    def holding(self, entity: Mapping[str, Any], *, state: str | os.PathLike[str] | None = None) -> list[Holding]:
        """What `erase` would find in the log, its quarantine and the spool, without changing anything.

        Args:
            entity: Entity columns and their values.
            state: As for `erase`.

        Raises:
            ErasureError: If a name is not an entity column, or a value is null.
            MissingLibraryError: If there is a spool and the library that reads it is not installed.
        """
        found = holdings_in_log(self._table, entity)
        for spool in self._spools(state):
            rows = spool.count(self.provider, entity)
            found += [Holding(place=spool.name, address="", rows=rows)] if rows else []
        return found

    def _spools(self, state: str | os.PathLike[str] | None) -> list[SpoolPlace]:
        if state is None and "://" in self.root:
            return []
        folder = Path(self.root, "_job") if state is None else Path(state)
        if not (folder / "spool").is_dir():
            return []
        try:
            from ingestion.spool.erasing import SpoolPlace
        except ModuleNotFoundError as error:
            raise MissingLibraryError(error.name or "msgspec", "ingest", "erasing from a spool") from error
        return [SpoolPlace(folder / "spool", clock=self._table.clock)]

    def register_dataset(self, manifest_path: str | os.PathLike[str]) -> None:
        """Remember a data set that was made of this log, so that `erase` finds it; `Dataset.write` calls this."""
        register_dataset(self.root, manifest_path, storage_options=self._table.location.storage_options)

    def removals(self) -> list[Removal]:
        """What was retired and erased, with the sequence numbers of the rows, oldest first."""
        self._table.refresh()
        return removals(self._table)

    # ------------------------------------------------------------------------------------------------------- columns

    def add_column(self, name: str, dtype: pl.DataType | type[pl.DataType]) -> None:
        """Add a value column; rows from before are `missing` there, not null.

        Raises:
            ReservedColumnError: If the name is the log's own.
            SchemaChangeError: If the name is or was another column's.
            CommitError: If other commits kept coming first.
        """
        add_columns(self._table, [Column(name, _instance(dtype))])

    def rename_column(self, old: str, new: str) -> None:
        """Give a value column another name; questions by the old name still work.

        Raises:
            UnknownColumnError: If there is no such column.
            SchemaChangeError: If the new name is taken, or the column is part of the key.
            CommitError: If other commits kept coming first.
        """
        rename_column(self._table, old, new)

    def widen_column(self, name: str, dtype: pl.DataType | type[pl.DataType]) -> None:
        """Give a value column a wider type.

        Raises:
            SchemaChangeError: If the type is narrower, or a stored value does not fit it.
            CommitError: If other commits kept coming first.
        """
        widen_columns(self._table, [Column(name, _instance(dtype))])


def create_log(
    root: Address,
    provider: str,
    *,
    entities: Sequence[str],
    kind: Kind = "measurement",
    key: Sequence[str] | None = None,
    schema: Mapping[str, pl.DataType | type[pl.DataType]] | None = None,
    clock_tolerance: str = "5s",
    publish_margin: str = "500ms",
    on_bad_row: OnBadRow = "quarantine",
    drop_unchanged: bool = False,
    retention: str | None = None,
    storage_options: dict[str, str] | None = None,
    clock: Clock | None = None,
    exist_ok: bool = False,
) -> ObservationLog:
    """A new log, empty.

    Args:
        root: The folder or object-store address that holds the logs; the log is `root/provider`.
        provider: The provider's name.
        entities: The columns that name the entity; empty for one series.
        kind: `"measurement"` or `"forecast"`.
        key: Id columns, if the provider declares ids.
        schema: Types of entity and value columns; without it the first batch decides.
        clock_tolerance: How much later than its arrival an event may be (R5).
        publish_margin: How far ahead of the clock batches are stamped (R14).
        on_bad_row: `"quarantine"` or `"raise"`.
        drop_unchanged: Leave out rows that repeat their key's current revision.
        retention: Rows whose event is older may be retired.
        storage_options: Passed through to `deltalake` and Polars.
        clock: Something that tells now; the system's clock if `None`.
        exist_ok: Open the log if there is one.

    Returns:
        The log.

    Raises:
        LogExistsError: If there is a log already and `exist_ok` is false.
        DefinitionError: If an argument cannot mean anything.
        AddressError: If the address holds a user, a password or a query, or names no bucket.
        UnsafeStoreError: If it is an object store that would lose commits.
        StoreError: If the store refuses or is out of reach.
        DeltaError: If no table can be made there.
        OSError: If the folder cannot be made.

    Example:
        >>> import tempfile
        >>> log = create_log(tempfile.mkdtemp(), "weather", entities=["station"])
        >>> log.position()
        -1
    """
    definition = ProviderDefinition(
        provider=provider,
        entities=tuple(entities),
        kind=kind,
        key=tuple(key) if key is not None else None,
        clock_tolerance=clock_tolerance,
        publish_margin=publish_margin,
        on_bad_row=on_bad_row,
        drop_unchanged=drop_unchanged,
        retention=retention,
    )
    if (refused := refused_name({**dict.fromkeys(definition.entities), **dict(schema or {})})) is not None:
        raise DefinitionError("schema", f"schema: {refused[1]}", "choose another name.")
    base = _base(root, storage_options)
    location = base.child(provider)
    own = [Column(name, _instance(dtype)) for name, dtype in (schema or {}).items()]
    first = delta_fields([column for column in own if column.name in definition.entities])
    rest = delta_fields([column for column in own if column.name not in definition.entities])
    if not (base.folder is None and _is_log(base, provider)):
        refuse_unsafe_store(base)
    try:
        table = create_table(location, definition, [*first, *system_fields(), *rest], clock)
    except (DeltaError, OSError) as error:
        if not _is_log(base, provider):
            raise
        if not exist_ok:
            raise LogExistsError(base.address, provider) from error
        return open_log(root, provider, storage_options=storage_options, clock=clock)
    return ObservationLog(base.address, table)


def open_log(
    root: Address,
    provider: str,
    *,
    storage_options: dict[str, str] | None = None,
    clock: Clock | None = None,
) -> ObservationLog:
    """The log of a provider.

    Raises:
        LogNotFoundError: If there is none.
        AddressError: If the address holds a user, a password or a query, or names no bucket.
        StoreError: If the store refuses or is out of reach.
    """
    base = _base(root, storage_options)
    if base.folder is not None and not _is_log(base, provider):
        raise LogNotFoundError(base.address, provider, list_logs(root))
    return ObservationLog(base.address, LogTable(base.child(provider), provider, clock or system_clock))


def list_logs(root: Address, *, storage_options: dict[str, str] | None = None) -> list[str]:
    """The providers that have a log at an address, in alphabetical order."""
    base = Location.of(root, storage_options)
    return [name for name in base.names() if not name.startswith(("_", ".")) and _is_log(base, name)]


def _base(root: Address, storage_options: dict[str, str] | None) -> Location:
    base = Location.of(root, storage_options)
    escaped = re.search("%[0-9A-Fa-f]{2}", base.address) if base.folder is not None else None
    if escaped is not None:  # deltalake would make and read the folder `a b` where `a%20b` is said
        raise DefinitionError(
            "root",
            f"the folder {base.address!r} has {escaped[0]!r} in its name, which Delta reads as another character",
            "name a folder whose path has no '%' before two digits or letters A to F.",
        )
    return base


def _is_log(base: Location, provider: str) -> bool:
    return any(name.endswith((".json", ".parquet")) for name in base.child(provider).names("_delta_log"))


def _instance(dtype: pl.DataType | type[pl.DataType]) -> pl.DataType:
    return dtype() if isinstance(dtype, type) else dtype
