"""DuckDB over all logs of a root: for each provider two views and `<provider>_as_of(t)`, and nothing that writes files."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self, TypeVar

import polars as pl

import ingestion
from serving.errors import NoLogsError, QueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from duckdb import DuckDBPyConnection, DuckDBPyRelation, Statement

    from ingestion import ObservationLog, SqlNames

Result = TypeVar("Result")

BATCH_ROWS = 100_000
ALLOWED = frozenset(
    {"SELECT", "EXPLAIN", "CALL", "MULTI", "SET", "VARIABLE_SET", "PRAGMA", "ANALYZE", "TRANSACTION", "LOAD"}
    | {"CREATE", "DROP", "ALTER", "INSERT", "UPDATE", "DELETE", "MERGE_INTO", "RELATION", "VACUUM"}
)
"""Kinds of statements that write nothing but this session's own tables, which are in memory."""
WITH_ROWS = frozenset({"SELECT", "EXPLAIN", "CALL", "MULTI", "PRAGMA", "RELATION"})
_EXPLAIN = re.compile(r"\s*explain\s*(\([^)]*\)|analyze)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Opened:
    """One provider in a session.

    Attributes:
        log: Its log, as it was when the session looked.
        names: What it is called in SQL.
        position: The greatest `log_sequence` that the session sees.
    """

    log: ObservationLog
    names: SqlNames
    position: int


class SqlSession:
    """DuckDB in memory with the logs of a root as views; instants are in UTC.

    What the logs held when the session began, or was refreshed last, is what it sees.

    Args:
        root: Folder or object-store address that holds the logs.
        storage_options: Passed on to the store.
        through_arrow: Read files by way of Arrow instead of DuckDB's own reader; None does so where files are in an object store.

    Attributes:
        opened: Providers by name.

    Raises:
        NoLogsError: If there are no logs.
    """

    def __init__(
        self, root: str, *, storage_options: dict[str, str] | None = None, through_arrow: bool | None = None
    ) -> None:
        import duckdb

        self.root = root
        self._options, self._through_arrow = storage_options, through_arrow
        self._folder = TemporaryDirectory(prefix="asknown-")
        self.connection: DuckDBPyConnection = duckdb.connect(
            config={"temp_directory": self._folder.name, "autoinstall_known_extensions": False}
        )
        self.connection.execute("SET TimeZone = 'UTC'")
        self.opened: dict[str, Opened] = {}
        try:
            self.refresh()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give everything back."""
        self.connection.close()
        self._folder.cleanup()

    def refresh(self) -> None:
        """See what the logs hold now.

        Raises:
            NoLogsError: If there are no logs.
        """
        providers = ingestion.list_logs(self.root, storage_options=self._options)
        if not providers:
            raise NoLogsError(self.root, or_else="or say where they are: --root FOLDER")
        names = ingestion.sql_names(providers)
        self.opened = {}
        for provider in providers:
            log = ingestion.open_log(self.root, provider, storage_options=self._options)
            self._open(log, names[provider])

    def _open(self, log: ObservationLog, names: SqlNames) -> None:
        relation = None
        through_arrow = log.table.location.folder is None if self._through_arrow is None else self._through_arrow
        position = log.position()
        if through_arrow:
            store = f"{names.rows}@store"
            self.connection.register(store, log.table.delta.to_pyarrow_dataset())
            relation = f'"{store}"'
        for statement in ingestion.snapshot_sql(log, source="files", relation=relation, names=names):
            self.connection.execute(statement)
        self.opened[log.provider] = Opened(log, names, position)

    # -------------------------------------------------------------------------------------------------------- asking

    def ask(self, text: str) -> Answer | None:
        """Run statements, and return the last one's result.

        Args:
            text: One or more statements, in DuckDB's SQL.

        Returns:
            The result, which is computed as it is read; None if the last statement has none.

        Raises:
            QueryError: If a statement cannot be read or run, or would write a file.
        """
        import duckdb

        try:
            statements = self.connection.extract_statements(text)
            for statement in statements:
                self._check(statement)
            found: DuckDBPyRelation | None = None
            for statement in statements:
                result = self.connection.sql(statement.query)
                found = result if statement.type.name in WITH_ROWS else None
        except duckdb.Error as error:
            raise self.error(error) from error
        return None if found is None else Answer(self, found)

    def stoppable(self, work: Callable[[], Result]) -> Result:
        """What `work` returns; Ctrl-C stops a query that it waits for.

        DuckDB does not look for signals while it computes, so it computes beside the thread that receives them.

        Raises:
            KeyboardInterrupt: When it was stopped.
        """
        with ThreadPoolExecutor(max_workers=1) as pool:
            future = pool.submit(work)
            try:
                while not wait(
                    [future], timeout=0.1
                ).done:  # a signal that another thread received is seen between waits
                    pass
                return future.result()
            except KeyboardInterrupt:
                while not wait([future], timeout=0.1).done:
                    self.connection.interrupt()
                raise

    def _check(self, statement: Statement) -> None:
        """Refuse what writes files; also where it is to be explained, for EXPLAIN ANALYZE runs it.

        Raises:
            QueryError: If a statement does.
        """
        kind = statement.type.name
        if kind == "EXPLAIN":
            inner = _EXPLAIN.sub("", statement.query, count=1)
            for explained in self.connection.extract_statements(inner):
                self._check(explained)
        if kind not in ALLOWED:
            writes = kind in ("COPY", "COPY_DATABASE", "EXPORT")
            raise QueryError(
                f"{kind} statements are not run here: the session is for reading",
                "leave it out, and write the result: --output FILE.csv, FILE.json or FILE.parquet"
                if writes
                else "open a database of your own in DuckDB, with the text of: asknown sql --print-macros",
            )

    def _defined(self) -> set[str]:
        """The views and functions that there are; told even where a transaction has failed."""
        told = """
            SELECT view_name FROM duckdb_views() WHERE NOT internal
            UNION SELECT function_name FROM duckdb_functions() WHERE NOT internal"""
        return {name for (name,) in self.connection.cursor().execute(told).fetchall()}

    def error(self, error: Exception) -> QueryError:
        """What DuckDB says, with a hint where one helps."""
        text, hint = str(error), ""
        if "does not exist" in text:
            names = [name for one in self.opened.values() for name in (one.names.view, f"{one.names.as_of}(t)")]
            left = [name for name in names if name.removesuffix("(t)") in self._defined()]
            hint = f"there are {', '.join(left)}; DESCRIBE NAME lists the columns of a view." if left else ""
            if len(left) < len(names):
                hint = f"{hint}\nWhat was dropped comes back with .refresh, or in a new session.".lstrip()
        elif "No files found" in text or "No such file" in text:
            hint = "if a file of a log has gone, the log was compacted or erased from meanwhile: ask again, or .refresh"
        elif "binder" in text.lower() and (called := re.search(r"\b\w+_as_of\b", text)):
            what = "give it an instant" if "supplied arguments" in text else "write it after FROM"
            hint = f"{what}: FROM {called[0]}('2026-06-01T12:00:00Z')"
        return QueryError(text.strip(), hint)


class Answer:
    """The result of a query; its rows are computed as they are read, once.

    Attributes:
        columns: Names, each of which is there once.
    """

    def __init__(self, session: SqlSession, relation: DuckDBPyRelation) -> None:
        self._session = session
        self.columns = _told_apart(relation.columns)
        self._intervals = [
            name for name, kind in zip(self.columns, relation.types, strict=True) if str(kind) == "INTERVAL"
        ]
        self._relation = relation

    def frames(self, rows: int = BATCH_ROWS) -> Iterator[pl.DataFrame]:
        """The rows, some at a time; intervals are durations, a month being 30 days. At least one frame, if an empty one.

        Raises:
            QueryError: If the query fails on the way.
        """
        import duckdb

        try:
            reader: Any = self._shown().to_arrow_reader(rows)
            yield self._frame(reader.schema.empty_table())
            for batch in reader:
                yield self._frame(batch)
        except (duckdb.Error, OSError) as error:
            raise self._session.error(error) from error

    def head(self, rows: int) -> tuple[pl.DataFrame, bool]:
        """The first rows, and whether there are more."""
        parts, height = [], 0
        with suppress(StopIteration):
            frames = self.frames(min(rows + 1, BATCH_ROWS))
            while height <= rows:
                parts.append(next(frames))
                height += parts[-1].height
        whole = pl.concat(parts)
        return whole.head(rows), whole.height > rows

    def _shown(self) -> DuckDBPyRelation:
        columns = []
        for number, name in enumerate(self.columns, 1):
            quoted = '"' + name.replace('"', '""') + '"'
            columns.append(f"epoch_us(#{number}) AS {quoted}" if name in self._intervals else f"#{number} AS {quoted}")
        return self._relation.project(", ".join(columns))

    def _frame(self, batch: Any) -> pl.DataFrame:
        frame = pl.DataFrame(batch)
        return frame.with_columns(pl.col(name).cast(pl.Duration("us")) for name in self._intervals)


def _told_apart(names: list[str]) -> list[str]:
    """`names` with a number after those that are there already."""
    found: list[str] = []
    for name in names:
        unique, number = name, 1
        while unique in found:
            number += 1
            unique = f"{name}_{number}"
        found.append(unique)
    return found
