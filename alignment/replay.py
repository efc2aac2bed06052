"""Replay: what serving would have returned, tick by tick.

The same join on a schedule. Rows are read, checked and arranged once; entities are then asked for group by group, so that
besides the observations only one group's answers are in memory.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl

from alignment.arrivals import transform_arrivals
from alignment.delays import DelayRule
from alignment.durations import DurationLike, instant_us
from alignment.errors import DefinitionError, MissingColumnError, UnknownEngineError
from alignment.features import arrival_age, event_age, issue_age
from alignment.join import Positions, check_positions, check_views, columns_of, known_until, position_of
from alignment.outages import Outage
from alignment.service_join import ServiceQuestion, VariantRows, ask_service
from alignment.services import FeatureService
from alignment.spine import PREDICTION_TIME, Spine, entity_frame, schedule
from alignment.views import FeatureView
from alignment.wallclock import Instants

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from alignment.engines.local import Answered, Prepared, Timings
    from alignment.layout import Pool

BATCH_ROWS = 1 << 18


def replay(
    views: Sequence[FeatureView] | FeatureView,
    entities: Any,
    start: datetime,
    end: datetime,
    every: DurationLike | Sequence[str],
    *,
    engine: str = "local",
    spark: SparkSession | None = None,
    **options: Any,
) -> pl.DataFrame:
    """What serving would have returned at every tick of a schedule, from the rows that had arrived by then.

    Args:
        views: What to compute.
        entities: Whom to ask for; see `make_spine`.
        start: First instant that may be a tick, with zone.
        end: The instant before which the schedule stops.
        every: Time between ticks, from `start` on; in `d` and `w` with a zone calendar days. Or times of day (`["06:00", "18:00"]`)
            on the wall clock of `zone`.
        engine: `"local"`, or `"spark"`: a frame of Spark with the same rows in no order, the schedule laid over the entities by
            executors (they may come in a frame of Spark, each once).
        spark: The session of engine `"spark"`; None for the active one.
        options: See `replay_batches`, which takes the same and keeps only some rows in memory.

    Returns:
        One row per entity and tick, in the order of `make_spine`: entity by entity, ticks ascending. Columns as of
        `point_in_time_join` with `status=True`, and per view its ages.

    Raises:
        AlignmentError: See `replay_batches`.
        UnknownEngineError: If `engine` is neither.

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
        >>> view = FeatureView("weather", ["station"], frame, [latest("temp")])
        >>> replay(view, {"station": ["a"]}, at(10), at(13), "1h", outages=[Outage("weather", at(11), at(12, 30))])[
        ...     "weather__temp"
        ... ].to_list()
        [None, 3.5, 3.5]
    """
    if engine == "spark":
        return cast(
            "pl.DataFrame",
            _on_spark(views, entities, schedule(start, end, every, options.get("zone")), spark, **options),
        )
    if engine != "local":
        raise UnknownEngineError(f"no engine {engine!r} replays", "choose from 'local', 'spark'.")
    parts = list(replay_batches(views, entities, start, end, every, **options))
    return pl.concat(parts)


def replay_batches(
    views: Sequence[FeatureView] | FeatureView,
    entities: Any,
    start: datetime,
    end: datetime,
    every: DurationLike | Sequence[str],
    *,
    zone: str | None = None,
    as_of: datetime | None = None,
    outages: Sequence[Outage] | Outage = (),
    delays: Mapping[str, DelayRule] | None = None,
    seed: int | None = None,
    status: bool = True,
    ages: bool = True,
    positions: Positions | None = None,
    service: FeatureService | None = None,
    variant: str | None = None,
    rows: VariantRows = "chosen",
    sources: bool = False,
    entity: str | None = None,
    prediction_time: str = PREDICTION_TIME,
    threads: int | None = None,
    timings: Timings | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[pl.DataFrame]:
    """The rows of `replay` in its order, some at a time.

    Args:
        views: What to compute.
        entities: Whom to ask for; see `make_spine`.
        start: First instant that may be a tick.
        end: The instant before which the schedule stops.
        every: The schedule; see `replay`.
        zone: IANA zone of the schedule.
        as_of: Pretend that nothing arrived later.
        outages: What did not arrive as it did, one or several; see `transform_arrivals`.
        delays: Provider to the rule by which its rows arrive.
        seed: Seed of the rules that draw; None leaves each its own.
        status: Add `<feature>__status` after each feature, and `provisional` at the end.
        ages: Add `<view>__event_age` and `<view>__arrival_age` (of forecasts also `<view>__issue_age`) to views that do not declare
            them: how old the row is that `latest` over all columns picks.
        positions: Log position to answer at, one for all views or by view name; None for everything.
        service: Give the features of this service, after its fallbacks (R20), and `variant`: which of its variants would have
            been chosen at the tick, null for none.
        variant: Give the features of this variant of the service, instead.
        rows: Of a variant: the ticks at which it would have been chosen, or `"all"`.
        sources: Add `<feature>__source` after each feature of the service that has fallbacks.
        entity: Name of the entity column where `entities` is a list of values; None for the one that the views have.
        prediction_time: Name of the column of ticks.
        threads: How many threads; None for one per processor.
        timings: Where to add up how long each part took.
        batch_rows: About how many rows come at a time.

    Yields:
        Frames of the same columns, never none: without entities or ticks one of no rows.

    Raises:
        AlignmentError: See `point_in_time_join` and `transform_arrivals`.
        DefinitionError: If the schedule cannot mean anything.
        MissingColumnError: If `entities` lack a column that a view asks for.
    """
    from alignment.layout import Pool

    views = [views] if isinstance(views, FeatureView) else list(views)
    check_views(views)
    check_positions(views, positions)
    if threads is not None and threads < 1:
        raise DefinitionError(f"threads={threads!r} is not a positive number", "leave it out for one per processor.")
    if batch_rows < 1:
        raise DefinitionError(f"batch_rows={batch_rows!r} is not a positive number", "leave it out.")
    at = {view.name: _position(view, positions) for view in views}
    views = transform_arrivals(views, outages=outages, delays=delays, seed=seed)
    as_of_us = None if as_of is None else instant_us(as_of, "as_of")
    ticks = schedule(start, end, every, zone)
    asked = entity_frame(entities, entity or _one_entity(views))
    question = ask_service(
        service, views, variant=variant, rows=rows, position_of=lambda view: at[view.name], as_of_us=as_of_us
    )
    _check_entities(views if question is None else question.views, asked)
    with Pool(threads) as pool:
        asking = _Asking(
            *(views, question, as_of_us, status, sources, ages),
            until_us=known_until(views, as_of_us) if status else None,
        )
        asking.prepare(asked, ticks, at, pool, timings)
        for places, span in _groups(asked.height if asked.width else 1, len(ticks), batch_rows, pool.threads):
            yield asking.ask(_spine(asked, places, ticks[span], prediction_time), places)


def _on_spark(
    views: Sequence[FeatureView] | FeatureView,
    entities: Any,
    ticks: Instants,
    spark: SparkSession | None,
    *,
    as_of: datetime | None = None,
    outages: Sequence[Outage] | Outage = (),
    delays: Mapping[str, DelayRule] | None = None,
    seed: int | None = None,
    status: bool = True,
    ages: bool = True,
    positions: Positions | None = None,
    entity: str | None = None,
    prediction_time: str = PREDICTION_TIME,
    **others: Any,
) -> DataFrame:
    """The same on Spark.

    Raises:
        DefinitionError: If an option is given that means nothing there.
    """
    from alignment.engines.spark.replay import replay_spark

    if unknown := sorted(set(others) - {"zone"}):
        raise DefinitionError(
            f'replay(engine="spark") takes no {unknown[0]}',
            "leave it out; a service: al.point_in_time_join(spine, views, service=..., engine='spark').",
        )
    views = [views] if isinstance(views, FeatureView) else list(views)
    check_views(views)
    check_positions(views, positions)
    at = {view.name: _position(view, positions) for view in views}
    views = list(transform_arrivals(views, outages=outages, delays=delays, seed=seed))
    return replay_spark(
        *(views, [_with_ages(view) for view in views] if ages else views, entities, ticks),
        entity=entity or _one_entity(views),
        prediction_time=prediction_time,
        as_of_us=None if as_of is None else instant_us(as_of, "as_of"),
        at=at,
        status=status,
        spark=spark,
    )


def _one_entity(views: Sequence[FeatureView]) -> str:
    """The entity column of views that have one and the same."""
    names = {name for view in views for name in view.spine_entities}
    return names.pop() if len(names) == 1 else "entity"


def _position(view: FeatureView, positions: Positions | None) -> int | None:
    """The position to answer at, so that all batches see the same rows."""
    given = position_of(view, positions)
    return view.observations.source.position() if given is None and view.observations.source is not None else given


def _check_entities(views: Sequence[FeatureView], asked: pl.DataFrame) -> None:
    for name in (name for view in views for name in view.spine_entities):
        if name not in asked.columns:
            raise MissingColumnError(name, "the entities", asked.columns, argument="entity")


def _groups(entities: int, ticks: int, batch_rows: int, threads: int) -> Iterator[tuple[range, slice]]:
    """Ranges of entities and of ticks that make about `batch_rows` rows, entity by entity; as many entities for every thread."""
    if not entities or not ticks:
        yield range(0), slice(0)
        return
    at_once = max(1, batch_rows // ticks)
    at_once -= at_once % threads if at_once > threads else 0
    for first in range(0, entities, at_once):
        for begin in range(0, ticks, ticks if at_once > 1 else batch_rows):
            yield (
                range(first, min(first + at_once, entities)),
                slice(begin, begin + (ticks if at_once > 1 else batch_rows)),
            )


def _spine(asked: pl.DataFrame, places: range, ticks: Instants, prediction_time: str) -> Spine:
    part = asked.slice(places.start, len(places))
    moments = np.tile(ticks, len(places))
    t = pl.Series(prediction_time, moments, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")).to_frame()
    if not asked.width:
        return Spine(t, moments)
    repeated = part.select(pl.all().repeat_by(len(ticks)).explode()) if len(ticks) else part.clear()
    return Spine(repeated.hstack(t), moments)


@dataclass(slots=True)
class _Asking:
    """What is asked at every tick, and the rows to answer it from."""

    views: list[FeatureView]
    question: ServiceQuestion | None
    as_of_us: int | None
    status: bool
    sources: bool
    ages: bool
    until_us: int | None
    prepared: list[tuple[FeatureView, Prepared]] = field(default_factory=list)
    more: list[str] = field(default_factory=list)

    def prepare(
        self, asked: pl.DataFrame, ticks: Instants, at: Mapping[str, int | None], pool: Pool, timings: Timings | None
    ) -> None:
        """Read and number the rows; they are arranged when they are first asked."""
        from alignment.engines.local import Prepared, earliest_needed

        last = int(ticks[-1]) if len(ticks) else 0
        for view in self.views if self.question is None else self.question.views:
            whole = _with_ages(view) if self.ages else view
            ready = Prepared(
                *(whole, asked, pool),
                until_us=last if self.as_of_us is None else min(last, self.as_of_us),
                from_us=earliest_needed(whole, ticks, status=self._with_status),
                position=at[view.name],
                timings=timings,
            )
            self.prepared.append((whole, ready))
            self.more += whole.column_names[len(view.features) :]

    @property
    def _with_status(self) -> bool:
        return self.status or self.question is not None

    def ask(self, spine: Spine, places: range) -> pl.DataFrame:
        """The rows of some entities.

        Args:
            spine: Their ticks, entity by entity.
            places: Which they are.
        """
        keep = None if self.question is None else self.question.wanted(spine.t)
        number = np.repeat(np.arange(places.start, places.stop), len(spine.t) // max(1, len(places)))
        if keep is not None:
            spine, number = Spine(spine.frame.filter(pl.Series(keep)), spine.t[keep]), number[keep]
        answered: dict[str, Answered] = {}
        for view, ready in self.prepared:
            codes = ready.asking[number] if view.observations.entities else np.zeros(len(number), np.int32)
            answers = ready.answer(spine.t, codes, as_of_us=self.as_of_us, status=self._with_status)
            answered |= zip(view.column_names, answers, strict=True)
        ages = [answered.pop(name).values.alias(name) for name in self.more]
        frame = columns_of(
            spine, answered, self.question, until_us=self.until_us, status=self.status, sources=self.sources
        )
        return frame.hstack([*ages, *self._variant(spine.t)])

    def _variant(self, t: Instants) -> list[pl.Series]:
        """Which variant of the service would have been chosen, where it is asked for as a whole and has any."""
        if self.question is None or self.question.variant is not None or not self.question.bound.service.variants:
            return []
        names = [variant.name for variant in self.question.bound.variants]
        chosen = pl.Series(self.question.chosen(t), dtype=pl.Int8)
        index = chosen.cast(pl.UInt32, strict=False)
        name = f"{self.question.bound.service.name}__variant"
        return [pl.Series(names, dtype=pl.Enum(names)).gather(index).alias(name)]


def _with_ages(view: FeatureView) -> FeatureView:
    """The view with the ages that it does not declare."""
    ages = [event_age(), arrival_age(), *([issue_age()] if view.kind == "forecast" else [])]
    there = {feature.name for feature in view.features}
    same = copy.copy(view)
    same.features = (*view.features, *(age for age in ages if age.name not in there))
    return same
