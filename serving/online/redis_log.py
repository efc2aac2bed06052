"""What a log has for a shared state: rows as they came, and the restamps that came after them.

Two replicas look at a log at different moments. A row that one of them sees already restamped, the other has seen before; so
rows go to the state with the arrival that they came with, and a restamp goes there too, with its own position (R14).
"""

from __future__ import annotations

from typing import Any

import polars as pl

from alignment.layout import Ints
from alignment.online import CompiledView
from alignment.rows import ORDER
from ingestion.reading import ERASED, RESTAMP, RETIRED, records
from serving.online.follow import read_rows
from serving.online.redis_keys import entities_of
from serving.online.redis_state import Restamps


class LogRows:
    """One view's rows in its log.

    Args:
        compiled: The view over a handle of its log that only this thread uses.
    """

    def __init__(self, compiled: CompiledView) -> None:
        self.compiled = compiled
        self.columns = compiled.view.observations.entities
        self.dtypes = [compiled.view.observations.schema[name] for name in self.columns]

    def entities(self, frame: pl.DataFrame) -> tuple[Ints, list[bytes]]:
        """The number of each row's entity, and what each number is called."""
        return entities_of(frame, self.columns)

    def all(self, position: int, oldest: int) -> pl.DataFrame:
        """All rows up to a position that a question at `oldest` or later may need."""
        floor = None if self.compiled.unbounded else self.compiled.floor(oldest)
        return read_rows(self.compiled, position=position, event_from=floor)

    def between(
        self, after: int, position: int, rows: pl.DataFrame | None = None
    ) -> tuple[pl.DataFrame, Restamps | None]:
        """Rows with `after < log_sequence <= position` as they came, and the restamps between.

        Args:
            after: The position up to which all is known.
            position: The position to come to.
            rows: The rows as they count at `position`, if they have been read.
        """
        late = self._restamped(after, position)
        if late is None:
            return read_rows(self.compiled, position=position, after=after) if rows is None else rows, None
        # As they came: read up to just before each restamp, which counts for rows before it alone.
        parts, since = [], after
        for cut in [*sorted(set(late["by"] - 1)), position]:
            if cut > since:
                parts.append(read_rows(self.compiled, position=cut, after=since))
                since = cut
        entity, names = self.entities(late)
        restamps = Restamps(
            [names[number] for number in entity],
            late["log_sequence"].to_numpy(),
            late["arrival_time"].to_numpy(),
            late["by"].to_numpy(),
        )
        return pl.concat(parts).sort(ORDER) if parts else read_rows(self.compiled, position=-1), restamps

    def _restamped(self, after: int, position: int) -> pl.DataFrame | None:
        """Entities, `log_sequence`, the later `arrival_time`, and `by`: the sequence of the record that says so."""
        source: Any = self.compiled.view.observations.source
        late = (
            records(source.table, RESTAMP, after + 1)
            .filter(pl.col("log_sequence") > after, pl.col("log_sequence") <= position)
            .select("batch_id", pl.col("arrival_time").dt.epoch("us"), pl.col("log_sequence").alias("by"))
            .collect()
        )
        if not late.height:
            return None
        return (  # type: ignore[no-any-return]
            source.scan(position=position, columns=["batch_id"])
            .select(*self.columns, "batch_id", "log_sequence")
            .join(late.lazy(), on="batch_id")
            .filter(pl.col("log_sequence") < pl.col("by"))
            .collect()
        )


def past_of(source: Any, position: int) -> int:
    """The last record of a log that took rows away; -1 if there is none."""
    found = [
        records(source.table, kind)
        .filter(pl.col("log_sequence") <= position)
        .select(pl.col("log_sequence").max())
        .collect()
        .item()
        for kind in (ERASED, RETIRED)
    ]
    return max((sequence for sequence in found if sequence is not None), default=-1)
