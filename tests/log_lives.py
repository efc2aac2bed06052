"""Lives of logs, drawn: batches, restamps, columns that change, compaction, erasure, retirement, and records of all sorts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import strategies as st

import ingestion
from ingestion.reading import RESTAMP
from ingestion.records import record_row

START = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
INSTANT = pl.Datetime("us", "UTC")
KEYS = {"site": pl.String, "t": pl.Int32}  # an entity may be called as the function's argument

# entity, number, event, delay or lead, value, 0 a value and else a retraction (2: of a forecast one that names no issue), id
CELLS = st.tuples(
    st.integers(0, 1),
    st.integers(0, 1),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from([None, 1.0, -0.0, float("nan"), 2.5]),
    st.sampled_from([0, 0, 0, 1, 2]),
    st.integers(0, 1),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(CELLS, min_size=1, max_size=6)),
        st.tuples(st.just("append"), st.lists(CELLS, min_size=1, max_size=6)),
        st.tuples(st.just("restamp"), st.tuples(st.integers(0, 5), st.integers(0, 12))),
        st.tuples(st.just("change"), st.sampled_from(["add", "rename", "widen"])),
        st.tuples(st.just("tidy"), st.sampled_from(["compact", "erase", "retire", "poll", "bad"])),
    ),
    min_size=1,
    max_size=7,
)
SHAPES = [("measurement", False), ("measurement", True), ("forecast", False), ("forecast", True)]


class Life:
    """A log that steps are done to."""

    def __init__(self, root: str, kind: str, *, by_id: bool, composite: bool) -> None:
        self.now = START + timedelta(hours=1)
        self.kind, self.by_id = kind, by_id
        self.entities = list(KEYS) if composite else ["site"]
        self.log = ingestion.create_log(
            root,
            "grid-load",
            entities=self.entities,
            kind=kind,
            key=["ident"] if by_id else None,
            schema={
                **{name: KEYS[name] for name in self.entities},
                **({"ident": pl.String} if by_id else {}),
                "x": pl.Float64,
                "n": pl.Int8,
                "p": pl.UInt8,
                "pair": pl.Array(pl.Float32, 2),
            },
            retention="3h",
            clock=lambda: self.now,
        )
        self.batches: list[str] = []
        self.numbers = "n"
        self.wide = False
        self.extra = False

    def do(self, what: str, how: Any) -> None:
        if what == "append":
            self.batches.append(f"b{len(self.batches)}")
            self.log.append(self.frame(how), batch_id=self.batches[-1])
        elif what == "restamp" and self.batches:
            self.restamp(self.batches[how[0] % len(self.batches)], START + 5 * how[1] * MINUTE)
        elif what == "change":
            self.change(how)
        elif what == "tidy":
            self.tidy(how)

    def frame(self, cells: list[tuple[Any, ...]]) -> pl.DataFrame:
        rows = []
        for site, number, event, wait, value, sort, ident in cells:
            happens = START + 10 * event * MINUTE
            row = {"site": "ab"[site], "t": number, "ident": f"q{ident}", "x": value, "is_retraction": sort > 0}
            row |= {"n": event, "p": 200 + wait, "pair": [1.0, wait], "event_time": happens}
            if self.kind == "forecast":
                row["issue_time"] = None if sort == 2 else happens - 10 * (wait + 1) * MINUTE
                row["arrival_time"] = happens - 10 * (4 - wait) * MINUTE + ident * 30 * MINUTE
            else:
                early = wait == 3 and not self.by_id
                row["arrival_time"] = happens - timedelta(seconds=3) if early else happens + 10 * wait * MINUTE
                row["event_time"] = None if self.by_id and sort == 2 else happens
            row["extra"] = f"e{wait}"
            rows.append(row)
        frame = pl.DataFrame(
            rows,
            schema_overrides={
                **KEYS,
                "x": pl.Float64,
                "n": pl.Int16 if self.wide else pl.Int8,
                "p": pl.UInt8,
                "pair": pl.Array(pl.Float32, 2),
                **dict.fromkeys(("event_time", "arrival_time", "issue_time"), INSTANT),
            },
        )
        unused = [name for name in KEYS if name not in self.entities] + ([] if self.by_id else ["ident"])
        return frame.drop(unused, [] if self.extra else ["extra"]).rename({"n": self.numbers})

    def restamp(self, batch: str, instant: datetime) -> None:
        table = self.log.table
        table.refresh()
        head = table.head().next_sequence
        micros = int((instant - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
        action = table.write_file(record_row(table, RESTAMP, head, batch, arrival_us=micros))
        table.commit([action], next_sequence=head + 1)

    def change(self, how: str) -> None:
        if how == "add" and not self.extra:
            self.log.add_column("extra", pl.String)
            self.extra = True
        elif how == "rename" and self.numbers == "n":
            self.log.rename_column("n", "Number's")
            self.numbers = "Number's"
        elif how == "widen" and not self.wide:
            self.log.widen_column(self.numbers, pl.Int16)
            self.wide = True

    def tidy(self, how: str) -> None:
        if how == "compact":
            self.log.compact(vacuum=True)
        elif how == "erase":
            self.log.erase({"site": "b", **({"t": 1} if "t" in self.entities else {})})
        elif how == "retire":
            self.now += timedelta(hours=1)
            self.log.retire()
        elif how == "poll":
            self.log.record_poll(ingestion.Poll(source="test", started=self.now, ended=self.now, outcome="empty"))
        elif how == "bad":
            good = self.frame([(0, 0, 0, 0, 1.0, 0, 0)])
            self.log.append(good.with_columns(site=pl.lit(None, pl.String)))
