"""One provider's Delta table: its head, its files, and commits that are refused unless they come next."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import polars as pl
import polars.selectors as cs
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from ingestion.definition import PROPERTY, ProviderDefinition
from ingestion.errors import CommitError, LogNotFoundError
from ingestion.instants import Clock, system_clock, to_us
from ingestion.schema import INSTANT, STATS_COLUMNS, SYSTEM_COLUMNS, Column, columns_of, to_stored
from ingestion.storage import Location, sync_file

HEAD, STAMP, STAMPED_AT, POLLED = "asknown:next", "asknown:stamp", "asknown:stamped-at", "asknown:poll"
NO_STAMP = -(1 << 62)
COMMITTED_AS = "asknown:commit"
REDEFINITIONS = 50
SENT_AGAIN = 6
"""How often a commit to an object store is sent again after its outcome was unknown."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 2.0
FILES_SCHEMA: dict[str, pl.DataType] = {
    "path": pl.String(),
    "size_bytes": pl.Int64(),
    "num_records": pl.Int64(),
    "null_count.event_time": pl.Int64(),
    "min.event_time": INSTANT,
    "max.event_time": INSTANT,
    "min.arrival_time": INSTANT,
    "max.arrival_time": INSTANT,
    "min.issue_time": INSTANT,
    "max.issue_time": INSTANT,
    "min.log_sequence": pl.Int64(),
    "max.log_sequence": pl.Int64(),
    "min.record_kind": pl.String(),
    "max.record_kind": pl.String(),
}


class LostRaceError(Exception):
    """Another commit came first; nothing was written. Never leaves the package."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a log stands.

    Attributes:
        next_sequence: The `log_sequence` of the next row.
        last_stamp_us: The greatest instant that was given as an arrival; the next one must be greater.
        stamped_at: The Delta version whose commit carried that instant.
    """

    next_sequence: int
    last_stamp_us: int
    stamped_at: int


class LogTable:
    """A Delta table with what a log needs to know about it; not shared between threads."""

    def __init__(self, location: Location, provider: str, clock: Clock | None = None) -> None:
        self.location = location
        self.provider = provider
        self.clock: Clock = clock or system_clock
        self._files: tuple[int, pl.DataFrame] | None = None
        self._head: tuple[int, Head] | None = None
        try:
            self.delta = location.patiently(
                lambda: DeltaTable(location.address, storage_options=location.storage_options)
            )
        except TableNotFoundError:
            root = location.address.rsplit("/", 1)[0]
            raise LogNotFoundError(root, provider) from None
        self._read_metadata()

    def _read_metadata(self) -> None:
        self.definition = ProviderDefinition.from_json(self.delta.metadata().configuration[PROPERTY])
        self.columns: list[Column] = columns_of(self.delta.schema())
        self._described = self.delta.version()

    def refresh(self) -> None:
        """Read what was committed since."""
        self.location.patiently(self.delta.update_incremental)
        if self.delta.version() != self._described:
            self._read_metadata()

    @property
    def version(self) -> int:
        """The Delta version that was read."""
        return self.delta.version()

    def column(self, name: str) -> Column | None:
        """The column of that name, or of that former name."""
        by_name = {column.name: column for column in self.columns}
        former = {alias: column for column in self.columns for alias in column.aliases}
        return by_name.get(name) or former.get(name)

    @property
    def value_columns(self) -> list[Column]:
        """The columns besides the entities."""
        return [column for column in self.columns if column.name not in self.definition.entities]

    def now_us(self) -> int:
        """What the log's clock says."""
        return to_us(self.clock(), "clock")

    def head(self) -> Head:
        """Where the log stood in the version that was read."""
        if self._head is None or self._head[0] != self.version:
            told = self._told()

            def transaction(name: str) -> int | None:
                return told[name] if name in told else self._transaction(name)

            head = Head(transaction(HEAD) or 0, _or(transaction(STAMP), NO_STAMP), _or(transaction(STAMPED_AT), -1))
            self._head = (self.version, head)
        return self._head[1]

    def marked(self, marker: str) -> int | None:
        """The number that was committed with a marker: of a batch, or of a stream of batches; `None` if there is none."""
        return self._transaction(marker)

    def last_poll_record(self) -> int:
        """The `log_sequence` of the poll that the next one goes on after; -1 before the first."""
        return _or(self._transaction(POLLED), -1)

    def _told(self) -> dict[str, int]:
        """What the entry of the version that was read says itself; of an object store each other question reads many entries."""
        if self.location.folder is not None:
            return {}
        try:
            entry = self.location.read(f"_delta_log/{self.version:020d}.json").decode()
        except FileNotFoundError:
            return {}
        stated = [json.loads(line).get("txn") for line in entry.splitlines()]
        return {txn["appId"]: txn["version"] for txn in stated if txn is not None}

    def _transaction(self, name: str) -> int | None:
        return self.location.patiently(lambda: self.delta.transaction_version(name))

    def files(self) -> pl.DataFrame:
        """The data files with their smallest and greatest values, in the order of their rows."""
        if self._files is None or self._files[0] != self.version:
            raw = pl.DataFrame(self.location.patiently(lambda: self.delta.get_add_actions(flatten=True)))
            frame = raw.select(
                (pl.col(name).cast(dtype) if name in raw.columns else pl.lit(None, dtype).alias(name))
                for name, dtype in FILES_SCHEMA.items()
            ).sort("min.log_sequence", "path")
            self._files = (self.version, frame)
        return self._files[1]

    def address_of(self, path: str) -> str:
        """Where a data file is."""
        return f"{self.location.address}/{path}"

    def read(self, paths: list[str], columns: list[str] | None = None) -> pl.LazyFrame:
        """The rows of some data files, as stored; a column that a file lacks is null."""
        schema = self.stored_schema()
        if not paths:
            frame = pl.LazyFrame(schema=schema)
        else:
            frame = pl.scan_parquet(
                [self.address_of(path) for path in paths],
                schema=schema,
                missing_columns="insert",
                extra_columns="ignore",
                storage_options=self.location.storage_options,
                glob=False,
                hive_partitioning=False,
            )
        return frame if columns is None else frame.select(columns)

    def stored_schema(self) -> dict[str, pl.DataType]:
        """The columns of the files in the table's order."""
        own = {column.name: column.stored for column in self.columns}
        return {field.name: SYSTEM_COLUMNS.get(field.name) or own[field.name] for field in self.delta.schema().fields}

    def write_file(self, frame: pl.DataFrame) -> AddAction:
        """Write rows to a file of their own; nobody sees it before it is committed.

        Args:
            frame: All columns of the table in their stored form, sorted by `log_sequence` or not.
        """
        ordered = frame.select(pl.col(name).cast(dtype) for name, dtype in self.stored_schema().items())
        name = f"{ordered['log_sequence'][0]:016d}-{uuid.uuid4().hex}.parquet"
        size = self.location.write_parquet(name, ordered)
        return AddAction(
            path=name,
            size=size,
            partition_values={},
            modification_time=to_us(system_clock()) // 1_000,
            data_change=True,
            stats=_stats(ordered),
        )

    def discard(self, written: list[AddAction]) -> None:
        """Delete files that no commit names; what an object store does not delete now waits for `delete_unreferenced`."""
        with contextlib.suppress(DeltaError, *(() if self.location.folder is not None else (OSError,))):
            for action in written:
                self.location.remove(action.path)

    def logical_to_stored(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with its entity and value columns in the form of the files."""
        return frame.with_columns(to_stored(column) for column in self.columns if column.name in frame.columns)

    def commit(
        self,
        add: list[AddAction],
        remove: list[str] | None = None,
        *,
        next_sequence: int | None = None,
        stamp_us: int | None = None,
        by_clock: bool = False,
        marker: tuple[str, int] | None = None,
        poll_record: int | None = None,
    ) -> None:
        """Make the very next version of the table out of some files.

        Args:
            add: Files written by `write_file`.
            remove: Paths of files that are no longer part of the table.
            next_sequence: The head's new `next_sequence`, if rows were added.
            stamp_us: The head's new greatest stamp.
            by_clock: Whether that stamp is the system clock's, to be compared with the instant of this commit.
            marker: What tells later that these rows are in.
            poll_record: The `log_sequence` of the poll that the next poll goes on after.

        Raises:
            LostRaceError: If another commit came first.
            DeltaError: If the store failed; then nobody knows whether the commit was made.
            OSError: Likewise.
        """
        sizes = dict(self.files().select("path", "size_bytes").iter_rows()) if remove else {}
        now_ms = to_us(system_clock()) // 1_000
        actions: list[AddAction | RemoveAction] = [
            RemoveAction(path, data_change=True, deletion_timestamp=now_ms, size=sizes[path], partition_values={})
            for path in remove or []
        ]
        actions.extend(add)
        self.make_next(
            lambda properties: self.delta.create_write_transaction(
                actions,
                mode="append",
                schema=self.delta.schema(),
                partition_by=[],
                commit_properties=properties,
                post_commithook_properties=PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=True),
            ),
            next_sequence=next_sequence,
            stamp_us=stamp_us,
            by_clock=by_clock,
            marker=marker,
            poll_record=poll_record,
        )

    def make_next(
        self,
        send: Callable[[CommitProperties], object],
        *,
        next_sequence: int | None = None,
        stamp_us: int | None = None,
        by_clock: bool = False,
        marker: tuple[str, int] | None = None,
        poll_record: int | None = None,
    ) -> None:
        """Send a commit that becomes version + 1 or none, and find out which.

        A store that fails after it has done what it was told, or whose answer is lost, leaves that open; what tries again may
        then lose against itself. So each commit carries a token, and the entry of the version tells whose it is. Where
        there is no entry yet, an object store is sent the same commit again: at most one of the two can become that version.

        Args:
            send: Makes the commit with the properties that it is given.
            next_sequence: As for `commit`; so are the rest.
            stamp_us: The head's new greatest stamp.
            by_clock: Whether that stamp is the system clock's.
            marker: What tells later that these rows are in.
            poll_record: The `log_sequence` of the poll that the next poll goes on after.

        Raises:
            LostRaceError: If another commit came first.
            DeltaError: If the store failed; then nobody knows whether the commit was made.
            OSError: Likewise.
        """
        target, token = self.version + 1, uuid.uuid4().hex
        properties = self.exactly_next(
            token=token,
            next_sequence=next_sequence,
            stamp_us=stamp_us,
            by_clock=by_clock,
            marker=marker,
            poll_record=poll_record,
        )
        for attempt in range(1, SENT_AGAIN + 1):
            try:
                with self.location.plainly():
                    send(properties)
                break
            except (DeltaError, OSError) as error:
                if self._was_made(target, token, error):
                    break
                if self.location.folder is not None or attempt == SENT_AGAIN or getattr(error, "lasting", False):
                    raise  # nobody was quicker: the store failed, and may still make the commit
                self.wait(attempt)
        self.sync_commit(target)
        self.refresh()

    def _was_made(self, target: int, token: str, error: Exception) -> bool:
        """Whether a commit that failed was made all the same; false if nobody has made that version yet.

        Raises:
            LostRaceError: If another commit is that version.
        """
        self.refresh()
        if self.version < target:
            return False
        if token in self.location.read(f"_delta_log/{target:020d}.json").decode():
            return True
        raise LostRaceError(str(error)) from error

    def wait(self, attempt: int) -> None:
        """Let others go first, at random and longer each time, where no lock gives writers their turn."""
        if self.location.folder is None:
            longest = min(_FIRST_WAIT_S * 2**attempt, _LONGEST_WAIT_S)
            time.sleep(random.uniform(0, longest))  # noqa: S311 - spreads writers, guards nothing

    def exactly_next(
        self,
        *,
        token: str,
        next_sequence: int | None = None,
        stamp_us: int | None = None,
        by_clock: bool = False,
        marker: tuple[str, int] | None = None,
        poll_record: int | None = None,
    ) -> CommitProperties:
        """Properties under which a commit becomes version + 1 or fails.

        No retry: a retry would let a blind append slip in behind another one and double its sequence numbers. All
        commits also share one application transaction, which Delta refuses to two concurrent writers.
        """
        head = self.head()
        transactions = [Transaction(HEAD, head.next_sequence if next_sequence is None else next_sequence)]
        if stamp_us is not None:
            transactions.append(Transaction(STAMP, max(stamp_us, head.last_stamp_us)))
        if by_clock:
            transactions.append(Transaction(STAMPED_AT, self.version + 1))
        if poll_record is not None:
            transactions.append(Transaction(POLLED, poll_record))
        if marker is not None:
            transactions.append(Transaction(*marker))
        return CommitProperties(
            max_commit_retries=0, app_transactions=transactions, custom_metadata={COMMITTED_AS: token}
        )

    def redefine(self, definition: ProviderDefinition) -> ProviderDefinition:
        """Store another definition in one commit.

        Raises:
            CommitError: If other commits kept coming first.
        """
        for attempt in range(1, REDEFINITIONS + 1):
            self.refresh()
            if self.definition == definition:
                return definition
            try:
                with self.commit_lock():
                    self.make_next(
                        lambda properties: self.delta.alter.set_table_properties(
                            {PROPERTY: definition.to_json()}, raise_if_not_exists=False, commit_properties=properties
                        )
                    )
            except (LostRaceError, CommitFailedError) as error:
                if attempt == REDEFINITIONS:
                    raise CommitError(self.provider, attempt, error) from error
                self.wait(attempt)
        return self.definition

    def sync_commit(self, version: int) -> None:
        """Wait until a commit is on the disk, where it is a local one."""
        if self.location.folder is not None:
            log = self.location.folder / "_delta_log"
            entry = log / f"{version:020d}.json"
            with contextlib.suppress(FileNotFoundError):
                sync_file(entry)
            sync_file(log)
            sync_file(self.location.folder)

    def committed_us(self, version: int) -> int | None:
        """When a version was committed, by the clock of the store; `None` if its entry is gone."""
        return self.location.modified_us(f"_delta_log/{version:020d}.json")

    @contextlib.contextmanager
    def commit_lock(self) -> Iterator[bool]:
        """One committing process at a time, where the system has locks."""
        with self.location.lock("commit.lock") as held:
            yield held

    @contextlib.contextmanager
    def maintenance_lock(self) -> Iterator[bool]:
        """One compaction, retirement, erasure or rewrite at a time, where the system has locks."""
        with self.location.lock("maintenance.lock") as held:
            yield held


def batch_marker(batch_id: str) -> str:
    """The application transaction of a batch; a digest, for a batch id may name a person."""
    return "batch:" + hashlib.blake2b(batch_id.encode(), digest_size=16).hexdigest()


def stream_marker(stream: str) -> str:
    """The application transaction of a stream of batches."""
    return f"stream:{stream}"


def create_table(
    location: Location, definition: ProviderDefinition, fields: list[object], clock: Clock | None
) -> LogTable:
    """A new, empty table."""
    if location.folder is not None:
        location.folder.mkdir(parents=True, exist_ok=True)
    with location.plainly():
        _create(location, definition, fields)
    return LogTable(location, definition.provider, clock)


def _create(location: Location, definition: ProviderDefinition, fields: list[object]) -> None:
    DeltaTable.create(
        location.address,
        Schema(fields),  # type: ignore[arg-type]
        mode="error",
        storage_options=location.storage_options,
        configuration={
            PROPERTY: definition.to_json(),
            "delta.dataSkippingStatsColumns": ",".join(STATS_COLUMNS),
            # An object store is asked for every entry since the last checkpoint, some of them several times a commit.
            "delta.checkpointInterval": "50" if location.folder is not None else "10",
            # Positions are columns, so nobody asks for old versions; a commit a second would leave 86,400 entries a day.
            "delta.logRetentionDuration": "interval 1 days",
            "delta.deletedFileRetentionDuration": "interval 1 days",
        },
        raise_if_key_not_exists=False,
    )


def _stats(frame: pl.DataFrame) -> str:
    summary = (
        frame.select(
            *(pl.col(name).min().alias(f"min.{name}") for name in STATS_COLUMNS),
            *(pl.col(name).max().alias(f"max.{name}") for name in STATS_COLUMNS),
            *(pl.col(name).null_count().alias(f"null.{name}") for name in STATS_COLUMNS),
        )
        .with_columns(cs.datetime().dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
        .row(0, named=True)
    )

    def part(prefix: str) -> dict[str, object]:
        values = {name: summary[f"{prefix}.{name}"] for name in STATS_COLUMNS}
        return {name: value for name, value in values.items() if value is not None}

    return json.dumps(
        {"numRecords": frame.height, "minValues": part("min"), "maxValues": part("max"), "nullCount": part("null")}
    )


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
