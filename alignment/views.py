"""Views: observations and the features computed from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import polars as pl

from alignment.delays import DelayRule
from alignment.durations import Duration, DurationLike, parse_duration
from alignment.errors import ColumnTypeError, DuplicateColumnError, FeatureError, MissingColumnError, ViewError
from alignment.features import Age, Feature, Features, Forecast, Latest, SequenceOf, Window
from alignment.observations import FrameLike, Kind, Observations
from alignment.wallclock import check_zone

_ANY_TYPE = ("count", "first", "last")


class FeatureView:
    """Features of one provider's observations.

    Args:
        name: Prefix of its columns: `weather` gives `weather__temp`.
        entities: Entity key columns; `[]` for one series for all. May be left out where `observations` says it.
        observations: Polars eager or lazy, Arrow, pandas, a Parquet path, a log, or `Observations`.
        features: Declarations made by `latest`, `lag`, `window`, ...
        max_event_age: Oldest `t - event_time` of its `latest` features; exactly the limit is kept (R7).
        max_arrival_age: Oldest `t - arrival_time` of its `latest` features.
        max_issue_age: Oldest `t - issue_time` of its `latest` and `forecast` features; forecasts only.
        kind: `"measurement"` or `"forecast"`.
        zone: IANA zone in which `d` and `w` are calendar days (R15); None makes them 24 h.
        key: Columns of an id that the provider declares (R4).
        clock_tolerance: See `Observations`; default 5 s.
        delay: Rule that gives rows without arrival one (R13).
        derive: Row-wise derived columns, name to Polars expression (R22).
        entity_map: Spine column to observation column, e.g. `{"site": "station"}` (R21).

    Raises:
        ViewError: If the arguments do not fit each other.
        FeatureError: If a feature does not fit the view.
        DuplicateColumnError: If two features have one name.
        MissingColumnError: If a feature's column is not observed.
        ColumnTypeError: If a feature's column cannot be aggregated.
        DurationError: If a limit is not a duration.

    Example:
        >>> from datetime import UTC, datetime
        >>> from alignment.features import latest, window
        >>> frame = pl.DataFrame(
        ...     {
        ...         "station": ["a"],
        ...         "event_time": [datetime(2026, 1, 1, tzinfo=UTC)],
        ...         "arrival_time": [datetime(2026, 1, 1, 0, 30, tzinfo=UTC)],
        ...         "temp": [3.5],
        ...     }
        ... )
        >>> view = FeatureView("weather", ["station"], frame, [latest("temp"), window("temp", ["mean", "max"], "1h")])
        >>> view.column_names
        ['weather__temp', 'weather__temp_mean_1h', 'weather__temp_max_1h']
    """

    def __init__(
        self,
        name: str,
        entities: Sequence[str] | None = None,
        observations: FrameLike = None,
        features: Iterable[Features] = (),
        *,
        max_event_age: DurationLike | None = None,
        max_arrival_age: DurationLike | None = None,
        max_issue_age: DurationLike | None = None,
        kind: Kind | None = None,
        zone: str | None = None,
        key: Sequence[str] | None = None,
        clock_tolerance: DurationLike | None = None,
        delay: DelayRule | None = None,
        derive: Mapping[str, pl.Expr] | None = None,
        entity_map: Mapping[str, str] | None = None,
        on_tie: Literal["error", "last"] | None = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ViewError(f"name={name!r} is not a view's name", 'e.g. name="weather".')
        if observations is None:
            raise ViewError(f"view {name!r} has no observations", "pass observations=frame.")
        self.name = name
        self.place = f"the observations of view {name!r}"
        given = {
            "kind": kind,
            "key": key,
            "clock_tolerance": clock_tolerance,
            "delay": delay,
            "derive": derive,
            "on_tie": on_tie,
        }
        self.observations = self._observe(observations, entities, {k: v for k, v in given.items() if v is not None})
        self.zone = check_zone(zone)
        self.max_event_age = _limit(max_event_age, "max_event_age")
        self.max_arrival_age = _limit(max_arrival_age, "max_arrival_age")
        self.max_issue_age = _limit(max_issue_age, "max_issue_age")
        self.entity_map = self._check_entity_map(entity_map or {})
        self.features = tuple(_flatten(features, name))
        self._check_features()

    @property
    def kind(self) -> Kind:
        """`"measurement"` or `"forecast"`."""
        return self.observations.kind

    @property
    def spine_entities(self) -> list[str]:
        """The entity columns as the spine calls them, in the order of the observations'."""
        names = {observed: spine for spine, observed in self.entity_map.items()}
        return [names.get(name, name) for name in self.observations.entities]

    @property
    def column_names(self) -> list[str]:
        """The output columns, in order."""
        return [self.column_name(feature) for feature in self.features]

    def column_name(self, feature: Feature) -> str:
        """The output column of `feature`."""
        return f"{self.name}__{feature.name}"

    def column_type(self, feature: Feature) -> pl.DataType:
        """The type of a feature's output column."""
        if isinstance(feature, Age):
            return pl.Duration("us")
        observed = self.observations.schema[feature.column or ""]
        if isinstance(feature, SequenceOf):
            return pl.Array(observed, feature.length)
        if not isinstance(feature, Window) or feature.aggregate in ("first", "last", "min", "max"):
            return observed
        whole = feature.aggregate == "count" or (feature.aggregate == "sum" and not observed.is_float())
        return pl.Int64() if whole else pl.Float64()

    @property
    def columns_read(self) -> list[str]:
        """The observed columns that the features read, each once."""
        return list(dict.fromkeys(feature.column for feature in self.features if feature.column is not None))

    def limits(self, feature: Latest | Forecast) -> tuple[Duration | None, Duration | None, Duration | None]:
        """The age limits in force: on event, arrival and issue (R7)."""
        if isinstance(feature, Forecast):
            return None, None, feature.max_issue_age or self.max_issue_age
        return (
            feature.max_event_age or self.max_event_age,
            feature.max_arrival_age or self.max_arrival_age,
            feature.max_issue_age or self.max_issue_age,
        )

    def __repr__(self) -> str:
        return f"FeatureView({self.name!r}, {self.observations.entities}, {len(self.features)} features, kind={self.kind!r})"

    def _observe(self, frame: FrameLike, entities: Sequence[str] | None, given: dict[str, object]) -> Observations:
        if not isinstance(frame, Observations):
            return Observations(frame, entities, place=self.place, **given)  # type: ignore[arg-type]
        return frame.but(entities=entities, place=self.place, **given)

    def _check_entity_map(self, entity_map: Mapping[str, str]) -> dict[str, str]:
        for spine, observed in entity_map.items():
            if observed not in self.observations.entities:
                raise ViewError(
                    f"view {self.name!r}: entity_map[{spine!r}] names {observed!r}, which is no entity of the observations",
                    f"its entities are {self.observations.entities}; the map goes from spine column to observation column.",
                )
            if list(entity_map.values()).count(observed) > 1:
                raise ViewError(
                    f"view {self.name!r}: entity_map names {observed!r} more than once",
                    "leave one spine column for it.",
                )
        return dict(entity_map)

    def _check_features(self) -> None:
        if not self.features:
            raise ViewError(f"view {self.name!r} has no features", 'e.g. features=[al.latest("temp")].')
        seen: set[str] = set()
        for feature in self.features:
            if feature.name in seen:
                raise DuplicateColumnError(
                    f"view {self.name!r} has two features called {feature.name!r}", "pass name= to one of them."
                )
            seen.add(feature.name)
            self._check_feature(feature)
        if self.max_issue_age is not None and self.kind != "forecast":
            raise ViewError(
                f"view {self.name!r} has max_issue_age, but is not a forecast", 'say kind="forecast", or leave it out.'
            )

    def _check_feature(self, feature: Feature) -> None:
        where = f"feature {feature.name!r} of view {self.name!r}"
        if self.kind != "forecast":
            if isinstance(feature, Forecast):
                raise FeatureError(f"{where} asks for a forecast of measurements", 'say kind="forecast" on the view.')
            if isinstance(feature, Age) and feature.of == "issue_time":
                raise FeatureError(f"{where} asks for the issue of measurements", 'say kind="forecast" on the view.')
            if isinstance(feature, Window) and feature.offset.total_us < 0:
                raise FeatureError(
                    f"{where} looks past t in measurements, where nothing can be known",
                    'say kind="forecast", or use offset >= 0.',
                )
            if isinstance(feature, Latest) and feature.max_issue_age is not None:
                raise FeatureError(
                    f"{where} has max_issue_age, but the view is not a forecast", 'say kind="forecast" on the view.'
                )
        if feature.column is None:
            return
        schema = self.observations.schema
        if feature.column not in schema:
            is_log = self.observations.source is not None
            raise MissingColumnError(feature.column, self.place, self.observations.values, log=is_log)
        if isinstance(feature, Window) and feature.aggregate not in _ANY_TYPE:
            kind = schema[feature.column]
            if not (kind.is_integer() or kind.is_float() or kind == pl.Boolean):
                raise ColumnTypeError(
                    f"{where}: {feature.aggregate} of {feature.column!r} needs numbers or booleans, and it is {kind}",
                    f"count, first and last work for every type; or derive a number, e.g. "
                    f'derive={{"{feature.column}_number": pl.col("{feature.column}").cast(pl.Float64)}}.',
                )


def _flatten(features: Iterable[Features], name: str) -> list[Feature]:
    found: list[Feature] = []
    for item in [features] if isinstance(features, Feature) else features:
        for feature in item if isinstance(item, tuple | list) else (item,):
            if not isinstance(feature, Feature):
                raise ViewError(f"view {name!r}: {feature!r} is not a feature", 'e.g. al.latest("temp").')
            found.append(feature)
    return found


def _limit(value: DurationLike | None, what: str) -> Duration | None:
    return None if value is None else parse_duration(value, what)
