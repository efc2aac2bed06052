"""An observation log as a data source of Feast."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from feast import type_map
from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto

import ingestion
from serving.errors import OptionError

if TYPE_CHECKING:
    from feast.repo_config import RepoConfig
    from feast.value_type import ValueType

_CLASS = "serving.feast_support.sources.LogSource"
_TIMES = ("event_time", "arrival_time")


class LogSource(DataSource):
    """One provider's observation log, as Feast's registry keeps it.

    Events are `event_time`, and what Feast calls the created timestamp is `arrival_time`.

    Args:
        root: The folder or address that holds the logs. A relative folder is taken from the feature repository's.
        provider: The provider's name.
        storage_options: How to reach object storage. They are stored in Feast's registry, for all to read: secrets
            belong in the environment.
        name: The source's name; default the provider's.
        field_mapping: Columns of the log that have another name in Feast.
        description: For people.
        tags: For people and tools.
        owner: Who answers for it.

    Raises:
        OptionError: If root or provider is empty.

    Example:
        >>> source = LogSource(root="data/logs", provider="weather")
        >>> source.name, source.timestamp_field, source.created_timestamp_column
        ('weather', 'event_time', 'arrival_time')
    """

    def __init__(
        self,
        *,
        root: str,
        provider: str,
        storage_options: Mapping[str, str] | None = None,
        name: str | None = None,
        field_mapping: Mapping[str, str] | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str = "",
    ) -> None:
        if not root or not provider:
            raise OptionError(
                f"root={root!r}, provider={provider!r} name no log", 'e.g. LogSource(root="data", provider="weather")'
            )
        self.root = str(root)
        self.provider = provider
        self.storage_options = dict(storage_options or {})
        super().__init__(
            name=name or provider,
            timestamp_field=_TIMES[0],
            created_timestamp_column=_TIMES[1],
            field_mapping=dict(field_mapping or {}),
            description=description,
            tags=dict(tags or {}),
            owner=owner,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogSource) and super().__eq__(other) and self._configuration == other._configuration

    def __hash__(self) -> int:
        return hash((self.name, self.root, self.provider))

    @property
    def _configuration(self) -> dict[str, Any]:
        return {"root": self.root, "provider": self.provider, "storage_options": self.storage_options}

    def source_type(self) -> Any:
        """Feast's enumeration value for sources that it does not know."""
        return DataSourceProto.CUSTOM_SOURCE

    def root_in(self, repo_path: str | Path | None) -> str:
        """Where the logs are, seen from anywhere."""
        if repo_path is None or "://" in self.root or Path(self.root).is_absolute():
            return self.root
        return str(Path(repo_path) / self.root)

    def open(self, repo_path: str | Path | None) -> ingestion.ObservationLog:
        """The log.

        Args:
            repo_path: The feature repository's folder (`RepoConfig.repo_path`).

        Raises:
            LogNotFoundError: If there is none.
        """
        return ingestion.open_log(self.root_in(repo_path), self.provider, storage_options=self.storage_options or None)

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> LogSource:
        """The source that `to_proto` wrote."""
        options = json.loads(data_source.custom_options.configuration)
        return LogSource(
            root=options["root"],
            provider=options["provider"],
            storage_options=options["storage_options"],
            name=data_source.name,
            field_mapping=dict(data_source.field_mapping),
            description=data_source.description,
            tags=dict(data_source.tags),
            owner=data_source.owner,
        )

    def _to_proto_impl(self) -> DataSourceProto:
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type=_CLASS,
            field_mapping=self.field_mapping,
            custom_options=DataSourceProto.CustomSourceOptions(
                configuration=json.dumps(self._configuration, sort_keys=True).encode()
            ),
            timestamp_field=self.timestamp_field,
            created_timestamp_column=self.created_timestamp_column,
            description=self.description,
            tags=self.tags,
            owner=self.owner,
        )

    def validate(self, config: RepoConfig) -> None:
        """Refuse a log that is not there.

        Raises:
            LogNotFoundError: If there is none.
        """
        self.open(config.repo_path)

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """From the name of an Arrow type to Feast's."""
        return type_map.pa_to_feast_value_type

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        """The columns that a writer sends and the names of their Arrow types; arrivals are stamped by the log."""
        log = self.open(config.repo_path)
        schema = log.scan().collect_schema()
        times = [_TIMES[0], "issue_time"] if log.kind == "forecast" else [_TIMES[0]]
        return [(name, arrow_name(schema[name])) for name in dict.fromkeys([*log.entities, *times, *log.columns])]

    def get_table_query_string(self) -> str:
        """A name for messages: the log is no table of a database."""
        return f"{self.root.rstrip('/')}/{self.provider}"


def arrow_name(dtype: pl.DataType) -> str:
    """What Feast calls the Arrow type of a Polars type, e.g. `list<item: double>`."""
    field = pl.Series(dtype=dtype).to_arrow(compat_level=pl.CompatLevel.oldest()).type
    return str(field).replace("large_list", "list").replace("large_string", "string").replace("large_binary", "binary")
