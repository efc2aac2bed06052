"""Views whose rows arrive at other times: under outages and delay models (R23).

Only arrivals move; which rows there are, their values and the features stay. So whatever takes views answers what would have
been known: joins, data sets, replay, explanations.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.definitions import describe_moves
from alignment.delays import DelayRule
from alignment.errors import DefinitionError, ViewError
from alignment.heartbeats import provider_of
from alignment.join import check_views
from alignment.observations import GIVEN, Kind, Observations, ObservationSource, as_lazy
from alignment.outages import Outage, as_outages
from alignment.rows import (
    ARRIVAL,
    ARRIVAL_KIND,
    EVENT,
    ISSUE,
    ORDER,
    canonical,
    check_rows,
    in_one_piece,
)
from alignment.views import FeatureView

_US = pl.Datetime("us", "UTC")
_GIVEN, _KEPT, _BEFORE = "@given", "@kept", "@before"
_ROW, _PLACE, _WHOLE, _GROUP = "@row", "@place", "@whole", "@group"
MODELLED = "modelled"
_LAST_INSTANT = 253_402_300_799_999_999
"""The end of the year 9999; what would arrive later arrives then."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def transform_arrivals(
    views: Sequence[FeatureView] | FeatureView,
    *,
    outages: Iterable[Outage] | Outage = (),
    delays: Mapping[str, DelayRule] | None = None,
    seed: int | None = None,
) -> list[FeatureView]:
    """The same views over the same rows, which arrive when delay models and outages say.

    A delay rule gives the first revision of each key its arrival; later ones keep their distance to it. Then outages hold up what
    arrives in them, the earliest first. At last the revisions of a key are kept in their order: none arrives before one that it
    replaced. A measurement never arrives before its event. Heartbeats move with the rows that gave them; polls that found nothing
    are gone while the whole provider is down. Moved rows are marked `modelled`, and keep their arrival as `given_arrival_time`.

    Args:
        views: What is computed. Views that no outage or rule concerns are returned as they are.
        outages: One, or several. By provider: the log's; of a plain frame the view's name stands for it.
        delays: Provider to rule. What a rule draws is keyed by its seed and the row's key, never by the row's place (R23).
        seed: Seed of the rules that draw; None leaves each its own.

    Returns:
        One view per view, in order.

    Raises:
        ViewError: If an outage or rule names no provider of the views.
        DefinitionError: If something is no outage or rule, or does not fit the entities.
        AlignmentError: If observations in memory break a rule of frames.

    Example:
        >>> from datetime import UTC, datetime
        >>> from alignment.features import latest
        >>> from alignment.join import point_in_time_join
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
        >>> spine = pl.DataFrame({"station": ["a", "a"], "prediction_time": [at(11, 45), at(12)]})
        >>> held_up = transform_arrivals(view, outages=[Outage("weather", at(11), at(12))])
        >>> point_in_time_join(spine, held_up)["weather__temp"].to_list()
        [3.5, 4.0]
    """
    views = [views] if isinstance(views, FeatureView) else list(views)
    check_views(views)
    outages = as_outages(outages)
    held_up, rules = _by_provider(views, outages, delays)
    moves = describe_moves(outages, delays, seed)
    if seed is not None:
        rules = {name: _seeded(rule, seed) for name, rule in rules.items()}
    found = []
    for view in views:
        name = provider_of(view)
        changed = _transformed(view, held_up.get(name, ()), rules.get(name))
        if changed is not view:
            changed.observations.moved_by = (*view.observations.moved_by, moves)
        found.append(changed)
    return found


def _by_provider(
    views: Sequence[FeatureView], outages: Sequence[Outage], delays: Mapping[str, DelayRule] | None
) -> tuple[dict[str, tuple[Outage, ...]], dict[str, DelayRule]]:
    if not isinstance(delays, Mapping | None):
        raise DefinitionError(
            f"delays={delays!r} does not say whose", 'name providers, e.g. delays={"weather": al.FixedDelay("45m")}.'
        )
    rules = dict(delays or {})
    providers = dict.fromkeys(provider_of(view) for view in views)
    for provider, rule in rules.items():
        if isinstance(rule, type) or not isinstance(rule, DelayRule):
            raise DefinitionError(
                f"delays[{provider!r}]={rule!r} is not a delay rule",
                f'e.g. delays={{"{provider}": al.FixedDelay("45m")}}.',
            )
    for name in (*rules, *(outage.provider for outage in outages)):
        if name not in providers:
            raise _no_provider(name, views, list(providers))
    ordered = sorted(outages, key=_order_of)
    return {name: tuple(one for one in ordered if one.provider == name) for name in providers}, rules


def _no_provider(name: str, views: Sequence[FeatureView], providers: Sequence[str]) -> ViewError:
    """The error that says whose provider a name is not, and which was meant."""
    known = f"the providers are {', '.join(map(repr, providers))}; the view's name stands for that of a plain frame."
    own = next((provider_of(view) for view in views if view.name == name), None)
    close = [own] if own is not None else difflib.get_close_matches(name, providers, n=1, cutoff=0.6)
    return ViewError(
        f"{name!r} is no provider of the views, and something is to happen to it"
        + ("" if own is None else f": view {name!r} is of provider {own!r}"),
        f"did you mean {close[0]!r}? {known[0].upper()}{known[1:]}" if close else known,
    )


def _order_of(outage: Outage) -> tuple[Any, ...]:
    """The earliest first; of one span what loses, what holds up, what slows, so that the order of the arguments decides nothing."""
    return *outage.span_us, not outage.lost, outage.slow or 0.0, str(outage.to_dict())


def _seeded(rule: DelayRule, seed: int) -> DelayRule:
    own: Any = rule
    drawn = is_dataclass(own) and any(one.name == "seed" for one in fields(own))
    return cast("DelayRule", replace(own, seed=seed)) if drawn else rule


def _transformed(view: FeatureView, outages: tuple[Outage, ...], rule: DelayRule | None) -> FeatureView:
    if not outages and rule is None:
        return view
    same = copy.copy(view)
    rows = view.observations
    if rows.source is not None:
        same.observations = rows.but(frame=TransformedSource(rows, outages, rule))
    else:
        same.observations = _transformed_frame(rows, outages, rule)
    return same


def _transformed_frame(rows: Observations, outages: tuple[Outage, ...], rule: DelayRule | None) -> Observations:
    """Observations in memory with other arrivals; what ordered them before still does."""
    raw = as_lazy(rows.frame, rows.place).collect()
    rows = rows.but(frame=raw)  # read once: a lazy frame may come in another order the second time
    frame = moved(rows, in_one_piece(canonical(rows, []).collect()), outages, rule)
    changed = [pl.col(ARRIVAL).cast(_US).alias(rows.arrival_time), pl.col(ARRIVAL_KIND).alias("arrival_kind")]
    if GIVEN not in raw.columns:
        changed.append(pl.col(_GIVEN).cast(_US).alias(GIVEN))
    if rows.kind == "forecast" and not rows.has_issue_time:
        changed.append(pl.col(ISSUE).cast(_US).alias(rows.issue_time))
    if not rows.has_log_sequence:  # without one ids order rows of one arrival (R4)
        order = pl.struct(ORDER, *rows.key).rank("dense").cast(pl.Int64) if rows.key else pl.col(ORDER)
        changed.append(order.alias(rows.log_sequence))
    return rows.but(frame=raw.with_columns(frame.select(changed)).filter(frame[_KEPT]))


@dataclass
class TransformedSource:
    """A log whose rows arrive at other times, and whose heartbeats come with them.

    Args:
        rows: The observations as they are.
        outages: In order of their starts.
        rule: What gives first revisions their arrival, if anything does.
    """

    rows: Observations
    outages: tuple[Outage, ...]
    rule: DelayRule | None
    _moved: dict[int, pl.DataFrame] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Take over what the log says of itself."""
        inner = self.inner
        self.provider: str = inner.provider
        self.entities: list[str] = self.rows.entities
        self.kind: Kind = self.rows.kind
        self.key: list[str] | None = self.rows.key or None
        self.clock_tolerance: str = inner.clock_tolerance
        self.address: str = str(getattr(inner, "address", ""))

    @property
    def inner(self) -> ObservationSource:
        """The log itself.

        Raises:
            DefinitionError: If there is none.
        """
        if self.rows.source is None:
            raise DefinitionError(f"{self.rows.place} are no log", "pass the views to transform_arrivals.")
        return self.rows.source

    def position(self) -> int:
        """The greatest `log_sequence`; -1 if there is none."""
        return self.inner.position()

    def observed_through(self) -> datetime | None:
        """Up to when everything that the provider sent is known to be here."""
        return self.inner.observed_through()

    def column_since(self) -> dict[str, int]:
        """Per column, the first `log_sequence` that could carry it."""
        return self.inner.column_since()

    def former_names(self) -> dict[str, str]:
        """Names that columns had, to their names now."""
        return dict(self.rows.former_names)

    def register_dataset(self, path: Any) -> None:
        """Tell the log of a data set that was made of its rows."""
        register = getattr(self.inner, "register_dataset", None)
        if register is not None:
            register(path)

    def scan(
        self,
        *,
        position: int | None = None,
        as_of: datetime | None = None,
        event_from: datetime | None = None,
        event_until: datetime | None = None,
        columns: Sequence[str] | None = None,
        after: int | None = None,
    ) -> pl.LazyFrame:
        """The log's rows with `after < log_sequence <= position`, with the arrivals that they are given at that position."""
        if position is None:
            position = self.position()
        moved = self.arrivals(position).lazy()
        if as_of is not None:
            moved = moved.filter(pl.col("arrival_time") <= as_of)
        stored = self.inner.scan(
            position=position, event_from=event_from, event_until=event_until, columns=columns, after=after
        )
        replaced = ["arrival_time", "arrival_kind", *(["issue_time"] if self.kind == "forecast" else [])]
        if GIVEN in stored.collect_schema():  # moved before: the first arrival is the one that was given
            moved = moved.drop(GIVEN)
        return stored.drop(replaced, strict=False).join(moved, on="log_sequence", how="inner", maintain_order="left")

    def arrivals(self, position: int) -> pl.DataFrame:
        """Of every row up to a position that ever arrives: `log_sequence`, `arrival_time`, `arrival_kind`, `given_arrival_time`."""
        if position not in self._moved:
            rows = self.rows
            stored = in_one_piece(canonical(rows, [], position=position).collect())
            frame = moved(rows, stored, self.outages, self.rule).filter(_KEPT)
            times = {"arrival_time": ARRIVAL, GIVEN: _GIVEN} | ({"issue_time": ISSUE} if ISSUE in frame.columns else {})
            self._moved = {
                position: frame.select(
                    pl.col(ORDER).alias("log_sequence"),
                    *(pl.col(column).cast(_US).alias(name) for name, column in times.items()),
                    pl.col(ARRIVAL_KIND).alias("arrival_kind"),
                )
            }
        return self._moved[position]

    def heartbeats(self, *, position: int | None = None, as_of: datetime | None = None) -> pl.DataFrame:
        """When the provider would have shown that it lives: `arrival_time`, `log_sequence`; in order (R20)."""
        position = self.position() if position is None else position
        moved = self.arrivals(position)
        told: Any = getattr(self.inner, "heartbeats", None)
        if told is None:
            beats = moved.select("arrival_time", "log_sequence")
        else:
            given = told(position=position).select("arrival_time", "log_sequence")
            came = moved.join(given.select(pl.col("arrival_time").alias(GIVEN)).unique(), on=GIVEN, how="semi")
            rows = self.inner.scan(position=position, columns=[]).select("arrival_time").unique().collect()
            empty = given.join(rows, on="arrival_time", how="anti")
            for outage in self.outages:
                if outage.entities is None and outage.slow is None:
                    down = pl.col("arrival_time").is_between(outage.start, outage.end, closed="left")
                    empty = empty.filter(~down)
            beats = pl.concat([came.select("arrival_time", "log_sequence"), empty])
        if as_of is not None:
            beats = beats.filter(pl.col("arrival_time") <= as_of)
        return beats.group_by("arrival_time").agg(pl.col("log_sequence").max()).sort("arrival_time")


# --- the rule ---------------------------------------------------------------------------------------------------------


def moved(rows: Observations, stored: pl.DataFrame, outages: Sequence[Outage], rule: DelayRule | None) -> pl.DataFrame:
    """Canonical rows with the arrivals that they are given, row for row.

    Args:
        rows: What they are.
        stored: Canonical rows.
        outages: In order of their starts.
        rule: What gives first revisions their arrival, if anything does.

    Returns:
        `stored`, checked, with `@arrival`, `@order`, `@arrival_kind` and, new, `@given` (the arrival before) and `@kept` (whether
        the row ever arrives).

    Raises:
        AlignmentError: What the rows break; see `check_rows`.
    """
    frame, _ = check_rows(rows, stored.with_columns(pl.col(ARRIVAL).alias(_GIVEN)))
    unknown = {ORDER: pl.col(ARRIVAL), ARRIVAL_KIND: pl.lit("measured")}
    frame = frame.with_columns(value.alias(name) for name, value in unknown.items() if name not in frame.columns)
    frame = frame.with_row_index(_ROW).sort(ARRIVAL, ORDER, _ROW)
    arrival = frame[ARRIVAL] if rule is None else _modelled(rows, frame, rule)
    kept = pl.repeat(value=True, n=frame.height, dtype=pl.Boolean, eager=True)
    for outage in outages:
        start, end = outage.span_us
        hit = (arrival >= start) & (arrival < end) & outage.concerns(frame, rows.entities, rows.place)
        if outage.lost:
            kept &= ~hit
        elif outage.slow is None:
            arrival = arrival.set(hit, end)
        else:
            arrival = _slowed(rows, frame, arrival, hit, outage.slow)
    arrival = arrival.clip(upper_bound=_LAST_INSTANT)
    frame = frame.with_columns(pl.col(ARRIVAL).alias(_BEFORE), arrival.alias(ARRIVAL), kept.alias(_KEPT))
    frame = _in_order(rows, frame).sort(_ROW)
    made_up = pl.lit(value=True) if rule is not None else pl.col(ARRIVAL) != pl.col(_BEFORE)
    kind = pl.when(made_up).then(pl.lit(MODELLED)).otherwise(ARRIVAL_KIND)
    return frame.with_columns(kind.alias(ARRIVAL_KIND)).drop(_ROW, _BEFORE)


def _key(rows: Observations) -> list[str]:
    """The columns of a revision key (R2, R4)."""
    event = rows.key or [EVENT]
    return [*rows.entities, *event, *([ISSUE] if rows.kind == "forecast" else [])]


def _modelled(rows: Observations, frame: pl.DataFrame, rule: DelayRule) -> pl.Series:
    """Arrivals by the rule: of each key's first revision; the others keep their distance to it."""
    tells = frame[EVENT].is_not_null()  # of a retraction that names less no rule can tell
    if rows.kind == "forecast":
        tells &= frame[ISSUE].is_not_null()
    keys = _Groups.of(frame, _key(rows))
    first = keys.is_first(tells.to_numpy())
    arrival = frame[ARRIVAL].to_numpy()
    told = rule.arrival_times(_asked(rows, frame.filter(pl.Series(first)))).to_physical()
    shift = np.zeros(frame.height, np.int64)
    shift[first] = np.where(told.is_null(), 0, told.fill_null(0).to_numpy() - arrival[first])
    shift = keys.carried(shift, first)
    if rows.kind == "forecast" and not tells.all():
        # What withdraws all issues of an event moves as the last row before it does.
        events = _Groups.of(frame, [*rows.entities, EVENT])
        shift = np.where(tells.to_numpy(), shift, events.carried(shift, tells.to_numpy()))
    moved_by = arrival + shift
    if rows.kind == "forecast":
        return pl.Series(moved_by)
    return pl.select(pl.max_horizontal(pl.Series(moved_by), frame[EVENT])).to_series()


def _asked(rows: Observations, frame: pl.DataFrame) -> pl.DataFrame:
    """Rows as a delay rule sees them."""
    times = {"event_time": EVENT, "arrival_time": ARRIVAL} | ({"issue_time": ISSUE} if rows.kind == "forecast" else {})
    keys = [name for name in dict.fromkeys([*rows.entities, *rows.key]) if name not in times]
    return frame.select(*(pl.col(column).cast(_US).alias(name) for name, column in times.items()), *keys)


def _slowed(rows: Observations, frame: pl.DataFrame, arrival: pl.Series, hit: pl.Series, factor: float) -> pl.Series:
    """Arrivals of the rows that are hit with a delay `factor` times as long; of rows without an instant of origin as they are."""
    origin = frame.select(pl.coalesce(ISSUE, EVENT) if rows.kind == "forecast" else pl.col(EVENT)).to_series()
    delay = (arrival - origin).fill_null(0).clip(lower_bound=0)
    longer = (delay * (factor - 1.0)).round().clip(upper_bound=float(_LAST_INSTANT)).cast(pl.Int64)
    return pl.select(pl.when(hit).then(arrival + longer).otherwise(arrival)).to_series()


def _in_order(rows: Observations, frame: pl.DataFrame) -> pl.DataFrame:
    """Rows of one key in the order in which they arrived before.

    None arrives before an earlier one, and a microsecond later where the log's sequence would turn two of them round.

    Args:
        rows: What they are.
        frame: Canonical rows in the order in which they arrived.
    """
    group = _key(rows)
    if rows.kind == "forecast" and frame[ISSUE].null_count():
        of_event = [*rows.entities, EVENT]
        whole = frame.filter(pl.col(ISSUE).is_null()).select(*of_event, pl.lit(value=True).alias(_WHOLE)).unique()
        frame = frame.join(whole, on=of_event, how="left", nulls_equal=True, maintain_order="left")
        frame = frame.with_columns(pl.when(pl.col(_WHOLE).is_null()).then(ISSUE).alias(_GROUP)).drop(_WHOLE)
        group = [*of_event, _GROUP]
    kept = frame[_KEPT].to_numpy()
    arrival, order = frame[ARRIVAL].to_numpy().copy(), frame[ORDER].to_numpy()
    for before, after in _Groups.of(frame, group, kept).pairs():
        arrival[after] = np.maximum(arrival[after], arrival[before] + (order[after] < order[before]))
    return frame.with_columns(pl.Series(ARRIVAL, arrival)).drop(_GROUP, strict=False)


@dataclass(frozen=True, slots=True)
class _Groups:
    """Rows that share a key, in their order; keys of one row are left aside.

    Attributes:
        rows: Row numbers, those of a key side by side.
        start: Per place in `rows` the place of the first row of its key.
        height: How many rows the frame has.
    """

    rows: Ints
    start: Ints
    height: int

    @classmethod
    def of(cls, frame: pl.DataFrame, key: Sequence[str], among: Bools | None = None) -> _Groups:
        """The rows of a frame by key, perhaps only some of them."""
        keys = frame.select(*dict.fromkeys(key)).with_row_index(_PLACE)
        if among is not None and not among.all():
            keys = keys.filter(pl.Series(among))
        keys = keys.filter(keys.select(pl.exclude(_PLACE)).is_duplicated()).sort(
            *dict.fromkeys(key), maintain_order=True
        )
        columns = [keys[name] for name in keys.columns if name != _PLACE]
        begins = np.zeros(keys.height, np.bool_)
        for column in columns:
            begins |= column.ne_missing(column.shift(1)).to_numpy()
        begins[:1] = True
        places = np.arange(keys.height)
        return cls(keys[_PLACE].to_numpy(), np.maximum.accumulate(np.where(begins, places, 0)), frame.height)

    def is_first(self, among: Bools) -> Bools:
        """Per row whether it is the first of its key of those among which to look."""
        found = among.copy()
        last = self._last(among)
        places = np.arange(len(self.rows))
        before = np.append(np.int64(-1), last[:-1])  # the last of them at an earlier place
        found[self.rows] &= ~((before >= self.start) & (places > 0))
        return found

    def carried(self, values: Ints, told: Bools) -> Ints:
        """Per row the value of the last row of its key up to it that has one; its own where none does."""
        last = self._last(told)
        known = last >= self.start
        found = values.copy()
        found[self.rows[known]] = values[self.rows[last[known]]]
        return found

    def _last(self, told: Bools) -> Ints:
        """Per place the last place up to it whose row is told, whichever its key; -1 for none."""
        return np.maximum.accumulate(np.where(told[self.rows], np.arange(len(self.rows)), -1)).astype(np.int64)

    def pairs(self) -> Iterator[tuple[Ints, Ints]]:
        """Rows and the next of their keys: of all keys the first and the second row, then the second and the third, ..."""
        rank = np.arange(len(self.rows)) - self.start
        by_rank = np.argsort(rank, kind="stable")
        cuts = np.searchsorted(rank[by_rank], np.arange(1, (int(rank.max()) if len(rank) else 0) + 2))
        for low, high in pairwise(cuts):
            places = by_rank[low:high]
            yield self.rows[places - 1], self.rows[places]
