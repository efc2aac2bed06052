"""Rows brought into the order that the kernel walks: by entity, then by arrival.

Working memory is 37 bytes per observation row of an entity that is asked about (41 with an id, 45 for forecasts) and 24
bytes per question, besides the columns themselves; values are read where they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.bounds import shifted
from alignment.durations import Duration, nearest_instant
from alignment.errors import AmbiguousRevisionsError, KeyTypeError
from alignment.observations import Observations
from alignment.rows import ARRIVAL, EVENT, ISSUE, ORDER, RETRACTION

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]

_LAST_INSTANT = np.iinfo(np.int64).max
_INLINE_BYTES = 12
_MOST_COMBINATIONS = 1 << 62
NO_EVENT = 1 << 62
"""Stands for the event of a retraction that names only its id; after every real event."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One provider's rows, grouped by entity and in arrival order; see `kernels.arrange` for the arrays."""

    offsets: Ints
    rows: Codes
    arrival: Ints
    event: Ints
    subject: Codes
    slot: Codes
    issue_key: Codes
    key_start: Codes
    subjects: Ints
    slots: Ints
    retraction: npt.NDArray[np.uint8]
    forecast: bool
    with_id: bool


@dataclass(frozen=True, slots=True)
class Questions:
    """Spine rows grouped by entity and in order of their prediction times."""

    offsets: Ints
    t: Ints
    rows: Codes


def frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A read-only view, so that the kernel is compiled once whether or not memory is shared with a frame."""
    view = array.view()
    view.flags.writeable = False
    return view


def numbers(series: pl.Series, dtype: Any = np.int64) -> npt.NDArray[Any]:
    """The series as a read-only NumPy array, shared where it can be; nulls are 0."""
    filled = series.fill_null(0) if series.null_count() else series
    return frozen(np.ascontiguousarray(filled.to_numpy(), dtype=dtype))


def encode_entities(
    spine: pl.DataFrame, spine_keys: Sequence[str], rows: pl.DataFrame, row_keys: Sequence[str], place: str, pool: Pool
) -> tuple[int, Codes, Codes]:
    """Number the entities of the spine.

    Args:
        spine: Questions.
        spine_keys: Entity columns in `spine`.
        rows: Observations.
        row_keys: The same columns in `rows`.
        place: What to call the observations in messages.
        pool: Threads.

    Returns:
        How many entities there are, the number of each spine row and of each observation; -1 for a null key and for an
        observation that no spine row asks about.

    Raises:
        KeyTypeError: If key types neither match nor widen.
    """
    if not row_keys:
        return 1, np.zeros(spine.height, np.int32), np.zeros(rows.height, np.int32)
    names = [f"@{i}" for i in range(len(row_keys))]
    types = [
        common_type(spine.schema[s], rows.schema[r], s, r, place) for s, r in zip(spine_keys, row_keys, strict=True)
    ]
    asked = spine.select(pl.col(s).cast(kind).alias(n) for s, kind, n in zip(spine_keys, types, names, strict=True))
    given = rows.select(pl.col(r).cast(kind).alias(n) for r, kind, n in zip(row_keys, types, names, strict=True))
    known = asked.unique().drop_nulls()
    codes = _encode_words(known, asked, given, pool)
    if codes is not None:
        return known.height, *codes
    table = known.with_row_index("@code").with_columns(pl.col("@code").cast(pl.Int32))
    return known.height, _encode_by_join(asked, table, names), _encode_by_join(given, table, names)


def _as_words(series: pl.Series) -> Ints | None:
    """Keys as words of 64 bits, one row per key; None if they do not fit. Nulls are anything.

    A text of at most 12 bytes is its Arrow view: length, then the bytes, padded with zeros.
    """
    kind = series.dtype
    small = kind.is_integer() and kind not in (pl.UInt64, pl.Int128, pl.UInt128)
    if small or isinstance(kind, pl.Datetime | pl.Date | pl.Duration | pl.Time):
        return numbers(series.to_physical().cast(pl.Int64)).reshape(-1, 1)
    if kind != pl.String or not len(series) or bool((series.str.len_bytes() > _INLINE_BYTES).any()):
        return None
    views = series.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    return frozen(np.frombuffer(views.buffers()[1], np.int64).reshape(-1, 2)[views.offset : views.offset + len(views)])


def _encode_words(
    known: pl.DataFrame, asked: pl.DataFrame, given: pl.DataFrame, pool: Pool
) -> tuple[Codes, Codes] | None:
    """Numbers of `asked` and `given` among `known`; None if a key does not fit in words.

    Several key columns are numbered one by one, and the numbers joined to one word.
    """
    joined = [np.zeros(frame.height, np.int64) for frame in (known, asked, given)] if known.width > 1 else []
    combinations = 1
    for name in known.columns:
        once = known[name].unique() if known.width > 1 else known[name]
        words = [found for frame in (known, asked, given) if (found := _as_words(frame[name])) is not None]
        keys = _as_words(once)
        if keys is None or len(words) < 3:
            return None
        codes = [_look_up(keys, wanted, pool) for wanted in words[0 if known.width > 1 else 1 :]]
        if asked[name].null_count():
            codes[-2][asked[name].is_null().to_numpy()] = -1
        if known.width == 1:
            return codes[0], codes[1]
        combinations *= len(keys) or 1
        if combinations > _MOST_COMBINATIONS:
            return None
        joined = [_join_codes(before, one, len(keys)) for before, one in zip(joined, codes, strict=True)]
    keys, *wanted_words = (word.reshape(-1, 1) for word in joined)
    return _look_up(keys, wanted_words[0], pool), _look_up(keys, wanted_words[1], pool)


def _join_codes(before: Ints, codes: Codes, count: int) -> Ints:
    """One word for the numbers of several columns; -1 where any is unknown."""
    return np.where((before < 0) | (codes < 0), np.int64(-1), before * count + codes)


def _look_up(keys: Ints, wanted: Ints, pool: Pool) -> Codes:
    """The number of each of `wanted` among `keys`, -1 where it is not there."""
    from alignment import kernels

    bits = max(4, (2 * len(keys)).bit_length())
    table = np.full(1 << bits, -1, np.int32)
    keys, wanted = frozen(keys), frozen(wanted)
    kernels.fill_table(keys, 64 - bits, table)
    codes = np.empty(len(wanted), np.int32)
    pool.over(len(wanted), lambda a, b: kernels.look_up(wanted, keys, 64 - bits, table, a, b, codes))
    return codes


def _encode_by_join(frame: pl.DataFrame, table: pl.DataFrame, names: list[str]) -> Codes:
    coded = frame.lazy().join(table.lazy(), on=names, how="left", maintain_order="left").select("@code").collect()
    return np.ascontiguousarray(coded.to_series().fill_null(-1).to_numpy())


def common_type(asked: pl.DataType, given: pl.DataType, spine_key: str, row_key: str, place: str) -> pl.DataType:
    """The type in which a spine key and an observation key compare.

    Raises:
        KeyTypeError: If there is none that loses nothing.
    """
    texts = (pl.String, pl.Categorical, pl.Enum)
    if asked == pl.Null:  # no key was ever known, so nothing is lost
        return given
    if asked == given and not isinstance(asked, pl.Categorical | pl.Enum):
        return asked
    if asked.is_integer() and given.is_integer():
        mixed = pl.UInt64 in (asked, given) and (asked.is_signed_integer() or given.is_signed_integer())
        unsigned = asked.is_unsigned_integer() and given.is_unsigned_integer()
        return pl.Int128() if mixed else pl.UInt64() if unsigned else pl.Int64()
    if asked.is_float() and given.is_float():
        return pl.Float64()
    if isinstance(asked, texts) and isinstance(given, texts):
        return pl.String()
    if (
        isinstance(asked, pl.Datetime)
        and isinstance(given, pl.Datetime)
        and bool(asked.time_zone) == bool(given.time_zone)
    ):
        return pl.Datetime("us", "UTC" if asked.time_zone else None)
    raise KeyTypeError(
        f"{place}: entity {row_key!r} is {given}, and the spine's {spine_key!r} is {asked}: they cannot be compared",
        f'make them alike, e.g. spine.with_columns(pl.col("{spine_key}").cast(pl.{given!s})).',
    )


class Pool:
    """Threads for functions that release the interpreter lock.

    Args:
        threads: How many; None for one per processor that this process may use.
    """

    def __init__(self, threads: int | None) -> None:
        self.threads = threads or pl.thread_pool_size()
        self._executor = ThreadPoolExecutor(self.threads) if self.threads > 1 else None

    def run(self, calls: Sequence[Callable[[], object]]) -> None:
        """Run all `calls`; the first error is raised."""
        if self._executor is None or len(calls) < 2:
            for call in calls:
                call()
            return
        for future in [self._executor.submit(call) for call in calls]:
            future.result()

    def over(self, n: int, call: Callable[[int, int], object]) -> None:
        """Run `call(start, stop)` over `range(n)` cut into one piece per thread."""
        cuts = self.cuts(n)
        self.run([lambda a=a, b=b: call(a, b) for a, b in pairwise(cuts)])  # type: ignore[misc]

    def cuts(self, n: int) -> list[int]:
        """Where `range(n)` is cut."""
        return [n * i // self.threads for i in range(self.threads + 1)]

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown()


def _group(
    codes: Codes, entities: int, event: Ints, arrival: Ints, limit: int, pool: Pool
) -> tuple[Ints, Codes, Ints, Ints]:
    """Rows of one entity side by side, in the order given: offsets, row numbers, events, arrivals."""
    from alignment import kernels

    codes = frozen(codes)
    cuts = pool.cuts(len(codes))
    counts = np.zeros((pool.threads, entities), np.int64)
    pieces = list(enumerate(pairwise(cuts)))
    pool.run([lambda i=i, a=a, b=b: kernels.count_rows(codes, arrival, limit, a, b, counts[i]) for i, (a, b) in pieces])  # type: ignore[misc]
    ends = np.cumsum(counts.T.ravel())
    cursor = np.ascontiguousarray((ends - counts.T.ravel()).reshape(entities, pool.threads).T)
    offsets = np.zeros(entities + 1, np.int64)
    offsets[1:] = ends.reshape(entities, pool.threads)[:, -1]
    total = int(offsets[-1])
    rows, events, arrivals = np.empty(total, np.int32), np.empty(total, np.int64), np.empty(total, np.int64)
    pool.run(
        [
            lambda i=i, a=a, b=b: kernels.scatter_rows(
                codes, event, arrival, limit, a, b, cursor[i], rows, events, arrivals
            )  # type: ignore[misc]
            for i, (a, b) in pieces
        ]
    )
    return offsets, rows, events, arrivals


def given_notice(frame: pl.DataFrame, codes: Codes, notice: Duration, zone: str | None) -> Codes:
    """`codes` without the rows that arrived later than `notice` before their event (R10, R15).

    A retraction that names only its id has no event, and counts.
    """
    events = numbers(frame[EVENT])
    latest = shifted(events, zone, (-1, notice))
    late = numbers(frame[ARRIVAL]) > (latest if isinstance(latest, np.ndarray) else events + latest)
    if frame[EVENT].null_count():
        late &= frame[EVENT].is_not_null().to_numpy()
    return np.where(late, np.int32(-1), codes)


def lay_out_questions(codes: Codes, entities: int, t: Ints, pool: Pool) -> Questions:
    """The spine's rows with a known entity, grouped and ordered."""
    from alignment import kernels

    offsets, rows, moments, _ = _group(codes, entities, t, t, _LAST_INSTANT, pool)
    pool.run([lambda a=a, b=b: kernels.sort_queries(a, b, offsets, moments, rows) for a, b in balanced(offsets, pool)])  # type: ignore[misc]
    return Questions(offsets, moments, rows)


def balanced(offsets: Ints, pool: Pool) -> list[tuple[int, int]]:
    """Ranges of entities that hold about equally many rows, a few per thread."""
    entities = len(offsets) - 1
    if not entities:
        return []
    share = max(1, int(offsets[-1]) // (pool.threads * 8))
    marks = np.searchsorted(offsets, np.arange(share, int(offsets[-1]) + share, share), side="left")
    cuts = np.unique(np.concatenate([[0], np.minimum(marks, entities), [entities]]))
    return [(int(a), int(b)) for a, b in pairwise(cuts)]


def lay_out(
    observations: Observations,
    frame: pl.DataFrame,
    codes: Codes,
    entities: int,
    limit: int,
    pool: Pool,
    position: int | None = None,
) -> Layout:
    """Group, order and number the rows that had arrived by `limit`.

    Args:
        observations: What the rows are.
        frame: Checked canonical rows.
        codes: Entity number of each row, -1 to leave it out.
        entities: How many entities there are.
        limit: Latest arrival that any question can see, microseconds.
        pool: Threads.
        position: The log position at which `frame` was read.

    Returns:
        The layout.

    Raises:
        AmbiguousRevisionsError: If two different rows have one key and arrival and nothing orders them.
    """
    from alignment import kernels

    event = frame[EVENT]
    events = numbers(event.fill_null(NO_EVENT) if event.null_count() else event)
    offsets, rows, grouped_events, arrivals = _group(codes, entities, events, numbers(frame[ARRIVAL]), limit, pool)
    forecast, with_id, total = observations.kind == "forecast", bool(observations.key), len(rows)
    retraction = _flags(frame, RETRACTION)
    identity = numbers(_id_rank(frame, observations.key)) if with_id else frozen(np.empty(0, np.int64))
    issue = numbers(frame[ISSUE]) if forecast else frozen(np.empty(0, np.int64))
    withdraws = np.zeros(frame.height if forecast else 0, np.uint8)
    if forecast and len(retraction) and frame[ISSUE].null_count():
        withdraws = frame[ISSUE].is_null().to_numpy().astype(np.uint8)
    order = _order(observations, frame, identity)
    subject = np.empty(total, np.int32)
    slot = np.empty(total, np.int32) if with_id else subject
    issue_key, key_start = np.empty(total if forecast else 0, np.int32), np.empty(total if forecast else 0, np.int32)
    subjects, slots = np.zeros(entities, np.int64), np.zeros(entities, np.int64)
    tied, ties = np.zeros(total, np.int32), np.zeros(entities, np.int64)
    withdraws = frozen(withdraws)
    pool.run(
        [
            lambda a=a, b=b: kernels.arrange(  # type: ignore[misc]
                *(a, b, offsets, rows, grouped_events, arrivals, order, identity, issue, withdraws, forecast),
                *(subject, slot, issue_key, key_start, subjects, slots, tied, ties),
            )
            for a, b in balanced(offsets, pool)
        ]
    )
    if ties.any() and observations.on_tie == "error":
        _check_ties(observations, frame, rows, tied, withdraws, position)
    return Layout(
        *(offsets, rows, arrivals, grouped_events, subject, slot, issue_key, key_start, subjects, slots, retraction),
        forecast=forecast,
        with_id=with_id,
    )


def _flags(frame: pl.DataFrame, column: str) -> npt.NDArray[np.uint8]:
    if column not in frame.columns or not frame[column].any():
        return frozen(np.empty(0, np.uint8))
    return frozen(frame[column].to_numpy().view(np.uint8))


def _id_rank(frame: pl.DataFrame, key: Sequence[str]) -> pl.Series:
    """A number per id, in the order of the ids' values."""
    return frame.select(pl.struct(key).rank("dense") if len(key) > 1 else pl.col(key[0]).rank("dense")).to_series()


def _order(observations: Observations, frame: pl.DataFrame, identity: Ints) -> Ints:
    """What orders rows of one arrival: the log sequence, else the arrival before it was raised, else the id."""
    if len(identity) and not observations.has_log_sequence:
        if ORDER not in frame.columns:
            return identity
        return numbers(frame.select(pl.struct(ORDER, *observations.key).rank("dense")).to_series())
    return numbers(frame[ORDER]) if ORDER in frame.columns else frozen(np.empty(0, np.int64))


def _check_ties(
    observations: Observations,
    frame: pl.DataFrame,
    rows: Codes,
    tied: Codes,
    withdraws: npt.NDArray[np.uint8],
    position: int | None,
) -> None:
    """Let equal rows pass, and refuse different ones (R17).

    Raises:
        AmbiguousRevisionsError: If two differ.
    """
    at = np.flatnonzero(tied)
    one, other = rows[at], tied[at] - 1
    tied_rows = observations.lazy(position=position).select(pl.all().gather(np.concatenate([one, other]))).collect()
    first, second = tied_rows.head(len(one)), tied_rows.tail(len(one))
    differ = rows_differ(first, second)
    if len(withdraws):
        differ |= pl.Series(withdraws[one] != withdraws[other])
    if not differ.any():
        return
    i = int(differ.arg_max() or 0)
    a, b = sorted((int(one[i]), int(other[i])))
    key = ", ".join(f"{name}={first[name][i]!r}" for name in [*observations.entities, *observations.key])
    raise AmbiguousRevisionsError(
        f"{observations.place}: {int(differ.sum())} pairs of different rows have the same key and arrival, first rows {a} and {b}"
        f" ({key + ', ' if key else ''}event {_text(frame[EVENT][a])}, arrival {_text(frame[ARRIVAL][a])})",
        'which came last is unknown: give the rows a log_sequence, or pass on_tie="last" to take the last in the frame.',
    )


def rows_differ(first: pl.DataFrame, second: pl.DataFrame) -> pl.Series:
    """Row by row, whether two frames of the same columns differ; null equals null, NaN equals NaN, and 0.0 is not -0.0."""
    differ = np.zeros(first.height, bool)
    for name, kind in first.schema.items():
        differ |= first[name].ne_missing(second[name]).to_numpy()
        if kind.is_float():
            signs = (np.signbit(frame[name].fill_null(0.0).to_numpy()) for frame in (first, second))
            differ |= np.not_equal(*signs) & (first[name].fill_null(1.0) == 0.0).to_numpy()
    return pl.Series(differ)


def _text(microseconds: int | None) -> str:
    return "null" if microseconds is None else nearest_instant(microseconds).isoformat()
