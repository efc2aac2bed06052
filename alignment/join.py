"""The point-in-time join: what serving would have answered, for many past prediction times."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl

from alignment.durations import instant_us
from alignment.errors import DefinitionError, DuplicateColumnError, UnknownEngineError, ViewError
from alignment.memory import parse_bytes
from alignment.observations import FrameLike, as_lazy
from alignment.service_join import ServiceQuestion, Told, VariantRows, ask_service
from alignment.services import FeatureService
from alignment.spine import PREDICTION_TIME, Spine, check_spine
from alignment.views import FeatureView
from alignment.wallclock import Instants

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from alignment.engines.local import Answered, Timings

ENGINES = ("local", "duckdb", "spark")
Positions = int | Mapping[str, int]
"""A log position for all views, or one per view name."""


def point_in_time_join(
    spine: FrameLike,
    views: Sequence[FeatureView] | FeatureView,
    *,
    as_of: datetime | None = None,
    engine: str = "local",
    status: bool = False,
    prediction_time: str = PREDICTION_TIME,
    positions: Positions | None = None,
    threads: int | None = None,
    timings: Timings | None = None,
    service: FeatureService | None = None,
    variant: str | None = None,
    rows: VariantRows = "chosen",
    sources: bool = False,
    spark: SparkSession | None = None,
    memory_limit: str | int | None = None,
    spill: str | Path | None = None,
) -> pl.DataFrame:
    """The features of every spine row, from the rows that had arrived by its prediction time.

    A row counts at t iff its `arrival_time <= min(t, as_of)` (and `log_sequence` is at most the view's position); of the
    rows that count the last revision of each key is current; features are evaluated over current events, with ages,
    windows and leads measured from t (R1-R11).

    Args:
        spine: One row per question: entity columns and the prediction time (Datetime with zone); anything else is carried
            along. Polars, Arrow, pandas, a Parquet path or Delta folder; for `"spark"` also a frame of Spark.
        views: What to compute.
        as_of: Pretend that nothing arrived later; an instant with zone.
        engine: `"local"` (Polars and the kernel), `"duckdb"` (SQL, out of core) or `"spark"` (the kernel on a Spark cluster).
        status: Add `<feature>__status` after each feature (R20), and `provisional` at the end: whether t lies after `as_of`
            or after what a log is known to have seen.
        prediction_time: The spine's column of prediction times.
        positions: Log position to answer at, one for all views or by view name; None for everything.
        threads: How many threads; None for one per processor. Not with `"spark"`, where the cluster's settings say.
        timings: Where to add up how long each part took; local engine only.
        service: Give the features of this service, after its fallbacks (R20); the views are those it may read.
        variant: Give the features of this variant of the service.
        rows: Of a variant: `"chosen"` leaves out the spine's rows at which another or none would have been chosen, `"all"`
            keeps them.
        sources: Add `<feature>__source` after each feature of the service that has fallbacks: which of them answered.
        spark: The session of engine `"spark"`; None for the active one.
        memory_limit: How much memory the process may take, e.g. `"4GiB"`; what does not fit is kept on disk meanwhile. Local
            engine only. The result must fit; see `build_dataset` for one that need not.
        spill: Folder for what does not fit; None for the system's folder of temporary files.

    Returns:
        The spine's rows, order and columns, then one column per feature, named `<view>__<feature>`. With engine `"spark"` a frame
        of Spark with the same rows in no order, computed when it is asked for them; see `spark_errors`.

    Raises:
        FrameError: If spine or observations have not the form asked for.
        RevisionError: If observations contradict the rules of time.
        DuplicateColumnError: If two output columns would have one name.
        DefinitionError: If `as_of`, `positions` or `threads` cannot mean anything, or the engine does not keep a limit that is given.
        ServiceError: If the service does not fit the views, or has no such variant.
        UnknownEngineError: If `engine` is none.
        AggregateOverflowError: If an integer sum does not fit in 64 bits.
        MemoryLimitError: If `memory_limit` is none, or cannot be kept.
        SpillError: If what does not fit in memory does not fit on the disk either.

    Example:
        >>> from datetime import UTC, datetime
        >>> from alignment.features import latest
        >>> def at(hour, minute=0):
        ...     return datetime(2026, 1, 1, hour, minute, tzinfo=UTC)
        >>> frame = pl.DataFrame(
        ...     {
        ...         "station": ["a", "a"],
        ...         "event_time": [at(10), at(11)],
        ...         "arrival_time": [at(10, 40), at(11, 40)],
        ...         "temp": [3.5, 4.0],
        ...     }
        ... )
        >>> spine = pl.DataFrame({"station": ["a", "a"], "prediction_time": [at(11, 30), at(11, 40)]})
        >>> view = FeatureView("weather", ["station"], frame, [latest("temp")])
        >>> point_in_time_join(spine, [view])["weather__temp"].to_list()
        [3.5, 4.0]
    """
    views = [views] if isinstance(views, FeatureView) else list(views)
    check_views(views)
    check_engine(engine, threads)
    check_limit(memory_limit, engine, spill)
    check_positions(views, positions)
    as_of_us = None if as_of is None else instant_us(as_of, "as_of")
    question = ask_service(
        service,
        views,
        variant=variant,
        rows=rows,
        position_of=lambda view: position_of(view, positions),
        as_of_us=as_of_us,
    )
    if engine == "spark":
        from alignment.engines.spark.run import join

        return cast(
            "pl.DataFrame",
            join(
                spine,
                views,
                spark=spark,
                as_of_us=as_of_us,
                position_of=lambda view: position_of(view, positions),
                status=status,
                prediction_time=prediction_time,
                question=question,
                sources=sources,
            ),
        )
    if memory_limit is not None:
        from alignment.larger import Larger

        spine = as_lazy(spine, "the spine")  # a stream of Arrow can be read once
        larger = Larger(
            views, as_of_us, status, prediction_time, positions, sources, threads, timings, question, spill=spill
        )
        found = larger.whole(memory_limit, spine)
        if found is not None:
            return found
    read = views if question is None else question.views
    asked = check_spine(spine, [name for view in read for name in view.spine_entities], prediction_time)
    if question is not None:
        asked = question.kept(asked)
    answered: dict[str, Answered] = {}
    for view in read:
        answers = _evaluate(
            engine,
            view,
            asked,
            as_of_us,
            position_of(view, positions),
            threads,
            timings,
            status=status or question is not None,
        )
        answered |= zip(view.column_names, answers, strict=True)
    until = known_until(views, as_of_us) if status else None
    return columns_of(asked, answered, question, until_us=until, status=status, sources=sources)


def check_engine(engine: str, threads: int | None = None) -> None:
    """Refuse an engine that there is not, and threads that it cannot have.

    Raises:
        UnknownEngineError: If `engine` is none.
        DefinitionError: If `threads` is not a positive number, or not for this process to say.
    """
    if engine not in ENGINES:
        raise UnknownEngineError(f"no engine is called {engine!r}", f"choose from {', '.join(map(repr, ENGINES))}.")
    if threads is not None and threads < 1:
        raise DefinitionError(f"threads={threads!r} is not a positive number", "leave it out for one per processor.")
    if threads is not None and engine == "spark":
        raise DefinitionError(
            f"threads={threads!r} is given with engine='spark', whose tasks have a thread each",
            "leave it out, and set spark.executor.cores.",
        )


def check_limit(memory_limit: str | int | None, engine: str, spill: str | Path | None = None) -> None:
    """Refuse a limit on memory that is none, or that the engine does not keep.

    Args:
        memory_limit: How much memory the process may take.
        engine: Which is to keep it.
        spill: Folder for what does not fit.

    Raises:
        DefinitionError: If the engine keeps no limit, or `spill` is no folder of this machine.
        MemoryLimitError: If `memory_limit` is no amount of memory.
    """
    for name, value in (("memory_limit", memory_limit), ("spill", spill)):
        if value is not None and engine != "local":
            given = str(value) if isinstance(value, Path) else value
            raise DefinitionError(
                f"{name}={given!r} is given with engine={engine!r}, which does not keep it",
                f'use engine="local", or leave {"the limit" if name == "memory_limit" else "it"} out.',
            )
    if spill is not None and re.match("[A-Za-z][A-Za-z0-9+.-]+:/", str(spill)):
        raise DefinitionError(
            f"spill={str(spill)!r} is an address, and what does not fit waits in a folder of this machine",
            "name one, e.g. spill='/data/tmp', or leave it out.",
        )
    if memory_limit is not None:
        parse_bytes(memory_limit)


def columns_of(
    asked: Spine,
    answered: Mapping[str, Answered],
    question: ServiceQuestion | None,
    *,
    until_us: int | None,
    status: bool,
    sources: bool,
) -> pl.DataFrame:
    """The spine with what was answered.

    Args:
        asked: The rows.
        answered: Features by full name, row for row.
        question: What is asked of a service, if one is.
        until_us: Rows after it are provisional; None if none is.
        status: See `point_in_time_join`.
        sources: See `point_in_time_join`.

    Raises:
        DuplicateColumnError: If two columns would have one name.
    """
    columns: dict[str, pl.Series] = {}
    found = (
        {name: Told(answer.values, answer.status) for name, answer in answered.items()}
        if question is None
        else question.told(answered, asked.t)
    )
    for name, told in found.items():
        columns[name] = told.values.alias(name)
        if status and told.status is not None:
            columns[f"{name}__status"] = told.status.alias(f"{name}__status")
        if sources and told.source is not None:
            columns[f"{name}__source"] = told.source.alias(f"{name}__source")
    if status:
        columns["provisional"] = provisional(asked.t, until_us)
    for name in columns:
        if name in asked.frame.columns:
            raise DuplicateColumnError(
                f"the spine has a column {name!r}, and so has the result",
                f'rename it, e.g. spine.rename({{"{name}": "{name}_given"}}).',
            )
    return asked.frame.hstack(list(columns.values()))


def _evaluate(
    engine: str,
    view: FeatureView,
    spine: Spine,
    as_of_us: int | None,
    position: int | None,
    threads: int | None,
    timings: Timings | None,
    *,
    status: bool,
) -> list[Answered]:
    if engine == "duckdb":
        from alignment.engines import duckdb

        return duckdb.evaluate(view, spine, as_of_us=as_of_us, position=position, status=status, threads=threads)
    from alignment.engines import local

    return local.evaluate(
        view, spine, as_of_us=as_of_us, position=position, status=status, threads=threads, timings=timings
    )


def check_views(views: Sequence[FeatureView]) -> None:
    """Refuse views that cannot stand in one join.

    Raises:
        ViewError: If there is none, or one is no view.
        DuplicateColumnError: If two have one name.
    """
    if not views:
        raise ViewError("there is no view", "pass at least one FeatureView.")
    seen: set[str] = set()
    for view in views:
        if not isinstance(view, FeatureView):
            raise ViewError(f"a {type(view).__name__} is not a view", "pass al.FeatureView objects.")
        if view.name in seen:
            raise DuplicateColumnError(
                f"two views are called {view.name!r}", "name them apart: columns begin with the view's name."
            )
        seen.add(view.name)


def check_positions(views: Sequence[FeatureView], positions: Positions | None) -> None:
    """Refuse positions that no view could be answered at.

    Raises:
        ViewError: If a name is no view's, or a view's observations have no `log_sequence`.
    """
    if positions is None:
        return
    names = [view.name for view in views]
    given = names if isinstance(positions, int) else list(positions)
    for name in given:
        if name not in names:
            raise ViewError(
                f"positions names {name!r}, which is no view", f"the views are {', '.join(map(repr, names))}."
            )
    for view in views:
        if view.name in given and not view.observations.has_log_sequence:
            raise ViewError(
                f"{view.place} have no {view.observations.log_sequence!r}, and so no position",
                f"leave {view.name!r} out of positions, or number its rows.",
            )


def position_of(view: FeatureView, positions: Positions | None) -> int | None:
    """The log position to answer `view` at."""
    if positions is None or isinstance(positions, int):
        return positions
    return positions.get(view.name)


def known_until(views: Sequence[FeatureView], as_of_us: int | None) -> int | None:
    """The last instant whose answers cannot change: `as_of`, or what a log has seen (R1); None if nothing says so."""
    through = [
        instant_us(seen, "observed_through")
        for view in views
        if view.observations.source is not None and (seen := view.observations.source.observed_through()) is not None
    ]
    return min(through if as_of_us is None else [*through, as_of_us], default=None)


def provisional(t: Instants, until_us: int | None) -> pl.Series:
    """Per prediction time whether its answer may still change."""
    return pl.Series("provisional", np.zeros(len(t), bool) if until_us is None else t > until_us)
