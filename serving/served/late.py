"""The rows behind a later change: what came into a log after an answer, and counts at the instant it was given for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    import alignment as al
    from ingestion import ObservationLog

PAIRS = 4_000_000
SCHEMA = {
    "provider": pl.String(),
    "log_sequence": pl.Int64(),
    "key": pl.String(),
    "event_time": pl.Datetime("us", "UTC"),
    "arrival_time": pl.Datetime("us", "UTC"),
    "why": pl.String(),
    "vectors": pl.Int64(),
}
"""`why`: `backfill` (history, of declared or modelled arrival), `overrun` (its commit was confirmed after its arrival), `restamp` (that
confirmation moved its arrival), `late commit` (it was stored after the arrival that it states)."""


def late_rows(
    view: al.FeatureView, log: ObservationLog, head: int, *, late: pl.DataFrame, answers: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that can make answers differ between their own position and the head.

    A row is behind an answer at (t, p) iff it is of the same entity, came after p, and counts at t; a restamp, iff its batch
    counted at t before it.

    Args:
        view: What was answered.
        log: Its log.
        head: The position that is called head.
        late: The log's restamps, as `restamped` says.
        answers: Entity columns as the view's spine has them, `t`, `p`, and `answer` (a number for each).

    Returns:
        The rows, as `SCHEMA` says; and for each answer that has any: `answer`, `rows` (their sequence numbers).
    """
    keys = [f"@{name}" for name in view.observations.entities]
    asked = answers.select(
        *(
            pl.col(spine).cast(view.observations.schema[name], strict=False).alias(key)
            for spine, name, key in zip(view.spine_entities, view.observations.entities, keys, strict=True)
        ),
        "t",
        "p",
        "answer",
    )
    nothing = pl.DataFrame(schema=SCHEMA), pl.DataFrame(schema={"answer": pl.Int64, "rows": pl.List(pl.Int64)})
    if not asked.height:
        return nothing
    came = _came(log, head, late, keys, asked)
    counts: list[pl.DataFrame] = []
    behind: list[pl.DataFrame] = []
    for part in _parts(asked, came, keys):
        pairs = part.join(came, on=keys) if keys else part.join(came, how="cross")
        pairs = pairs.filter(pl.col("log_sequence") > pl.col("p"), pl.col("counts_from") <= pl.col("t"))
        counts.append(pairs.group_by(list(SCHEMA)[:-1]).agg(pl.len().cast(pl.Int64).alias("vectors")))
        behind.append(pairs.group_by("answer").agg(pl.col("log_sequence").unique().sort().alias("rows")))
    if not counts:
        return nothing
    rows = pl.concat(counts).group_by(list(SCHEMA)[:-1]).agg(pl.col("vectors").sum())
    return rows.sort("log_sequence", "key"), pl.concat(behind)


def _came(log: ObservationLog, head: int, late: pl.DataFrame, keys: list[str], asked: pl.DataFrame) -> pl.DataFrame:
    """Rows and restamps after the first answer, with the instant from which each counts or counted."""
    names = [*log.entities, *(name for name in log.key or [] if name not in log.entities)]
    shown = [pl.format(f"{name}={{}}", pl.col(name).cast(pl.String).fill_null("null")) for name in names]
    key = pl.concat_str(shown, separator=" ") if shown else pl.lit("")
    rows = (
        log.scan(position=head, columns=["batch_id"])
        .select(
            *(pl.col(name).alias(own) for name, own in zip(log.entities, keys, strict=True)),
            pl.lit(log.provider).alias("provider"),
            "log_sequence",
            key.alias("key"),
            "event_time",
            "arrival_time",
            pl.when(pl.col("arrival_kind") != "measured")
            .then(pl.lit("backfill"))
            .when(pl.col("batch_id").is_in(late["batch_id"].to_list()))
            .then(pl.lit("overrun"))
            .otherwise(pl.lit("late commit"))
            .alias("why"),
            pl.col("arrival_time").alias("counts_from"),
            "batch_id",
        )
        .collect()
    )
    moved = rows.join(late.rename({"log_sequence": "restamp"}), on="batch_id").with_columns(
        pl.col("restamp").alias("log_sequence"),
        pl.lit("restamp").alias("why"),
        pl.col("restamp_time").alias("arrival_time"),
        pl.col("own_arrival").alias("counts_from"),
    )
    every = pl.concat([rows, moved.select(rows.columns)]).drop("batch_id")
    return every.filter(pl.col("log_sequence") > asked["p"].min(), pl.col("counts_from") <= asked["t"].max())


def _parts(asked: pl.DataFrame, came: pl.DataFrame, keys: list[str]) -> Iterator[pl.DataFrame]:
    """`asked` in parts that have about as many pairs with `came` as fit into memory."""
    if not came.height:
        return
    each = (
        asked.join(came.group_by(keys).len("pairs"), on=keys, how="left", maintain_order="left")["pairs"]
        if keys
        else pl.repeat(came.height, asked.height, dtype=pl.UInt32, eager=True)
    )
    numbers = (each.fill_null(0).cast(pl.Int64).cum_sum() // PAIRS).to_numpy()
    first = 0
    while first < asked.height:
        last = int(numbers.searchsorted(numbers[first], side="right"))
        yield asked[first:last]
        first = last
