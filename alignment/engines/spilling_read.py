"""Rows on their way to disk: how many there are, a batch at a time, when they arrived, and in which bucket they belong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.engines.spilling_store import Store
from alignment.observations import Observations
from alignment.parts import Pass, bucket_of, over, over_rows
from alignment.rows import ARRIVAL_KIND, canonical, check_rows
from alignment.views import FeatureView

_PROBED = 2_000
"""Rows from which the width of texts and lists is told; and more keys than these are worth looking for repetitions."""


def count_rows(rows: pl.LazyFrame) -> int:
    """How many rows a query gives; of files their metadata tells."""
    return int(rows.select(pl.len()).collect(engine="streaming").item())


def row_width(rows: pl.LazyFrame) -> float:
    """Bytes of a row in memory, about."""
    from alignment.extents import width_of

    schema = rows.collect_schema()
    loose = any(kind.is_nested() or kind in (pl.String, pl.Binary) for kind in schema.values())
    if loose and (some := rows.head(_PROBED).collect(engine="streaming")).height:
        return float(some.estimated_size()) / some.height
    return sum(width_of(kind) for kind in schema.values()) + 1.0


def batches(rows: pl.LazyFrame, size: int) -> Iterator[pl.DataFrame]:
    """Rows in order, about so many bytes at a time."""
    step = max(1, int(size / max(row_width(rows), 1.0)))
    for batch in rows.collect_batches(chunk_size=step, maintain_order=True, lazy=True, engine="streaming"):
        for start in range(0, batch.height, step):
            yield batch.slice(start, step)


def read_as(one: Pass, place: int, rows: pl.DataFrame | None) -> list[Observations]:
    """As what the views, and last the label, read some rows of an input; None for no rows."""
    some = pl.DataFrame(schema=one.inputs[place].schema) if rows is None else rows
    found = [over(view, some).observations for view, read in zip(one.views, one.reads, strict=True) if read == place]
    if one.label is not None and one.label_reads == place:
        told = one.label.observations
        assert told is not None  # noqa: S101 - plan_passes names the label's
        found.append(over(told, some).observations if isinstance(told, FeatureView) else over_rows(told, some))
    return found


def times_of(one: Pass, place: int, batch: pl.DataFrame) -> list[pl.DataFrame]:
    """The canonical times of rows of an input, for each way in which they are read.

    Raises:
        AlignmentError: If they break a rule of frames.
    """
    found: dict[tuple[object, ...], pl.DataFrame] = {}
    for rows in read_as(one, place, batch):
        read = (
            *(rows.kind, rows.event_time, rows.arrival_time, rows.issue_time, rows.is_retraction, id(rows.delay)),
            *(rows.tolerance.total_us, rows.date_zone, rows.date_means, tuple(rows.key)),
        )
        if read not in found:
            found[read] = check_rows(rows, canonical(rows, []).drop(ARRIVAL_KIND, strict=False).collect())[0]
    return list(found.values())


def spread(store: Store, frame: pl.DataFrame, buckets: npt.NDArray[np.uint32]) -> None:
    """Lay rows aside by bucket, those of one in their order."""
    if not frame.height:
        return
    narrow = buckets.astype(np.uint16)
    order = np.argsort(narrow, kind="stable")  # 16 bits are sorted by radix
    ordered = frame[order] if len(np.unique(narrow[[0, -1]])) > 1 or (np.diff(narrow) != 0).any() else frame
    counts = np.bincount(narrow)
    ends = np.cumsum(counts)
    for bucket in np.flatnonzero(counts):
        store.add(int(bucket), ordered.slice(int(ends[bucket] - counts[bucket]), int(counts[bucket])))


def buckets_of(frame: pl.DataFrame, columns: Sequence[str], buckets: int) -> npt.NDArray[np.uint32]:
    """`bucket_of`, with keys that often repeat hashed once."""
    texts = any(frame.schema[name] in (pl.String, pl.Binary, pl.Categorical, pl.Enum) for name in columns)
    if texts and frame.height > _PROBED:
        keys = frame.select(columns)
        once = keys.unique()
        if once.height * 4 < frame.height:
            table = once.with_columns(bucket_of(once, columns, buckets).alias("@bucket"))
            found = keys.join(table, on=list(columns), how="left", nulls_equal=True, maintain_order="left")
            return np.asarray(found["@bucket"].to_numpy(), np.uint32)
    return np.asarray(bucket_of(frame, columns, buckets).to_numpy(), np.uint32)
