"""The log as SQL: views and a table function that answer in another engine as `alignment.snapshot` does.

The log is an ordinary Delta table; what its rows mean is in docs/reference/log-format.md. The texts below state which rows
count at (t, p), when they arrived and which of them are current, once for every dialect: only names, types and the way a
function is declared differ. `alignment.engines.sql_rules` states the same rules for whole spines of questions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from ingestion.reading import OBSERVATION, RESTAMP
from ingestion.schema import INSTANT, SYSTEM_COLUMNS

if TYPE_CHECKING:
    from ingestion.log import ObservationLog
    from ingestion.table import LogTable

Dialect = Literal["duckdb", "spark"]
Source = Literal["delta", "files"]

RESTAMPS = """restamps AS (
    -- R14: a batch whose commit was confirmed late arrives at the later instant.
    SELECT r.batch_id, max(r.arrival_time) AS {restamp}
    FROM {rows} AS r
    WHERE r.record_kind = '{restamp_kind}'{up_to_p}
    GROUP BY r.batch_id
)"""

OBSERVATIONS = """WITH {restamps}
SELECT {columns}
FROM {rows} AS r
LEFT JOIN restamps AS l ON l.batch_id = r.batch_id
WHERE r.record_kind = '{observation_kind}'"""

KNOWN = """WITH {restamps},
arrived AS (
    -- The effective arrival: the greatest of the row, the restamps of its batch (R14), and of a measurement its event (R5).
    SELECT r.*, greatest({arrivals}) AS {arrival}
    FROM {rows} AS r
    LEFT JOIN restamps AS l ON l.batch_id = r.batch_id
    WHERE r.record_kind = '{observation_kind}' AND r.arrival_time <= {t}{up_to_p}
),
revisions AS (
    -- R1: rows that had arrived. R2, R4: the last of a key in the order of arrival and position is its current revision.
    SELECT a.*,{withdrawn}
        row_number() OVER (PARTITION BY {key} ORDER BY a.{arrival} DESC, a.log_sequence DESC) AS {revision}
    FROM arrived AS a
    WHERE a.{arrival} <= {t}
){newest}
SELECT {columns}
FROM {last} AS v
WHERE {current}"""

WITHDRAWN = """
        -- R3: of a forecast, a retraction that names no issue ends all issues of its event before it.
        max(CASE WHEN a.is_retraction AND a.issue_time IS NULL THEN 1 ELSE 0 END) OVER (
            PARTITION BY {subject} ORDER BY a.{arrival} DESC, a.log_sequence DESC
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS {withdrawn},"""

NEWEST = """,
issues AS (
    -- R2: of the issues of an event that are present, the newest.
    SELECT i.*, max(i.issue_time) OVER (PARTITION BY {subject}) AS {newest}
    FROM revisions AS i
    WHERE {current}
)"""

CURRENT = "{alias}.{revision} = 1 AND NOT coalesce({alias}.is_retraction, false)"
NOT_WITHDRAWN = " AND coalesce({alias}.{withdrawn}, 0) = 0"

_TYPES: dict[pl.DataType, tuple[str, str]] = {
    pl.Int8(): ("TINYINT", "TINYINT"),
    pl.Int16(): ("SMALLINT", "SMALLINT"),
    pl.Int32(): ("INTEGER", "INT"),
    pl.Int64(): ("BIGINT", "BIGINT"),
    pl.Float32(): ("FLOAT", "FLOAT"),
    pl.Float64(): ("DOUBLE", "DOUBLE"),
    pl.Boolean(): ("BOOLEAN", "BOOLEAN"),
    pl.String(): ("VARCHAR", "STRING"),
    pl.Binary(): ("BLOB", "BINARY"),
    pl.Date(): ("DATE", "DATE"),
    INSTANT: ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP_LTZ"),
}


@dataclass(frozen=True, slots=True)
class SqlNames:
    """What a provider's views and its function are called in SQL.

    Attributes:
        view: The observations with their effective arrival: `ObservationLog.scan` at the log's head.
        rows: Everything that is stored, records included.
        as_of: The function: what was known at `t`, and optionally at a position `p`.
    """

    view: str
    rows: str
    as_of: str


def sql_names(providers: Iterable[str]) -> dict[str, SqlNames]:
    """Names for providers: letters, digits and `_`; one that another provider took, in any case, gets a number.

    Example:
        >>> sql_names(["grid-load", "3rd"])["grid-load"]
        SqlNames(view='grid_load', rows='grid_load_rows', as_of='grid_load_as_of')
    """
    taken: set[str] = set()
    found = {}
    for provider in providers:
        plain = re.sub(r"\W", "_", provider, flags=re.ASCII)
        base = plain = f"_{plain}" if plain[0].isdigit() else plain
        names, number = SqlNames(base, f"{base}_rows", f"{base}_as_of"), 1
        while taken & {name.lower() for name in (names.view, names.rows, names.as_of)}:
            number += 1
            base = f"{plain}_{number}"
            names = SqlNames(base, f"{base}_rows", f"{base}_as_of")
        taken |= {name.lower() for name in (names.view, names.rows, names.as_of)}
        found[provider] = names
    return found


def snapshot_sql(
    log: ObservationLog,
    dialect: Dialect = "duckdb",
    *,
    source: Source = "delta",
    relation: str | None = None,
    names: SqlNames | None = None,
) -> list[str]:
    """`alignment.snapshot` of a log as SQL: statements that make two views and a table function.

    `<provider>_rows` is what is stored, `<provider>` the observations with their effective arrivals, and
    `<provider>_as_of(t)` or `<provider>_as_of(t, p)` the rows and columns that `snapshot(log, t, position=p)` returns, in no
    particular order. Values have the types that are stored. Times without a zone are read in the session's zone. A position that the log
    has not reached is not refused.

    Args:
        log: The log.
        dialect: `"duckdb"` (1.4 or later) or `"spark"` (4 or later; the statements make temporary objects).
        source: What the rows are read from: `"delta"`, the table, by DuckDB's extension `delta` or Spark's Delta Lake; or
            `"files"`, the Parquet files of the version that the log is at now, which need nothing and see nothing that comes later.
        relation: Instead of `source`, a table or view that has the stored columns, as SQL.
        names: What the views and the function are called; None for names after the provider.

    Returns:
        The statements, to be executed in this order; none ends with a semicolon.

    Example:
        >>> import tempfile
        >>> from ingestion import create_log
        >>> log = create_log(
        ...     tempfile.mkdtemp(), "weather", entities=["station"], schema={"station": pl.String, "temp": pl.Float64}
        ... )
        >>> [statement.split(" AS")[0] for statement in snapshot_sql(log, source="files")]
        ['CREATE OR REPLACE VIEW weather_rows', 'CREATE OR REPLACE VIEW "weather"', 'CREATE OR REPLACE MACRO weather_as_of(t, p := NULL)']
    """
    table = log.table
    table.refresh()
    made = _Statements(table, dialect, names or sql_names([log.provider])[log.provider])
    rows = made.rows(relation, source)
    return [rows, made.observations(), made.as_of()]


class _Statements:
    """The statements of one log in one dialect."""

    def __init__(self, table: LogTable, dialect: Dialect, names: SqlNames) -> None:
        self.table, self.dialect, self.names = table, dialect, names
        self.definition = table.definition
        self.stored: dict[str, pl.DataType] = table.stored_schema()
        for name in self.definition.key_columns:  # an empty log does not know its keys' types
            self.stored.setdefault(name, pl.String())

    def quoted(self, name: str) -> str:
        """A name as SQL, whatever it is."""
        mark = '"' if self.dialect == "duckdb" else "`"
        return mark + name.replace(mark, 2 * mark) + mark

    def text(self, value: str) -> str:
        """A text as SQL."""
        if self.dialect == "spark":
            value = value.replace("\\", "\\\\").replace("'", "\\'")
            return f"'{value}'"
        return "'" + value.replace("'", "''") + "'"

    def type(self, dtype: Any) -> str:
        """A stored type as SQL."""
        spark = self.dialect == "spark"
        if isinstance(dtype, pl.List):
            inner = self.type(dtype.inner)
            return f"ARRAY<{inner}>" if spark else f"{inner}[]"
        if isinstance(dtype, pl.Struct):
            fields = [(self.quoted(field.name), self.type(field.dtype)) for field in dtype.fields]
            inside = ", ".join(f"{name}: {kind}" if spark else f"{name} {kind}" for name, kind in fields)
            return f"STRUCT<{inside}>" if spark else f"STRUCT({inside})"
        if isinstance(dtype, pl.Decimal):
            return f"DECIMAL({dtype.precision}, {dtype.scale})"
        return _TYPES[dtype][spark]

    # ---------------------------------------------------------------------------------------------------- statements

    def rows(self, relation: str | None, source: Source) -> str:
        """The view of everything that is stored."""
        delta = set(self.table.stored_schema())
        columns = ", ".join(
            self.quoted(name) if name in delta else f"CAST(NULL AS {self.type(dtype)}) AS {self.quoted(name)}"
            for name, dtype in self.stored.items()
        )
        if relation is None and source == "files":
            return self._files()
        if relation is None:
            address = self.table.location.address
            relation = (
                f"delta.{self.quoted(address)}" if self.dialect == "spark" else f"delta_scan({self.text(address)})"
            )
        return f"{self._create('VIEW')} {self.names.rows} AS\nSELECT {columns}\nFROM {relation}"

    def _create(self, what: str) -> str:
        return f"CREATE OR REPLACE {'TEMPORARY ' if self.dialect == 'spark' else ''}{what}"

    def _files(self) -> str:
        create = f"{self._create('VIEW')} {self.names.rows}"
        paths = [self.table.address_of(path) for path in self.table.files()["path"]]
        typed = [(self.quoted(name), self.type(dtype)) for name, dtype in self.stored.items()]
        nothing = "SELECT " + ", ".join(f"CAST(NULL AS {kind}) AS {name}" for name, kind in typed) + "\nWHERE false"
        if not paths:
            return f"{create} AS\n{nothing}"
        if self.dialect == "spark":
            schema = ", ".join(f"{name} {kind}" for name, kind in typed)
            return f"{create} ({schema})\nUSING parquet OPTIONS (path {self.text(_pattern(self.table))})"
        listed = ",\n    ".join(self.text(path) for path in paths)
        return (
            f"{create} AS\n{nothing}\nUNION ALL BY NAME\n"
            f"SELECT * FROM read_parquet([\n    {listed}\n], union_by_name = true, hive_partitioning = false)"
        )

    def observations(self) -> str:
        """The view of observations."""
        restamp = self.quoted("@restamp")
        fixed = ["is_retraction", "log_sequence", "arrival_kind"]
        shown = [f"r.{self.quoted(name)}" for name in self.definition.entities]
        shown += ["r.event_time", f"greatest(r.arrival_time, l.{restamp}) AS arrival_time"]
        shown += ["r.issue_time"] if self.definition.kind == "forecast" else []
        shown += [f"r.{name}" for name in fixed]
        shown += [f"r.{self.quoted(name)}" for name in self._values(self.definition.entities)]
        body = OBSERVATIONS.format(
            restamps=self._restamps(""), columns=", ".join(shown), rows=self.names.rows, observation_kind=OBSERVATION
        )
        return f"{self._create('VIEW')} {self.quoted(self.names.view)} AS\n{body}"

    def as_of(self) -> str:
        """The function."""
        name = self.names.as_of
        if self.dialect == "spark":
            head = f"{self._create('FUNCTION')} {name}(t TIMESTAMP_LTZ, p BIGINT DEFAULT NULL)\nRETURNS TABLE RETURN"
            return f"{head}\n{self._known(f'{name}.t', f'{name}.p')}"
        return f"{self._create('MACRO')} {name}(t, p := NULL) AS TABLE\n{self._known(f'CAST(t AS {_TYPES[INSTANT][0]})', 'p')}"

    def _known(self, t: str, p: str) -> str:
        definition = self.definition
        parts = {part: self.quoted(f"@{part}") for part in ("arrival", "revision", "withdrawn", "newest", "restamp")}
        forecast = definition.kind == "forecast"
        arrivals = ["r.arrival_time", f"l.{parts['restamp']}"]
        if not forecast:  # a retraction by id says nothing of its event
            arrivals.append(
                "CASE WHEN r.is_retraction THEN NULL ELSE r.event_time END" if definition.key else "r.event_time"
            )
        up_to_p = f" AND ({p} IS NULL OR r.log_sequence <= {p})"
        current = CURRENT + (NOT_WITHDRAWN if forecast else "")
        return KNOWN.format(
            restamps=self._restamps(up_to_p),
            arrivals=", ".join(arrivals),
            rows=self.names.rows,
            observation_kind=OBSERVATION,
            t=t,
            up_to_p=up_to_p,
            key=self._by("a", definition.revision_columns),
            arrival=parts["arrival"],
            revision=parts["revision"],
            withdrawn=WITHDRAWN.format(subject=self._by("a", definition.key_columns), **parts) if forecast else "",
            newest=NEWEST.format(
                subject=self._by("i", definition.key_columns), current=current.format(alias="i", **parts), **parts
            )
            if forecast
            else "",
            last="issues" if forecast else "revisions",
            current=f"v.issue_time = v.{parts['newest']}" if forecast else current.format(alias="v", **parts),
            columns=self._shown(parts["arrival"]),
        )

    def _shown(self, arrival: str) -> str:
        """The columns of `alignment.snapshot`."""
        keys = [*self.definition.entities, *(self.definition.key or ())]
        shown = [f"v.{self.quoted(name)}" for name in keys] + ["v.event_time"]
        shown += ["v.issue_time"] if self.definition.kind == "forecast" else []
        shown += [f"v.{arrival} AS arrival_time", *(f"v.{self.quoted(name)}" for name in self._values(keys))]
        return ", ".join(shown)

    def _values(self, keys: Iterable[str]) -> list[str]:
        return [name for name in self.stored if name not in SYSTEM_COLUMNS and name not in keys]

    def _by(self, alias: str, columns: Iterable[str]) -> str:
        return ", ".join(f"{alias}.{self.quoted(name)}" for name in columns)

    def _restamps(self, up_to_p: str) -> str:
        return RESTAMPS.format(
            rows=self.names.rows, restamp=self.quoted("@restamp"), restamp_kind=RESTAMP, up_to_p=up_to_p
        )


def _pattern(table: LogTable) -> str:
    """The data files as one path with alternatives, as Hadoop's file systems read it."""
    folder = re.sub(r"([\\{}\[\]*?,])", r"\\\1", table.location.address)
    names = table.files()["path"].to_list()
    return f"{folder}/{names[0]}" if len(names) == 1 else f"{folder}/{{{','.join(names)}}}"
