"""Feast's online store over observation logs: what is served is what training rows are made of.

A view over one of our logs (`LogSource`, and all that `serving.feast_objects` makes) is evaluated when it is asked for, by the same
definition as offline; there is nothing to materialize, and rows come in through the log. Any other view gets a log of its own, to which `materialize`, `push`
and `write_to_online_store` append; what is served is the newest event in its newest revision, as long as its ttl.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel
from feast.utils import _get_table_entity_values
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import StrictStr

from serving.errors import OptionError
from serving.feast_support.declared import is_followed
from serving.feast_support.online_views import OnlineViews
from serving.feast_support.plain_logs import PlainLogs, Row, not_in
from serving.feast_support.types import decoded, encoder, is_opaque
from serving.online import Answer, AnsweredColumn, OnlineSettings

if TYPE_CHECKING:
    from feast import Entity, FeatureView
    from feast.repo_config import RepoConfig

    from serving.feast_support.sources import LogSource

_STATUS = {
    "present": FieldStatus.PRESENT,
    "null": FieldStatus.NULL_VALUE,
    "expired": FieldStatus.OUTSIDE_MAX_AGE,
    "retracted": FieldStatus.NOT_FOUND,
    "missing": FieldStatus.NOT_FOUND,
}


class AvailabilityOnlineStoreConfig(FeastConfigBaseModel):
    """`online_store` in `feature_store.yaml`."""

    type: Literal["serving.feast_online_store.AvailabilityOnlineStore"] = (
        "serving.feast_online_store.AvailabilityOnlineStore"
    )
    """Which store it is."""

    path: StrictStr = "data/online"
    """Folder of the logs of plain views; seen from the feature repository if relative."""

    clock_allowance: StrictStr = "250ms"
    """By how much our clock may be ahead of the clocks that stamp the rows of our own views' providers."""

    max_behind: StrictStr = "30s"
    """How far behind the log an answer may be."""

    redis_url: StrictStr | None = None
    """Where the online state is shared by several replicas, `redis://host:6379/0`; by default each keeps its own in memory."""


class AvailabilityOnlineStore(OnlineStore):
    """An online store whose answers are evaluated, at one instant, over what had arrived by then."""

    def __init__(self) -> None:
        self._opened: dict[tuple[str, str], tuple[PlainLogs, OnlineViews]] = {}

    # what Feast asks of a store

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Append rows to the log of a plain view; what the log has already is left out.

        Of a view over a provider's log nothing is written: what is materialized is there already.

        Raises:
            OptionError: If rows for a view over a provider's log are not in that log.
        """
        if not is_followed(table):
            self._parts(config)[0].write(table, data)
        elif data and (unknown := not_in(cast("LogSource", table.batch_source).open(config.repo_path), data)):
            raise OptionError(
                f"view {table.name!r} is read from the log of provider {cast('LogSource', table.batch_source).provider!r}, "
                f"which has not {unknown} of {len(data)} rows",
                "append them there: store.push(..., to=PushMode.OFFLINE), or log.append(frame).",
            )
        if progress is not None:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """The features of some entities now: per entity the newest event, and values by name; None where nothing is known."""
        if not entity_keys:
            return []
        names = list(requested_features or (field.name for field in table.features))
        answer = self._parts(config)[1].read([(table, names)], _columns(entity_keys))
        if answer is None:
            return [(None, None)] * len(entity_keys)
        columns = {column.name: column for column in answer.columns}
        found = [_feast_column(table, name, columns.get(f"{table.name}__{name}"), len(entity_keys)) for name in names]
        rows: list[tuple[datetime | None, dict[str, Value] | None]] = []
        for row in range(len(entity_keys)):
            if all(status[row] == FieldStatus.NOT_FOUND for _, status, _ in found):
                rows.append((None, None))
                continue
            newest = max((event for _, _, events in found if (event := events[row]) is not None), default=None)
            at = None if newest is None else datetime.fromtimestamp(newest / 1e6, UTC)
            rows.append((at, {name: values[row] for name, (values, _, _) in zip(names, found, strict=True)}))
        return rows

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],  # noqa: ARG002 - Feast's signature
        entities_to_keep: Sequence[Entity],  # noqa: ARG002
        partial: bool,  # noqa: ARG002, FBT001
    ) -> None:
        """Make the logs of plain views, delete those of views that are gone. Logs of providers are never touched."""
        logs, views = self._parts(config)
        for view in tables_to_delete:
            logs.drop(view.name)
        for view in tables_to_keep:
            if not is_followed(view):
                logs.prepare(view)
        views.forget()

    def teardown(
        self,
        config: RepoConfig,
        tables: Sequence[FeatureView],
        entities: Sequence[Entity],  # noqa: ARG002
    ) -> None:
        """Delete the logs of plain views. Logs of providers are never touched."""
        logs, views = self._parts(config)
        for view in tables:
            logs.drop(view.name)
        views.forget()

    async def close(self) -> None:
        """Stop following logs."""
        for _, views in self._opened.values():
            views.forget()

    # what one request asks of several views, at one instant

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: list[tuple[FeatureView, list[str]]],
        join_key_values: dict[str, list[Value]],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,  # noqa: FBT001 - Feast's signature
        include_feature_view_version_metadata: bool,  # noqa: FBT001
    ) -> None:
        """Feast's hook for stores that read several views at once."""
        height = max((len(values) for values in join_key_values.values()), default=1)
        together: dict[tuple[bool, tuple[str, ...]], list[int]] = {}
        for number, (view, _) in enumerate(grouped_refs):
            _check_keys(view, join_key_values, entity_name_to_join_key_map)
            renamed = tuple(sorted(f"{key} {alias}" for key, alias in view.projection.join_key_map.items()))
            together.setdefault((is_followed(view), renamed), []).append(number)
        answers: dict[int, Answer | None] = {}
        for numbers in together.values():
            asked = [grouped_refs[number] for number in numbers]
            entities: dict[str, list[Any]] = {}
            for view, _ in asked:
                values = _get_table_entity_values(view, entity_name_to_join_key_map, join_key_values)
                entities |= {
                    name: [decoded(value) for value in column]
                    for name, column in values.items()
                    if name != DUMMY_ENTITY_ID and name not in entities
                }
            answers |= dict.fromkeys(numbers, self._parts(config)[1].read(asked, entities))
        for number, (view, names) in enumerate(grouped_refs):
            _respond(online_features_response, view, names, answers[number], height, full_names=full_feature_names)
            if include_feature_view_version_metadata:
                _tell_version(online_features_response, view)

    def _parts(self, config: RepoConfig) -> tuple[PlainLogs, OnlineViews]:
        path = Path(config.online_store.path)
        root = path if path.is_absolute() or config.repo_path is None else Path(config.repo_path) / path
        key = (str(root), config.project)
        if key not in self._opened:
            options = config.online_store
            settings = OnlineSettings(clock_allowance=options.clock_allowance, max_behind=options.max_behind)
            logs = PlainLogs(root, config.project)
            self._opened[key] = (logs, OnlineViews(logs, settings, config.repo_path, redis_url=options.redis_url))
        return self._opened[key]


def _columns(keys: Sequence[EntityKey]) -> dict[str, list[Any]]:
    """Entity keys as columns."""
    names = [name for name in keys[0].join_keys if name != DUMMY_ENTITY_ID]
    rows = [dict(zip(key.join_keys, map(decoded, key.entity_values), strict=True)) for key in keys]
    return {name: [row[name] for row in rows] for name in names}


def _check_keys(view: FeatureView, given: Mapping[str, Sequence[Value]], keys: Mapping[str, str]) -> None:
    """Refuse a request that lacks an entity of a view.

    Raises:
        KeyError: As Feast's own stores do.
    """
    alias = view.projection.join_key_map
    missing = [
        key
        for entity in view.entities
        if (key := alias.get(keys[entity], keys[entity])) != DUMMY_ENTITY_ID and not given.get(key)
    ]
    if missing:
        raise KeyError(f"Missing join key values for keys: {missing}. No values provided for keys: {missing}.")


_FeastColumn = tuple[list[Value], list[Any], list[int | None]]
"""Values, statuses and event times in microseconds, one per row."""


def _feast_column(view: FeatureView, feature: str, found: AnsweredColumn | None, height: int) -> _FeastColumn:
    """A feature as Feast hands it out; of one that nothing is known of, nothing."""
    if found is None:
        return [Value()] * height, [FieldStatus.NOT_FOUND] * height, [None] * height
    dtype = next(field.dtype for field in view.features if field.name == feature)
    encode = encoder(dtype, opaque=is_opaque(dtype) and not is_followed(view))
    values, status = [encode(value) for value in found.values], [_STATUS[text] for text in found.status]
    events = list(found.events)
    if len(values) != height:  # one series for all
        return values * height, status * height, events * height
    return values, status, events


def _respond(
    response: GetOnlineFeaturesResponse,
    view: FeatureView,
    features: Sequence[str],
    answer: Answer | None,
    height: int,
    *,
    full_names: bool,
) -> None:
    """Add a view's features to Feast's response."""
    columns = {column.name: column for column in answer.columns} if answer is not None else {}
    shown = view.projection.name_to_use()
    for feature in features:
        response.metadata.feature_names.val.append(f"{shown}__{feature}" if full_names else feature)
        values, status, events = _feast_column(view, feature, columns.get(f"{view.name}__{feature}"), height)
        response.results.append(
            GetOnlineFeaturesResponse.FeatureVector(
                values=values, statuses=status, event_timestamps=[_timestamp(event) for event in events]
            )
        )


def _timestamp(us: int | None) -> Timestamp:
    return Timestamp() if us is None else Timestamp(seconds=us // 1_000_000, nanos=us % 1_000_000 * 1000)


def _tell_version(response: GetOnlineFeaturesResponse, view: FeatureView) -> None:
    name = view.projection.name_alias or view.projection.name
    if name not in [told.name for told in response.metadata.feature_view_metadata]:
        told = response.metadata.feature_view_metadata.add()
        told.name = name
        told.version = getattr(view, "current_version_number", 0) or 0
