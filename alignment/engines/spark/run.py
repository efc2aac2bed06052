"""`engine="spark"`: one shuffle brings each bucket's spine and rows together, and the local engine answers it there.

The spine and every input become blobs of one bucket each (`packing`), all in one frame of Spark, which is shuffled by bucket.
A task then has everything about some entities and answers with the kernel over them alone: the bytes that the local engine
gives. Views whose entities have no column in common take a shuffle each; the spine goes from one to the next with its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from alignment.engines.local import earliest_needed
from alignment.engines.spark.balancing import LABEL, Balance, balance
from alignment.engines.spark.evenness import Parts
from alignment.engines.spark.failures import labelled, spark_errors
from alignment.engines.spark.frames import arrow_batches, is_spark_frame, plain_schema, session_of, spark_schema
from alignment.engines.spark.packing import PACKED, SPINE, Bucket, Destination, pack, unpack
from alignment.engines.spark.spines import SparkSpine, look_at, packed_spine
from alignment.join import columns_of, known_until, provisional
from alignment.labels import Label, label_source
from alignment.observations import FrameLike
from alignment.parts import Input, Pass, answers_in, plan_passes
from alignment.service_join import ServiceQuestion
from alignment.spine import PREDICTION_TIME, Spine, check_spine
from alignment.views import FeatureView

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

ROWS_PER_BUCKET = 1_000_000
"""Observations and spine rows that one task is meant to answer; its memory is some hundred bytes for each."""
_FEW_ROWS = 50_000
_ANSWER = "@answer "


@dataclass(frozen=True)
class Form:
    """What the rows of a result are.

    Attributes:
        spine_columns: The spine's columns.
        prediction_time: That of the instants.
        views: Whose features are answered, in order; without rows.
        question: What is asked of a service, if one is.
        label_columns: The label's, if there is one.
        until_us: Rows after it are provisional; None if none is.
        status: See `point_in_time_join`.
        sources: See `point_in_time_join`.
        provisional: Whether rows say so, though no status is asked for.
    """

    spine_columns: tuple[str, ...]
    prediction_time: str
    views: tuple[FeatureView, ...]
    question: ServiceQuestion | None
    label_columns: tuple[str, ...]
    until_us: int | None
    status: bool
    sources: bool
    provisional: bool

    def made(self, answered: pl.DataFrame) -> pl.DataFrame:
        """Rows of the result.

        Args:
            answered: The spine's columns and, under names of their own, the answers of all passes.

        Raises:
            DuplicateColumnError: If two columns would have one name.
        """
        asked = check_spine(answered.select(self.spine_columns), [], self.prediction_time)
        answers = answered.select(pl.col(f"^{_ANSWER}.*$").name.replace(f"^{_ANSWER}", ""))
        found = columns_of(
            Spine(asked.frame, asked.t),
            answers_in(answers, self.views),
            self.question,
            until_us=self.until_us,
            status=self.status,
            sources=self.sources,
        )
        found = found.hstack(answers.select(self.label_columns).get_columns())
        if self.provisional and not self.status:
            found = found.with_columns(provisional(asked.t, self.until_us))
        return found


@dataclass(frozen=True)
class Work:
    """What a task of a pass does with a bucket; sent to executors.

    Attributes:
        answering: The pass, without rows.
        schemas: Columns of the spine as it comes to this pass, and of its inputs.
        as_of_us: Nothing that arrived later counts.
        status: Whether answers say why they are null.
        prediction_time: The spine's column of prediction times.
        following: Where the answered spine goes on to; None after the last pass.
        form: What the rows of the result are.
        plain: The result's columns in types that Spark has.
        parts: What is in which bucket, where entities are cut by time.
    """

    answering: Pass
    schemas: tuple[dict[str, pl.DataType], ...]
    as_of_us: int | None
    status: bool
    prediction_time: str
    following: Destination | None
    form: Form
    plain: dict[str, pl.DataType]
    parts: Parts | None = None

    def answered(self, bucket: Bucket, number: int = 0) -> pl.DataFrame:
        """The part of the spine that is in bucket `number`, with its answers.

        Raises:
            AlignmentError: See `point_in_time_join`.
        """
        spine, *frames = (
            bucket.frame(number, pl.DataFrame(schema=schema)) for number, schema in enumerate(self.schemas, SPINE)
        )
        label_rows = None
        if self.answering.label is not None and self.parts is not None and self.parts.cut_at(number) is not None:
            label_rows = bucket.frame(LABEL, frames[self.answering.label_reads].clear())
        answers = self.answering.answer(
            *(spine, frames),
            as_of_us=self.as_of_us,
            status=self.status,
            prediction_time=self.prediction_time,
            label_rows=label_rows,
        )
        return spine.hstack(answers.rename(lambda name: _ANSWER + name).get_columns())

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Answer the buckets of a task.

        Yields:
            Blobs for the next pass, or rows of the result.

        Raises:
            AlignmentError: See `point_in_time_join`.
        """
        with labelled():
            buckets = unpack(batches)
            for number in sorted(buckets):
                found = self.answered(buckets.pop(number), number)
                if not found.height:
                    continue
                if self.following is not None:
                    yield from pack([found], self.following, piece=number)
                else:
                    yield from arrow_batches(self.form.made(found), self.plain)


def join(
    spine: FrameLike,
    views: Sequence[FeatureView],
    *,
    spark: SparkSession | None = None,
    as_of_us: int | None = None,
    position_of: Callable[[FeatureView], int | None] = lambda _: None,
    status: bool = False,
    prediction_time: str = PREDICTION_TIME,
    question: ServiceQuestion | None = None,
    sources: bool = False,
    label: Label | None = None,
    label_position: int | None = None,
    provisional: bool = False,
    until_us: int | None = None,
    buckets: int | None = None,
) -> DataFrame:
    """The features of every spine row, as `point_in_time_join` gives them, computed by Spark when its rows are asked for.

    Args:
        spine: A frame of Spark, or anything that `point_in_time_join` takes.
        views: What to compute.
        spark: The session; None for the active one.
        as_of_us: Nothing that arrived later counts, microseconds; needed for a label.
        position_of: Log position at which a view is answered.
        status: See `point_in_time_join`.
        prediction_time: The spine's column of prediction times.
        question: What is asked of a service, if one is.
        sources: See `point_in_time_join`.
        label: Answered besides, its columns after the features.
        label_position: Log position at which the label is answered.
        provisional: Add `provisional` at the end, though no status is asked for.
        until_us: Rows after it are provisional; None asks the views.
        buckets: How many groups of entities; None decides by the number of rows.

    Returns:
        A frame of Spark; its rows are in no order.

    Raises:
        AlignmentError: What can be told without reading rows; the rest comes when they are, see `spark_errors`.
    """
    session = session_of(spark)
    with spark_errors():
        plan = planned(
            spine,
            views,
            as_of_us=as_of_us,
            position_of=position_of,
            status=status,
            prediction_time=prediction_time,
            question=question,
            sources=sources,
            label=label,
            label_position=label_position,
            provisional=provisional,
            until_us=until_us,
        )
        return run(session, plan, buckets)


def run(session: SparkSession, plan: Plan, buckets: int | None = None) -> DataFrame:
    """The result of a plan; see `join`."""
    return _run(session, plan, bucket_counts(session, plan, buckets))


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        spine: The questions.
        passes: One after the other; each is one shuffle.
        works: What the tasks of each do.
    """

    spine: SparkSpine
    passes: tuple[Pass, ...]
    works: tuple[Work, ...]


def planned(
    spine: FrameLike,
    views: Sequence[FeatureView],
    *,
    as_of_us: int | None = None,
    position_of: Callable[[FeatureView], int | None] = lambda _: None,
    status: bool = False,
    prediction_time: str = PREDICTION_TIME,
    question: ServiceQuestion | None = None,
    sources: bool = False,
    label: Label | None = None,
    label_position: int | None = None,
    provisional: bool = False,
    until_us: int | None = None,
) -> Plan:
    """What a join will do; see `join` for the arguments.

    Raises:
        AlignmentError: What can be told without reading rows.
    """
    read = list(views) if question is None else question.views
    needed = [name for view in read for name in view.spine_entities]
    if label is not None:
        rows, keys, _ = label_source(label, views)
        home = next((view for view in views if view.observations is rows), None)
        label = replace(label, observations=home or label.observations)
        needed += keys
    asked = look_at(spine, needed, prediction_time)
    positions: dict[str, int | None] = {view.name: position_of(view) for view in read}
    passes = plan_passes(read, label=label, positions=positions | {"@label": label_position})
    for one in passes:
        one.check_keys(asked.schema)
    bare = {view.name: view for one in passes for view in one.views}
    form = Form(
        spine_columns=tuple(asked.schema),
        prediction_time=prediction_time,
        views=tuple(bare[view.name] for view in read),
        question=None if question is None else question.without_rows(bare),
        label_columns=() if label is None else tuple(label.columns),
        until_us=known_until(views, as_of_us) if until_us is None and (status or provisional) else until_us,
        status=status,
        sources=sources,
        provisional=provisional,
    )
    return Plan(asked, tuple(passes), _works(passes, asked, form, as_of_us))


def _works(passes: Sequence[Pass], spine: SparkSpine, form: Form, as_of_us: int | None) -> tuple[Work, ...]:
    """What each pass does, tried on no rows: so that the columns of the result are known."""
    schema, works = spine.schema, []
    status = form.status or form.question is not None
    for one in passes:
        schemas = (schema, *(read.schema for read in one.inputs))
        work = Work(one.detached(), schemas, as_of_us, status, spine.prediction_time, None, form, {})
        empty = work.answered(Bucket())
        schema = dict(empty.schema)
        works.append(work)
    return *works[:-1], replace(works[-1], plain=plain_schema(form.made(empty).schema, "the result"))


def _run(session: SparkSession, plan: Plan, buckets: Sequence[int]) -> DataFrame:
    spine, question = plan.spine, plan.works[0].form.question
    ways = [_way(session, *each, spine) for each in zip(plan.passes, plan.works, buckets, strict=True)]
    came = packed_spine(session, spine, ways[0].of_spine, None if question is None else question.wanted)
    for place, (way, work) in enumerate(zip(ways, plan.works, strict=True)):
        last, parts = place == len(ways) - 1, way.parts
        together = reduce(lambda a, b: a.unionAll(b), [came, *way.packed_inputs(session)])
        sent = replace(work, following=None if last else ways[place + 1].of_spine, parts=parts if parts.cuts else None)
        shuffled = together.repartitionById(parts.count, "bucket")
        came = shuffled.mapInArrow(sent.__call__, spark_schema(work.plain) if last else PACKED)
    return came


def _way(session: SparkSession, one: Pass, work: Work, buckets: int, spine: SparkSpine) -> Balance:
    """Where a pass's rows go."""
    bounds = partial(bounds_of, one, spine=spine, as_of_us=work.as_of_us, status=work.status)
    if buckets == 1:
        return Balance(one, spine, Parts(1, np.zeros(1, np.uint32)), work.as_of_us, bounds)
    return balance(session, one, spine, buckets, as_of_us=work.as_of_us, bounds=bounds)


def bounds_of(
    one: Pass, number: int, *, spine: SparkSpine, as_of_us: int | None, status: bool
) -> tuple[int | None, int | None]:
    """Of an input's rows: the latest arrival and the earliest event that questions of the spine can use; None for any.

    Args:
        one: The pass that reads them.
        number: Which input.
        spine: The questions.
        as_of_us: Nothing that arrived later counts.
        status: Whether answers say why they are null.
    """
    read = one.inputs[number]
    assert read.observations is not None  # noqa: S101
    until: int | None = spine.last_us if as_of_us is None else min(spine.last_us, as_of_us)
    asking = [view for view, place in zip(one.views, one.reads, strict=True) if place == number]
    labelled_too = one.label is not None and one.label_reads == number
    first = np.array([spine.first_us], np.int64)
    floors = [earliest_needed(view, first, status=status) for view in asking]
    if labelled_too:
        until = as_of_us
        floors.append(None if read.observations.key or read.observations.source is None else spine.first_us)
    floor = None if None in floors else min(one for one in floors if one is not None)
    return until, floor


def bucket_counts(session: SparkSession, plan: Plan, given: int | None) -> list[int]:
    """How many buckets each pass has."""
    slots = slots_of(session)
    return [given or bucket_count(plan.spine.rows + sum(map(rows_of, one.inputs)), slots) for one in plan.passes]


def bucket_count(rows: int, slots: int) -> int:
    """Buckets for so many rows: of at most `ROWS_PER_BUCKET`, and a few per slot where that makes sense.

    Example:
        >>> bucket_count(10_000, 8), bucket_count(3_000_000, 8), bucket_count(10**9, 8)
        (1, 24, 1000)
    """
    return max(-(-rows // ROWS_PER_BUCKET), min(3 * slots, -(-rows // _FEW_ROWS)), 1)


def rows_of(read: Input) -> int:
    """How many rows an input has, about; a frame of Spark is asked."""
    rows = read.observations
    assert rows is not None  # noqa: S101
    if is_spark_frame(rows.frame):
        return int(rows.frame.count())
    files_for: Any = getattr(rows.source, "files_for", None)
    if files_for is not None:
        return int(files_for(position=read.position).rows_read)
    return int(rows.lazy().select(pl.len()).collect().item())


def slots_of(session: SparkSession) -> int:
    """Tasks that run at once, as far as the session says."""
    try:
        return int(session.sparkContext.defaultParallelism)
    except Exception:  # noqa: BLE001 - Spark Connect has no context, and each version says so in its own way
        return int(session.conf.get("spark.sql.shuffle.partitions") or 200) // 3 or 1
