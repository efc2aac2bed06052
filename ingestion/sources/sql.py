"""Rows of a database that come after those read before."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self
from urllib.parse import urlsplit

import polars as pl
from pydantic import Field, field_validator, model_validator

from ingestion.errors import MissingLibraryError, PayloadError, SourceError
from ingestion.instants import Clock, system_clock
from ingestion.sources.base import Fetched, Payload, Progress
from ingestion.sources.layout import INSTANTS, Layout, TimeFormat
from ingestion.sources.parsing import parse_payload
from ingestion.sources.redaction import Redactor, sounds_secret
from ingestion.sources.settings import Duration, SourceSettings, Zone, from_environment, length_of, seconds_of
from ingestion.sources.sql_values import decode_value, encode_value, step_back, to_arrow
from ingestion.sources.times import read_instants

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Engine, Select


class SqlSource(SourceSettings):
    """A table or query that is read on from where the last reading stopped.

    Attributes:
        kind: `sql`.
        url_env: The environment variable with the database's address, as SQLAlchemy takes it.
        url: The address itself, if it holds no password.
        password_env: The environment variable with the password, beside `url`.
        table: The table, or `schema.table`.
        query: Or a query without `;`, which is read as if it were a table.
        cursor_column: Rows whose value here is greater than the last one read are new; null is never new, and told. Without it
            everything is read each time, which is what a whole state needs.
        tie_columns: What orders rows of the same cursor value, so that a batch may end between them; null comes last.
        start: Rows after this value only, on the first reading; of instants ISO 8601 with a zone.
        overlap: How far each new reading goes back behind the last one, a duration or a number: transactions may commit out of
            order, so that a smaller value can appear later. Rows that are read twice are dropped as unchanged.
        batch_rows: Of one fetch.
        layout: Which columns are ours.
        zone: IANA name of the zone of instants that the database keeps without one. Without it they are refused.
        connect_timeout: Until a connection stands.
        timeout: Of a statement, where the database can end it (PostgreSQL).
    """

    kind: Literal["sql"] = "sql"
    url_env: str | None = None
    url: str | None = None
    password_env: str | None = None
    table: str | None = None
    query: str | None = None
    cursor_column: str | None = None
    tie_columns: tuple[str, ...] = ()
    start: int | float | datetime | date | str | None = None
    overlap: int | Duration | None = None
    batch_rows: int = Field(default=50_000, ge=1)
    layout: Layout = Layout()
    zone: Zone | None = None
    connect_timeout: Duration = "10s"
    timeout: Duration = "5m"

    @field_validator("url")
    @classmethod
    def _holds_no_password(cls, url: str | None) -> str | None:
        if url is not None:
            parts = urlsplit(url)
            if parts.password is not None or any(
                sounds_secret(pair.partition("=")[0]) for pair in parts.query.split("&")
            ):
                raise ValueError(
                    "url holds a password; take it from the environment: password_env, or the whole as url_env"
                )
        return url

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("give url_env or url, one of them")
        if self.password_env is not None and self.url is None:
            raise ValueError("password_env belongs to url")
        if (self.table is None) == (self.query is None):
            raise ValueError("give table or query, one of them")
        if self.query is not None and ";" in self.query.rstrip().rstrip(";"):
            raise ValueError("query must be one statement")
        if self.cursor_column is None and (self.tie_columns or self.start is not None or self.overlap is not None):
            raise ValueError("tie_columns, start and overlap belong to cursor_column")
        return self

    @property
    def whole_state_problem(self) -> str | None:
        """Why this cannot be the source of a whole state; `None` if it can."""
        return None if self.cursor_column is None else "reads only what is new; leave out cursor_column."

    def open(self, provider_name: str, environment: Mapping[str, str], *, clock: Clock = system_clock) -> Sql:
        """The source at work.

        Args:
            provider_name: For messages.
            environment: Where the address or the password is.
            clock: Tells when rows were in hand.

        Raises:
            SourceError: If something is not in the environment, or the address is none.
            MissingLibraryError: If SQLAlchemy or the database's driver is not installed.
        """
        try:
            import sqlalchemy
            from sqlalchemy.exc import ArgumentError, NoSuchModuleError
        except ImportError as error:
            raise MissingLibraryError("sqlalchemy", "sql", "reading a database") from error
        place = self.table or "its query"
        if self.url_env is not None:
            address = from_environment(self.url_env, environment, provider=provider_name, place=place)
        else:
            address = self.url or ""
        try:
            url = sqlalchemy.make_url(address)
        except ArgumentError:
            raise SourceError(
                provider_name, place, "its address cannot be read", "write it like postgresql://user@host/database."
            ) from None
        if self.password_env is not None:
            url = url.set(
                password=from_environment(self.password_env, environment, provider=provider_name, place=place)
            )
        if url.drivername in {"postgresql", "postgres"}:
            url = url.set(drivername="postgresql+psycopg")
        redactor = Redactor([secret for secret in (url.password, address if url.password else None) if secret])
        try:
            engine = sqlalchemy.create_engine(
                url,
                hide_parameters=True,
                pool_size=1,
                max_overflow=0,
                pool_pre_ping=True,
                connect_args=_connect_args(url.get_backend_name(), self),
            )
        except NoSuchModuleError:
            raise SourceError(provider_name, place, f"nobody knows databases of kind {url.drivername!r}") from None
        except ImportError as error:
            raise MissingLibraryError(
                error.name or url.drivername, "sql", f"reading {url.get_backend_name()}"
            ) from None
        except TypeError:  # a pool that takes no size: SQLite in memory
            engine = sqlalchemy.create_engine(url, hide_parameters=True)
        shown = redactor.text(f"{url.get_backend_name()}://{url.host or ''}/{url.database or ''}")
        return Sql(provider_name, self, engine, place=f"{shown} {place}", redactor=redactor, clock=clock)


def _connect_args(backend: str, declared: SqlSource) -> dict[str, Any]:
    seconds = max(1, math.ceil(seconds_of(declared.connect_timeout)))
    if backend == "postgresql":
        # The kernel gives up on a server that is gone; one that is there but slow is told to stop.
        idle = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        return {"connect_timeout": seconds, "application_name": "asknown", **idle}
    return {"timeout": seconds} if backend == "sqlite" else {}


class Sql:
    """A `SqlSource` at work. Its cursor holds the last row's place in the order, with its types.

    Args:
        provider: For messages.
        declared: What to read.
        engine: Connects to the database.
        place: The database and table, for messages.
        redactor: Takes secrets out of what is shown.
        clock: Tells when rows were in hand.
    """

    kind = "sql"

    def __init__(
        self, provider: str, declared: SqlSource, engine: Engine, *, place: str, redactor: Redactor, clock: Clock
    ) -> None:
        self._provider = provider
        self._declared = declared
        self._engine = engine
        self._place = place
        self._redactor = redactor
        self._clock = clock
        self._order = () if declared.cursor_column is None else (declared.cursor_column, *declared.tie_columns)

    def __repr__(self) -> str:
        return f"Sql({self._provider!r}, {self._place!r})"

    def fetch(self, progress: Progress, *, now: datetime) -> Fetched:  # noqa: ARG002 - the database has its own order
        """The rows after the last ones, at most a batch.

        Raises:
            SourceError: If the database cannot be reached or the query fails.
        """
        from sqlalchemy.exc import SQLAlchemyError

        if self._is_missing_file():
            self._fail("there is no such database")  # connecting would make an empty one
        try:
            with self._engine.connect() as connection:
                names, rows = self._read(connection, progress.cursor)
                notes = self._skipped(connection)
        except SQLAlchemyError as error:
            said = str(getattr(error, "orig", None) or error).strip()
            self._fail(said.splitlines()[0][:300] if said else type(error).__name__)
        received = self._clock()
        rows, more = self._batch(names, rows)
        if not rows:
            return Fetched(cursor=self._finished(progress.cursor), notes=notes)
        payload = Payload(
            content=to_arrow(names, rows),
            label=self._place,
            received_time=received,
            version=f"{len(rows)} rows",
            media_type="application/vnd.apache.arrow.stream",
        )
        cursor = self._cursor(names, rows[-1], more=more) if self._order else None
        return Fetched(payloads=(payload,), cursor=cursor, version=payload.version, more=more, notes=notes)

    def parse(self, payload: Payload) -> pl.DataFrame:
        """The rows in a batch.

        Raises:
            PayloadError: If it is not laid out as declared, or has instants without a zone and none was said.
        """
        layout = self._declared.layout.model_copy(update={"format": "arrow"})
        content = payload.content
        if self._declared.zone is not None:
            spoken_for = {**dict.fromkeys(INSTANTS, TimeFormat(zone=self._declared.zone)), **layout.times}
            layout = layout.model_copy(update={"times": spoken_for})
            content = _in_zone(content, self._declared.zone, layout)
        frame = parse_payload(content, layout, provider=self._provider, label=payload.label)
        for name, dtype in frame.schema.items():
            if isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
                raise PayloadError(
                    self._provider, payload.label, f"column {name!r} has no time zone", 'say which, e.g. zone: "UTC".'
                )
        return frame

    def close(self) -> None:
        """Give back connections."""
        self._engine.dispose()

    def _fail(self, problem: str, hint: str = "") -> NoReturn:
        """Say what is wrong.

        Raises:
            SourceError: Always.
        """
        raise SourceError(self._provider, self._place, self._redactor.text(problem), hint) from None

    def _is_missing_file(self) -> bool:
        database = self._engine.url.database
        if self._engine.dialect.name != "sqlite" or not database or database.startswith((":memory:", "file:")):
            return False
        return not Path(database).exists()

    # ---- asking -------------------------------------------------------------------------------------------------------

    def _read(self, connection: Connection, cursor: Mapping[str, Any] | None) -> tuple[list[str], list[Sequence[Any]]]:
        if self._engine.dialect.name == "postgresql":
            milliseconds = max(1, round(seconds_of(self._declared.timeout) * 1_000))
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")
        result = connection.execute(self._statement(cursor))
        names = list(result.keys())
        if twice := sorted({name for name in names if names.count(name) > 1}):
            self._fail(f"two columns are called {twice[0]!r}", "name them apart: SELECT a.x AS a_x, b.x AS b_x.")
        if lacking := [name for name in self._order if name not in names]:
            self._fail(f"there is no column {lacking[0]!r}", f"its columns are {', '.join(names)}.")
        if problem := self._declared.layout.header_problem(names):
            self._fail(*problem)  # before the cursor leaves the rows behind
        return names, [tuple(row) for row in result]

    def _skipped(self, connection: Connection) -> tuple[str, ...]:
        """A note, if there are rows that are never read."""
        if not self._order or connection.execute(self._statement(None, unplaced=True)).first() is None:
            return ()
        return (f"rows whose {self._order[0]} is null are never read; choose a cursor_column without nulls",)

    def _statement(self, cursor: Mapping[str, Any] | None, *, unplaced: bool = False) -> Select[Any]:
        """All rows after the cursor in their order, one more than a batch; or one that has no place in it."""
        import sqlalchemy as sa

        if self._declared.table is not None:
            schema, _, name = self._declared.table.rpartition(".")
            rows: Any = sa.table(name, schema=schema or None)
        else:
            query = (self._declared.query or "").strip().rstrip(";")
            rows = sa.text(f"({query}\n) AS asked".replace(":", "\\:"))  # a colon is no parameter
        statement = sa.select(sa.text("*")).select_from(rows)
        if unplaced:
            return statement.where(sa.column(self._order[0]).is_(None)).limit(1)
        if not self._order:
            return statement
        columns: list[ColumnElement[Any]] = [sa.column(name) for name in self._order]
        order = [columns[0], *(part for tie in columns[1:] for part in (sa.case((tie.is_(None), 1), else_=0), tie))]
        statement = statement.order_by(*order).limit(self._declared.batch_rows + 1)
        condition = self._condition(columns, cursor)
        return statement.where(columns[0].is_not(None) if condition is None else condition)

    def _condition(
        self, columns: list[ColumnElement[Any]], cursor: Mapping[str, Any] | None
    ) -> ColumnElement[bool] | None:
        """Which rows come after the cursor."""
        import sqlalchemy as sa

        overlap = self._declared.overlap
        if cursor is None or tuple(cursor["by"]) != self._order:
            start = self._declared.start
            texts = self._engine.dialect.name == "sqlite"  # which keeps instants as whatever text they came in
            return None if start is None else columns[0] > (start if texts else _typed(start))
        last = [None if value is None else decode_value(value) for value in cursor["at"]]
        if not cursor["more"] and overlap is not None:
            try:
                back = step_back(last[0], overlap if isinstance(overlap, int) else length_of(overlap))
            except ValueError as error:
                self._fail(str(error))
            again: ColumnElement[bool] = columns[0] >= back
            return again
        # (a, b) > (x, y), written out, since not every database compares rows
        after: list[ColumnElement[bool]] = [columns[0] > last[0]]
        for depth in range(1, len(columns)):
            if last[depth] is not None:  # nothing comes after null
                same = [columns[i].is_(None) if last[i] is None else columns[i] == last[i] for i in range(depth)]
                after.append(sa.and_(*same, sa.or_(columns[depth] > last[depth], columns[depth].is_(None))))
        condition: ColumnElement[bool] = sa.or_(*after)
        return condition

    # ---- what came ----------------------------------------------------------------------------------------------------

    def _batch(self, names: list[str], rows: list[Sequence[Any]]) -> tuple[list[Sequence[Any]], bool]:
        """A batch that ends where the order goes on: rows of the same place are not torn apart."""
        most = self._declared.batch_rows
        if not self._order or len(rows) <= most:
            return rows, False
        places = [names.index(name) for name in self._order]

        def place(row: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(row[at] for at in places)

        following = place(rows[most])
        end = most
        while end and place(rows[end - 1]) == following:
            end -= 1
        if not end:
            self._fail(
                f"more than {most} rows have {', '.join(self._order)} = {', '.join(map(str, following))}",
                "name tie_columns that tell them apart, or raise batch_rows.",
            )
        return rows[:end], True

    def _cursor(self, names: list[str], last: Sequence[Any], *, more: bool) -> dict[str, Any]:
        """Where the next fetch goes on."""
        at = []
        for name in self._order:
            try:
                value = last[names.index(name)]
                at.append(None if value is None else encode_value(value))
            except ValueError as error:
                self._fail(f"column {name!r}: {error}", "choose columns without nulls that have an order.")
        return {"by": list(self._order), "at": at, "more": more}

    def _finished(self, cursor: dict[str, Any] | None) -> dict[str, Any] | None:
        """The cursor once there is nothing after it; `None` if that is how it was."""
        return {**cursor, "more": False} if cursor is not None and cursor.get("more") else None


def _typed(start: Any) -> Any:
    """A text that is an instant with a zone as such; anything else as it is."""
    if not isinstance(start, str):
        return start
    try:
        found = datetime.fromisoformat(start)
    except ValueError:
        return start
    return start if found.tzinfo is None else found.astimezone(UTC)


def _in_zone(content: bytes, zone: str, layout: Layout) -> bytes:
    """An Arrow stream whose instants without a zone are in `zone`; columns that the layout speaks for are left to it."""
    frame = pl.read_ipc_stream(io.BytesIO(content))
    theirs = {(layout.columns or {}).get(ours, ours) for ours in layout.times}
    naive = [
        name
        for name, dtype in frame.schema.items()
        if isinstance(dtype, pl.Datetime) and dtype.time_zone is None and name not in theirs
    ]
    if not naive:
        return content
    buffer = io.BytesIO()
    frame.with_columns(read_instants(frame[name], TimeFormat(zone=zone))[0] for name in naive).write_ipc_stream(buffer)
    return buffer.getvalue()
