"""Features as questions to DuckDB: the events they may use, and what is found there."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl

from alignment.bounds import Bound, feature_range, grid_points
from alignment.durations import Duration
from alignment.engines import sql_rules as rules
from alignment.engines.sql_rows import Narrow, comparable
from alignment.engines.sql_rules import ALWAYS, BLOCK, sql
from alignment.engines.sql_windows import PARTS, aggregate_sql, windows_sql
from alignment.errors import AggregateOverflowError
from alignment.features import Feature, Forecast, Lag, Latest, SequenceOf, Window
from alignment.spine import Spine
from alignment.wallclock import Instants

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_WIDER = 4  # how much further back each round looks for what the last one did not find
_PART_BLOCKS = 250_000
_PART_ROWS = 4_000_000  # about how many chosen rows are held in lists at a time
_NO_ISSUE = "NULL::BIGINT"
_NOTHING = pl.DataFrame(schema={"some_current": pl.Boolean, "some_withdrawn": pl.Boolean})


@dataclass(frozen=True, slots=True)
class Found:
    """What a feature found, one row per spine row.

    Attributes:
        frame: `some_current` and `some_withdrawn`; of picks `row`, `event`, `arrival`, `issue`, `sequence`; of sequences
            `rows`, a list; of windows a column `value`, and `count`.
        chosen: Row numbers whose values are needed; a flat series, `length` per spine row for sequences.
    """

    frame: pl.DataFrame
    chosen: pl.Series | None = None

    def rows(self) -> list[pl.Series]:
        """The row numbers whose values are needed, if any."""
        return [] if self.chosen is None else [self.chosen]


@dataclass(slots=True)
class Asker:
    """Asks DuckDB; features that ask the same are asked once."""

    connection: DuckDBPyConnection
    narrow: Narrow
    spine: Spine
    as_of_us: int | None = field(kw_only=True)
    limit: int = field(kw_only=True)
    _revisions: dict[Duration | None, str] = field(default_factory=dict)
    _asked: dict[Hashable, pl.DataFrame] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keys = self.narrow.keys
        kinds = zip(self.narrow.view.spine_entities, self.narrow.key_types, keys, strict=True)
        columns = [pl.Series("spine_row", np.arange(len(self.spine.t))), pl.Series("t", self.spine.t)]
        asked = self.spine.frame.select(
            comparable(pl.col(name).cast(kind), kind).alias(key) for name, kind, key in kinds
        )
        self.connection.register(
            "spine", asked.with_columns(columns).to_arrow() if keys else pl.DataFrame(columns).to_arrow()
        )
        parts = {
            "keys": ", ".join(keys),
            "all_known": " AND ".join(f"{key} IS NOT NULL" for key in keys),
            "entity": "entity" if keys else "0",
            "join_entities": f"JOIN entities USING ({', '.join(keys)})" if keys else "",
            "as_of": rules.FOREVER if self.as_of_us is None else self.as_of_us,
            "limit": self.limit,
        }
        for statement in [rules.ENTITIES] * bool(keys) + [rules.QUESTIONS, rules.COUNTING]:
            self.connection.execute(sql(statement, **parts))

    @property
    def _is_forecast(self) -> bool:
        return self.narrow.view.kind == "forecast"

    @property
    def _subject(self) -> str:
        """What a row is a revision of (R4)."""
        return ", ".join(self.narrow.ids) or "event"

    @property
    def _key(self) -> str:
        return f"{self._subject}, issue" if self._is_forecast else self._subject

    @property
    def _withdraws_all(self) -> str:
        return "(is_retraction AND issue IS NULL)" if self._is_forecast else "false"

    def ties(self) -> pl.DataFrame:
        """Pairs of rows of one key and arrival that nothing orders; see `sql_rows.refuse_different`."""
        parts = {"withdraws_all": self._withdraws_all}
        only = f"WHERE NOT {self._withdraws_all}"
        of_one_key = sql(rules.TIES, **parts, only=only, key=self._key, differs="false", which="true")
        found = self._fetch(of_one_key)
        if self._is_forecast:
            which = "withdraws_all <> withdrew_all"
            found.extend(self._fetch(sql(rules.TIES, **parts, only="", key=self._subject, differs="true", which=which)))
        return found

    def ask(self, feature: Feature) -> Found:
        """What `feature` finds for each spine row."""
        if isinstance(feature, Window):
            frame = self._windows(feature)
            value = frame[self._output(feature)]
            frame = frame.select(
                "some_current",
                "some_withdrawn",
                pl.col(f"{self._x(feature)}_count").alias("count"),
                value.alias("value"),
            )
            return Found(frame, value if feature.aggregate in ("first", "last") else None)
        if isinstance(feature, SequenceOf):
            return self._grid(feature) if feature.step is not None else self._last(feature)
        frame = self._pick(feature)
        return Found(frame, frame["row"] if feature.column is not None else None)

    def _x(self, feature: Feature) -> str:
        return self.narrow.values[cast("str", feature.column)]

    def _output(self, feature: Window) -> str:
        """What the column of an aggregate is called in SQL."""
        return f"aggregate{self.narrow.view.features.index(feature)}"

    def _table(self, notice: Duration | None = None) -> str:
        """The table of revisions among the rows that count with `notice`, made when first asked for."""
        if notice not in self._revisions:
            name = self._revisions[notice] = f"revisions_{len(self._revisions)}"
            ids = self.narrow.ids
            order = (
                ["event", "issue", "arrival"]
                if self._is_forecast and not ids
                else ["event", "arrival", "sequence", *ids]
            )
            withdrawal = rules.NEXT_WITHDRAWAL.format(subject=self._subject) if self._is_forecast else "NULL::BIGINT"
            parts = {
                "revisions": name,
                "on_notice": "true" if notice is None else f"arrival <= {self.narrow.deadlines[notice]}",
                "next_withdrawal": withdrawal,
                "withdraws_all": self._withdraws_all,
                "key": self._key,
                "event_order": ", ".join([*order, "row"]),
            }
            for statement in (rules.REVISIONS, rules.BLOCKS):
                self.connection.execute(sql(statement, **parts))
        return self._revisions[notice]

    def _candidates(self, table: str, asks: str, first_block: str) -> str:
        is_current = rules.IS_CURRENT
        if self._is_forecast:
            is_current = rules.IS_NEWEST_ISSUE
            if self.narrow.ids:
                same = " AND ".join(f"newer.{name} = candidates.{name}" for name in self.narrow.ids)
                is_current = rules.HAS_NO_NEWER_ISSUE.format(revisions=table, same_subject=same)
        return sql(rules.CANDIDATES, revisions=table, asks=asks, first_block=first_block, is_current=is_current)

    def _ends(self, feature: Feature) -> tuple[Instants, Instants]:
        """The events each question may use, both ends included."""
        t = self.spine.t
        low, high = feature_range(feature, t, self.narrow.view.zone)
        return np.full_like(t, ALWAYS) if low is None else _instants(low, t), _instants(high, t)

    def _make_asks(self, table: str, lo: Instants, hi: Instants, *, first: int = 0, per_row: int = 1) -> None:
        """Number the questions with these ends from `first` on; `per_row` of them belong to one spine row."""
        ask = np.arange(first, first + len(lo))
        ranges = pl.DataFrame({"ask": ask, "spine_row": ask // per_row, "lo": lo, "hi": hi})
        self.connection.register("ranges", ranges.to_arrow())
        self.connection.execute(sql(rules.ASKS, revisions=table))

    def _search(self, statement: str, columns: str, table: str, reach: int, **parts: object) -> None:
        """Look at the last `reach` blocks of each range, and further back for those that were not answered, into `picked`."""
        run = self.connection.execute
        run(f"CREATE OR REPLACE TEMP TABLE picked ({columns})")
        run("CREATE OR REPLACE TEMP TABLE still_open AS FROM asks")
        while run("SELECT count(*) FROM still_open").fetchall()[0][0]:
            first_block = f"greatest(lo_block, hi_block + 1 - {reach})"
            candidates = self._candidates(table, "still_open", first_block)
            run(sql(statement, revisions=table, candidates=candidates, first_block=first_block, **parts))
            run("CREATE OR REPLACE TEMP TABLE still_open AS FROM still_open ANTI JOIN picked USING (ask)")
            reach *= _WIDER

    def _pick(self, feature: Feature) -> pl.DataFrame:
        """One row per question: the greatest current event in its range."""
        notice = feature.min_notice if isinstance(feature, Forecast) else None
        having = self._x(feature) if isinstance(feature, Latest) and feature.skip_null else None
        ends: Hashable = None
        if isinstance(feature, Lag | Forecast):
            ends = type(feature), feature.by if isinstance(feature, Lag) else feature.lead, feature.tolerance
        shape = ("pick", ends, notice, having)
        if shape not in self._asked:
            table = self._table(notice)
            self._make_asks(table, *self._ends(feature))
            self._asked[shape] = self._picked(table, len(self.spine.t), having)
        return self._asked[shape]

    def _picked(self, table: str, asks: int, having: str | None) -> pl.DataFrame:
        columns = "ask BIGINT, entity BIGINT, place BIGINT, some_current BOOLEAN, some_withdrawn BOOLEAN"
        self._search(rules.PICK, columns, table, 2, and_value=f"AND {having} IS NOT NULL" if having else "")
        found = self._fetch(sql(rules.PICKED, revisions=table, issue="issue" if self._is_forecast else _NO_ISSUE))
        return _in_order(found, asks)

    def _grid(self, feature: SequenceOf) -> Found:
        """One pick per slot (R11)."""
        points = grid_points(feature, self.spine.t, self.narrow.view.zone)
        oldest_first = points[::-1].T  # one line per spine row: length + 1 points
        lo, hi = oldest_first[:, :-1].ravel() + 1, oldest_first[:, 1:].ravel()
        table = self._table()
        self._make_asks(table, lo, hi, per_row=feature.length)
        slots = self._picked(table, len(lo), None)
        by_row = slots.group_by(pl.col("ask") // feature.length, maintain_order=True)
        return Found(by_row.agg(pl.col("some_current").any(), pl.col("some_withdrawn").any()), slots["row"])

    def _last(self, feature: SequenceOf) -> Found:
        """The last events, as they come (R11)."""
        rows, length, table = len(self.spine.t), feature.length, self._table()
        lo, hi = self._ends(feature)
        flat = np.full(rows * length, -1)
        found = []
        for start in range(0, rows, _PART_ROWS // length + 1):
            stop = start + _PART_ROWS // length + 1
            self._make_asks(table, lo[start:stop], hi[start:stop], first=start)
            columns = "ask BIGINT, rows BIGINT[], some_withdrawn BOOLEAN"
            self._search(rules.LAST_N, columns, table, 2 + length // BLOCK, length=length)
            part = self._fetch(
                "SELECT ask, rows, some_withdrawn, coalesce(len(rows), 0) > 0 AS some_current FROM picked"
            )
            newest_first = part.filter("some_current").select("ask", "rows").explode("rows")
            slot = length - 1 - newest_first.select(pl.int_range(pl.len()).over("ask")).to_series()
            flat[(newest_first["ask"] * length + slot).to_numpy()] = newest_first["rows"].to_numpy()
            found.append(part.drop("rows"))
        chosen = pl.Series(flat)
        frame = _in_order(pl.concat(found), rows) if found else _NOTHING
        return Found(frame, chosen.set(chosen < 0, None))

    def _windows(self, feature: Window) -> pl.DataFrame:
        """All windows with the range of `feature`, asked together."""
        shape = ("windows", feature.length, feature.offset)
        if shape not in self._asked:
            table = self._table()
            self._make_asks(table, *self._ends(feature))
            alike = [
                one
                for one in self.narrow.view.features
                if isinstance(one, Window) and (one.length, one.offset) == (feature.length, feature.offset)
            ]
            self._asked[shape] = self._aggregated(table, alike)
        return self._asked[shape]

    def _aggregated(self, table: str, windows: list[Window]) -> pl.DataFrame:
        aggregates: dict[str, str] = {}
        for one in windows:
            aggregates[self._output(one)] = aggregate_sql(one, self._x(one), is_float=self.narrow.is_float(one))
            aggregates[f"{self._x(one)}_count"] = f"count({self._x(one)})"
        columns = dict.fromkeys(self._x(one) for one in windows)
        self.connection.execute(PARTS.format(blocks=_PART_BLOCKS))
        last = self.connection.execute("SELECT coalesce(max(part), 0) FROM parts").fetchall()[0][0]
        found = []
        for part in range(last + 1):
            candidates = self._candidates(table, f"parts WHERE part = {part}", "lo_block")
            found.append(self._fetch(windows_sql(candidates, columns, aggregates)))
        frame = _in_order(pl.concat(found), len(self.spine.t))
        self._check_sums(frame, windows)
        return frame

    def _check_sums(self, frame: pl.DataFrame, windows: list[Window]) -> None:
        for one in windows:
            if (
                one.aggregate == "sum"
                and (frame[self._output(one)].is_null() & (frame[f"{self._x(one)}_count"] > 0)).any()
            ):
                raise AggregateOverflowError(
                    f"{self.narrow.view.place}: a sum of {one.column!r} does not fit in 64 bits",
                    f'sum it as float64, e.g. derive={{"{one.column}_real": pl.col("{one.column}").cast(pl.Float64)}}.',
                )

    def _fetch(self, query: str) -> pl.DataFrame:
        return cast("pl.DataFrame", pl.from_arrow(self.connection.sql(query).to_arrow_table()))


def _instants(bound: Bound, t: Instants) -> Instants:
    return bound if isinstance(bound, np.ndarray) else t + bound


def _in_order(found: pl.DataFrame, asks: int) -> pl.DataFrame:
    """One row per question, in order; null where nothing was found."""
    every = pl.DataFrame({"ask": pl.Series(np.arange(asks), dtype=pl.Int64)})
    return every.join(found, on="ask", how="left", maintain_order="left").with_columns(
        pl.col("^some_.*$").fill_null(value=False)
    )
