"""Frames of which each has only what its sender sent, with the same columns: what is absent is said to be."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import polars as pl

from ingestion.sources.layout import ABSENT, BROKEN

_NAMES = pl.List(pl.String())


def with_all_columns(
    frames: Sequence[pl.DataFrame], sent: Sequence[Collection[str]] | None = None
) -> list[pl.DataFrame]:
    """Frames with the columns of all of them; what one lacks is null there, and named in its `__absent`.

    Args:
        frames: Rows, some perhaps with `__absent` already.
        sent: What of each was sent although it has no column for it, since it was null throughout.

    Example:
        >>> a, b = pl.DataFrame({"kw": [1.0], "wind": [2.0]}), pl.DataFrame({"kw": [3.0]})
        >>> with_all_columns([a, b])[1].row(0)
        (3.0, None, ['wind'])
    """
    types: dict[str, pl.DataType] = {}
    for frame in frames:
        types |= {name: dtype for name, dtype in frame.schema.items() if name not in types}
    types.pop(ABSENT, None)
    whole = []
    for frame, own in zip(frames, sent or [()] * len(frames), strict=True):
        lacking = [name for name in types if name not in frame.columns]
        gone = [name for name in lacking if name not in own and name != BROKEN]
        known = pl.col(ABSENT).cast(_NAMES).fill_null([]) if ABSENT in frame.columns else pl.lit([], _NAMES)
        absent = known.list.concat(pl.lit(gone, _NAMES)) if gone else known
        nulls = [pl.lit(None, types[name]).alias(name) for name in lacking]
        whole.append(frame.with_columns(*nulls, absent.alias(ABSENT)).select(*types, ABSENT))
    return whole
