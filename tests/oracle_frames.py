"""From frames and public declarations to the rows and features of `oracle.py`.

What a view says is passed a second time, as a `Source`, so that the oracle never reads the product's own idea of it; of
the public feature objects only the declared fields are read, durations from their text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import oracle
import polars as pl
from oracle_clock import Span, micros_of, move, span

import alignment as al

RESERVED = (
    "event_time",
    "arrival_time",
    "issue_time",
    "is_retraction",
    "log_sequence",
    "arrival_kind",
    "published_time",
)
FLOATS = (pl.Float32, pl.Float64)


@dataclass(frozen=True)
class Source:
    """One view, as the tests declare it: what `al.FeatureView` is given, and what the oracle is given."""

    name: str
    frame: pl.DataFrame
    entities: tuple[str, ...]
    features: tuple[Any, ...]
    kind: str = "measurement"
    key: tuple[str, ...] | None = None
    zone: str | None = None
    clock_tolerance: str = "5s"
    on_tie: str = "error"
    max_event_age: str | None = None
    max_arrival_age: str | None = None
    max_issue_age: str | None = None
    derive: dict[str, pl.Expr] = field(default_factory=dict)
    entity_map: dict[str, str] = field(default_factory=dict)  # spine column -> observation column
    column_since: dict[str, int] = field(default_factory=dict)

    @property
    def view(self) -> oracle.View:
        """What the rules need of it."""
        return oracle.View(kind=self.kind, zone=self.zone, column_since=self.column_since)


def flat(features: Iterable[Any]) -> list[Any]:
    """Declared features, lists of them opened, in declared order."""
    found: list[Any] = []
    for feature in features:
        found += feature if isinstance(feature, tuple) else [feature]
    return found


def rows_of(source: Source) -> list[oracle.Row]:
    """The observations of a source as rows, instants in microseconds, ties settled as R17 says."""
    frame = source.frame.with_columns(**source.derive)
    sequenced = "log_sequence" in frame.columns
    values = [name for name in frame.columns if name not in (*source.entities, *RESERVED)]
    instants = {name: micros(frame[name]) for name in ("event_time", "arrival_time", "issue_time") if name in frame}
    rows: list[oracle.Row] = []
    for place, row in enumerate(frame.iter_rows(named=True)):
        event, given = instants["event_time"][place], instants["arrival_time"][place]
        assert given is not None
        arrival = given
        gone = bool(row.get("is_retraction"))  # R3: null means false
        if source.kind == "measurement" and event is not None and event > arrival:
            assert move(event, -span(source.clock_tolerance, None), None) <= arrival
            arrival = event  # R5: kept with arrival raised to the event
        issue = None
        if source.kind == "forecast":  # R2: without issue_time each arrival is its own issue
            issue = instants["issue_time"][place] if "issue_time" in frame else None if gone else arrival
        rows.append(
            {
                "entity": tuple(row[name] for name in source.entities),
                "event": event,
                "arrival": arrival,
                "given": given,
                "issue": issue,
                "gone": gone,
                "sequence": row["log_sequence"] if sequenced else 0,
                "place": 0 if sequenced else place,
                "id": tuple(row[name] for name in source.key) if source.key else None,
                "values": {name: row[name] for name in values},
            }
        )
    return rows if sequenced else settle(rows, source)


def settle(rows: list[oracle.Row], source: Source) -> list[oracle.Row]:
    """R17: without log_sequence equal rows of one (key, arrival) collapse, differing ones raise or the last one wins."""
    kept: dict[Any, list[oracle.Row]] = {}
    for row in rows:
        about = (row["entity"], oracle.subject(row), row["given"])
        same = kept.setdefault(about, [])
        same[:] = [other for other in same if not equal(row, other)]
        same.append(row)
    for same in kept.values():
        issues = [row["issue"] for row in same]
        clash = len(set(issues)) < len(issues) or (len(issues) > 1 and None in issues)
        assert not clash or source.on_tie == "last", "ambiguous revisions: the test should expect an error"
    settled = [row for same in kept.values() for row in same]
    if source.on_tie == "error":
        for row in settled:
            row["place"] = 0  # nothing but arrivals (and ids) orders them
    return settled


def equal(row: oracle.Row, other: oracle.Row) -> bool:
    """Whether two rows agree in all columns; NaN equals NaN, null equals null."""
    same = {name: value for name, value in row.items() if name != "place"}
    return repr(same) == repr({name: value for name, value in other.items() if name != "place"})


def micros(instants: pl.Series) -> list[int | None]:
    """R15: UTC microseconds; of nanoseconds the next one (arrivals and events round up)."""
    unit = instants.dtype.time_unit  # type: ignore[attr-defined]
    numbers = instants.to_physical().to_list()
    if unit == "us":
        return numbers
    if unit == "ms":
        return [None if number is None else number * 1000 for number in numbers]
    return [None if number is None else -(-number // 1000) for number in numbers]


def spec_of(feature: Any, source: Source) -> oracle.Feature:
    """The oracle's declaration of a public feature; a view's age limits are the default of `latest` and `forecast`."""
    zone = source.zone

    def spanned(duration: Any) -> Span | None:
        return None if duration is None else span(duration.text, zone)

    def limit(own: Any, of_view: str | None) -> Span | None:
        return spanned(own) if own is not None else None if of_view is None else span(of_view, zone)

    what = type(feature).__name__.lower().removesuffix("of")
    common: dict[str, Any] = {"name": f"{source.name}__{feature.name}", "column": feature.column}
    if feature.column is not None:
        common["dtype"] = kind_of(source.frame.with_columns(**source.derive).schema[feature.column])
    if what == "latest":
        return oracle.Feature(
            "latest",
            **common,
            skip_null=feature.skip_null,
            max_event_age=limit(feature.max_event_age, source.max_event_age),
            max_arrival_age=limit(feature.max_arrival_age, source.max_arrival_age),
            max_issue_age=limit(feature.max_issue_age, source.max_issue_age),
        )
    if what == "lag":
        return oracle.Feature("lag", **common, by=span(feature.by.text, zone), tolerance=spanned(feature.tolerance))
    if what == "window":
        return oracle.Feature(
            "window",
            **common,
            aggregate=feature.aggregate,
            length=span(feature.length.text, zone),
            offset=span(feature.offset.text, zone),
        )
    if what == "forecast":
        return oracle.Feature(
            "forecast",
            **common,
            lead=span(feature.lead.text, zone),
            tolerance=spanned(feature.tolerance),
            min_notice=spanned(feature.min_notice),
            max_issue_age=limit(feature.max_issue_age, source.max_issue_age),
        )
    if what == "sequence":
        return oracle.Feature(
            "sequence",
            **common,
            slots=feature.length,
            step=spanned(feature.step),
            max_span=spanned(feature.max_span),
        )
    assert what == "age"
    return oracle.Feature(feature.of.removesuffix("_time") + "_age", **common)


def kind_of(dtype: pl.DataType) -> str:
    """Which arithmetic a column has."""
    if dtype in FLOATS:
        return "float"
    if dtype.is_integer():
        return "int"
    return "bool" if dtype == pl.Boolean else "other"


def answers(
    spine: pl.DataFrame,
    sources: Sequence[Source],
    *,
    as_of: Any = None,
    positions: dict[str, int] | None = None,
    prediction_time: str = "prediction_time",
    move: Callable[[list[oracle.Row], Source], list[oracle.Row]] | None = None,
) -> dict[str, list[oracle.Answer]]:
    """What a join should give: for every feature column, one answer per spine row (R21: one by one, in order).

    `move` gives the rows of a source other arrivals (R23).
    """
    found: dict[str, list[oracle.Answer]] = {}
    instants = [number // 1000 for number in spine[prediction_time].dt.cast_time_unit("ns").to_physical().to_list()]
    keys = spine.to_dicts()
    for source in sources:
        rows = rows_of(source) if move is None else move(rows_of(source), source)
        for feature in flat(source.features):
            spec = spec_of(feature, source)
            column = found.setdefault(spec.name, [])
            for t, key in zip(instants, keys, strict=True):
                back = {own: theirs for theirs, own in source.entity_map.items()}
                entity = tuple(key[back.get(name, name)] for name in source.entities)
                if None in entity:  # R21: a null key gets `missing`
                    nothing = 0 if spec.aggregate == "count" else [None] * spec.slots if spec.slots else None
                    column.append(oracle.Answer(nothing, "missing"))
                    continue
                column.append(
                    oracle.answer(
                        rows,
                        source.view,
                        spec,
                        entity,
                        t,
                        as_of=None if as_of is None else micros_of(as_of),
                        position=(positions or {}).get(source.name),
                    )
                )
    return found


def view_of(source: Source, frame: Any = None, **more: Any) -> al.FeatureView:
    """The public view of a source, over `frame` if given (a log, a lazy frame, shuffled rows)."""
    observations = source.frame if frame is None else frame
    arguments: dict[str, Any] = {"kind": source.kind, "zone": source.zone, "clock_tolerance": source.clock_tolerance}
    arguments |= {"on_tie": source.on_tie}
    arguments |= {"key": list(source.key)} if source.key else {}
    arguments |= {"derive": source.derive} if source.derive else {}
    arguments |= {"entity_map": source.entity_map} if source.entity_map else {}
    for name in ("max_event_age", "max_arrival_age", "max_issue_age"):
        if getattr(source, name) is not None:
            arguments[name] = getattr(source, name)
    return al.FeatureView(
        source.name,
        entities=list(source.entities),
        observations=observations,
        features=list(source.features),
        **(arguments | more),
    )
