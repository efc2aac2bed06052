"""An offline store for Feast that answers with what had arrived.

In `feature_store.yaml`:

    offline_store:
        type: serving.feast_offline_store.AvailabilityOfflineStore
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import polars as pl
import pyarrow as pa
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from pydantic import StrictBool, StrictStr, field_validator

from serving.errors import OptionError
from serving.feast_support import writing
from serving.feast_support.entity_frames import Asked, one_instant, query_entities, read_entities
from serving.feast_support.evaluating import evaluate
from serving.feast_support.jobs import AvailabilityRetrievalJob
from serving.feast_support.pulling import pull_all, pull_latest
from serving.feast_support.reading import arrow_table
from serving.feast_support.requested import Requested, known_entities, requested
from serving.feast_support.translated import Range, Rules, Translated, feature_view

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.data_source import DataSource
    from feast.feature_logging import LoggingConfig, LoggingSource
    from feast.infra.registry.base_registry import BaseRegistry

ENGINES: Final = ("local", "duckdb")
"""Those of `alignment` that run where Feast does."""


class AvailabilityOfflineStoreConfig(FeastConfigBaseModel):
    """What `offline_store` may say in `feature_store.yaml`.

    Attributes:
        type: This store's class.
        arrival: Whether a row counts only once it had arrived (`created_timestamp_column`). `false` is Feast's own meaning:
            events alone decide, and what was created last breaks ties. What was declared with `alignment` counts by arrival in
            any case.
        unknown_arrival: What becomes of a view whose source has neither a `created_timestamp_column` nor the tag `asknown.delay`:
            its rows count from their `event`, with a warning (Feast's own cut-off leaves such views as they are), or it is
            an `error`. A null in the column is an error in any case.
        engine: What evaluates: `local` or `duckdb`.
        on_tie: What becomes of different rows of one entity, event and arrival: the `last` in the file wins, or an `error`.
    """

    type: StrictStr = "serving.feast_offline_store.AvailabilityOfflineStore"
    arrival: StrictBool = True
    unknown_arrival: Literal["event", "error"] = "event"
    engine: StrictStr = "local"
    on_tie: Literal["last", "error"] = "last"

    @field_validator("engine")
    @classmethod
    def _check_engine(cls, engine: str) -> str:
        if engine not in ENGINES:
            raise ValueError(f"no engine is called {engine!r}; choose from {', '.join(ENGINES)}")
        return engine


class AvailabilityOfflineStore(OfflineStore):
    """Feast's offline store under the rules of arrival.

    Reads Parquet and Delta file sources, and observation logs (`serving.feast_support.sources.LogSource`).
    """

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
        *,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        """The features of every row of an entity frame, from the rows that had arrived by its time.

        Args:
            config: Feast's configuration.
            feature_views: The views that are asked about.
            feature_refs: `view:feature` for each feature.
            entity_df: Entity columns and prediction times: pandas, Arrow, Polars, or SQL. None for every entity that has an
                event between `start_date` and `end_date`, as it was known at `end_date`.
            registry: Feast's registry.
            project: Feast's project.
            full_feature_names: Whether to put `view__` before each name.
            start_date: See `entity_df`.
            end_date: See `entity_df`.
            filter_by_created_timestamp: Count by arrival in this question even if the configuration says `arrival: false`;
                views whose sources do not say when rows arrived are then left as they are.

        Returns:
            A job; its rows are those of the entity frame, in its order, with one column per feature.

        Raises:
            OptionError: If a source cannot be read, or does not say when its rows arrived.
            AlignmentError: If rows or keys cannot be used.
        """
        rules = _rules(config, by_arrival=filter_by_created_timestamp)
        repo_path = config.repo_path
        wanted = requested(feature_views, feature_refs, full_feature_names=full_feature_names)
        if entity_df is None:
            asked = one_instant(*known_entities(feature_views, start_date, end_date, rules, repo_path))
        elif isinstance(entity_df, str):
            sources = registry.list_data_sources(project, allow_cache=True)
            asked = query_entities(entity_df, sources, repo_path)
        else:
            asked = read_entities(entity_df)
        _check_names(wanted, asked)
        views = _translate(wanted, asked, rules, repo_path)
        return AvailabilityRetrievalJob(
            lambda: _answer(wanted, views, asked, rules),
            repo_path=repo_path,
            full_feature_names=full_feature_names,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in asked.table.column_names if name != asked.time],
                min_event_timestamp=asked.first,
                max_event_timestamp=asked.last,
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """For each entity with a row that first counted in `[start_date, end_date]`, the row current at `end_date`."""
        return AvailabilityRetrievalJob(
            lambda: pull_latest(
                data_source,
                join_key_columns,
                feature_name_columns,
                event=timestamp_field,
                created=created_timestamp_column or None,
                start=start_date,
                end=end_date,
                rules=_rules(config),
                repo_path=config.repo_path,
            ),
            repo_path=config.repo_path,
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """The rows that first counted in `[start_date, end_date]`, and what is current at its end of the entities they are of.

        Without a created timestamp the window is one of events.
        """
        return AvailabilityRetrievalJob(
            lambda: pull_all(
                data_source,
                join_key_columns,
                feature_name_columns,
                event=timestamp_field,
                created=created_timestamp_column or None,
                start=start_date,
                end=end_date,
                rules=_rules(config),
                repo_path=config.repo_path,
            ),
            repo_path=config.repo_path,
        )

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Append rows to a view's batch source; a log stamps their arrival."""
        writing.append(config, feature_view, table)
        if progress is not None:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,  # noqa: ARG004 - Feast's signature
        logging_config: LoggingConfig,
        registry: BaseRegistry,  # noqa: ARG004
    ) -> None:
        """Add served features to their log."""
        writing.write_log(data, logging_config.destination, config.repo_path)


def _rules(config: RepoConfig, *, by_arrival: bool = False) -> Rules:
    own: AvailabilityOfflineStoreConfig = config.offline_store
    told: Literal["warn", "error"] = "error" if own.unknown_arrival == "error" else "warn"
    return Rules(
        arrival=own.arrival or by_arrival,
        unknown=told if own.arrival else "silent",
        on_tie=own.on_tie,
        engine=own.engine,
    )


def _check_names(wanted: list[Requested], asked: Asked) -> None:
    for item in wanted:
        for name in item.columns.values():
            if name in asked.table.column_names:
                raise OptionError(
                    f"the entity frame has a column {name!r}, and so has the result",
                    "rename it, or pass full_feature_names=True.",
                )


def _translate(wanted: list[Requested], asked: Asked, rules: Rules, repo_path: Path | None) -> list[Translated]:
    if asked.first is None or asked.last is None:
        return []
    rows = Range(asked.last, asked.first)
    return [
        feature_view(item.view, list(item.columns), rules=rules, asked=rows, repo_path=repo_path) for item in wanted
    ]


def _answer(wanted: list[Requested], views: list[Translated], asked: Asked, rules: Rules) -> pa.Table:
    table = asked.table
    answers = evaluate(views, asked, engine=rules.engine) if views else _nothing(wanted)
    for item, columns in zip(wanted, answers, strict=True):
        found = arrow_table(columns)
        for name, values in zip(item.columns.values(), found.columns, strict=True):
            table = table.append_column(name, values)
    return table


def _nothing(wanted: list[Requested]) -> list[list[pl.Series]]:
    """The answer to no rows."""
    return [[pl.Series(name, dtype=pl.Null) for name in item.columns] for item in wanted]
