"""A provider, declared once: who sends what, from where, when, under which contract."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from polars import DataType, String
from pydantic import Field, ValidationError, model_validator

from alignment import DelayRule, FixedDelay, PublishSchedule
from alignment.errors import AlignmentError
from ingestion.definition import Kind, ProviderDefinition
from ingestion.errors import DefinitionError, LogNotFoundError, ProviderError, SchemaChangeError
from ingestion.instants import Clock, duration_us
from ingestion.log import ObservationLog, create_log, open_log
from ingestion.providers.contract import Contract
from ingestion.providers.declaration import Declaration, Duration, PositiveDuration
from ingestion.providers.dtypes import dtype_text
from ingestion.providers.explaining import explained
from ingestion.providers.push_source import PushSource
from ingestion.providers.schedule import Schedule, Timetable
from ingestion.providers.sources import POLLED, SourceConfig
from ingestion.sources.base import Source
from ingestion.sources.brokers import BrokerSource, MqttSource, NatsSource
from ingestion.sources.layout import Layout
from ingestion.sources.python import PythonSource

_REDEFINABLE = ("clock_tolerance", "publish_margin", "retention", "drop_unchanged")
_MISSED = 3
"""How many polls or cadences without a sign of life make a provider that did not say `down_after` overdue."""


class Publication(Declaration):
    """History that was published at a time of day; the day is that of the event, or of the issue, in the zone.

    Attributes:
        at: The time of day, `"06:00"`.
        zone: IANA zone.
        days: How many days later.
    """

    at: str
    zone: str
    days: int = 1


class Alerts(Declaration):
    """What is told when it goes wrong, once per incident.

    Attributes:
        overdue: Nothing has come for `down_after`.
        delay_quantile: Rows are later than this quantile of the usual delay; `None` tells nothing of delays.
        quarantine_rate: More than this share of a batch's rows is set aside; `None` tells nothing of it.
        schema_changes: Columns are new, lost, or of another type.
        shifts: A column's distribution is not that of its recent past.
    """

    overdue: bool = True
    delay_quantile: Annotated[float, Field(gt=0, lt=1)] | None = 0.99
    quarantine_rate: Annotated[float, Field(ge=0, le=1)] | None = 0.05
    schema_changes: bool = True
    shifts: bool = True


class Provider(Declaration):
    """A provider of observations.

    Attributes:
        name: Its name, and that of its log.
        description: What it is, for people.
        entities: The columns that name the entity; empty for one series.
        key: The provider's id columns, if it declares ids: then `event_time` may move.
        kind: `measurement` or `forecast`.
        state: `rows`: it sends rows. `whole`: it sends its whole current state, and what is missing there no longer exists.
        window: Of a whole state, how far back it reaches; older events that are missing just left the window.
        contract: What its rows must look like.
        source: Where they come from; `None`: rows are appended by somebody else.
        schedule: When it is polled.
        history: How late rows of unknown arrival were (R13): a fixed delay such as `"45m"`, or a time of day.
        cadence: How often it sends, for what status and alerts call late.
        expected_delay: How late after their event rows usually arrive.
        down_after: Without a sign of life for so long, it is down (R20).
        retention: Rows whose event is older may be retired.
        clock_tolerance: How much later than its arrival an event may be (R5).
        publish_margin: How far ahead of the clock batches are stamped (R14).
        drop_unchanged: Leave out rows that repeat their key's current revision. `None`: so for whole states and for sources
            that repeat themselves (files, HTTP, SQL, MQTT), not for others.
        alerts: What is told when it goes wrong.
    """

    name: str
    description: str | None = None
    entities: tuple[str, ...]
    key: tuple[str, ...] | None = None
    kind: Kind = "measurement"
    state: Literal["rows", "whole"] = "rows"
    window: PositiveDuration | None = None
    contract: Contract = Field(default_factory=Contract)
    source: SourceConfig | None = None
    schedule: Schedule | None = None
    history: PositiveDuration | Publication | None = None
    cadence: PositiveDuration | None = None
    expected_delay: Duration | None = None
    down_after: PositiveDuration | None = None
    retention: PositiveDuration | None = None
    clock_tolerance: Duration = "5s"
    publish_margin: Duration = "500ms"
    drop_unchanged: bool | None = None
    alerts: Alerts = Field(default_factory=Alerts)

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        """Refuse what does not fit together.

        Raises:
            ValueError: If it does not.
        """
        polled = self.source is not None and self.source.kind in POLLED
        if self.window is not None and self.state != "whole":
            raise ValueError('window is for whole states; say state="whole", or leave it out.')
        if self.schedule is not None and not polled:
            what = f"a source of kind {self.source.kind!r}" if self.source else "a provider without a source"
            raise ValueError(f"schedule is for polling, and {what} is not polled; leave it out.")
        if self.state == "whole" and not polled:
            raise ValueError('state="whole" is for sources that are polled: files, http, sql, python.')
        problem = getattr(self.source, "whole_state_problem", None)
        if self.state == "whole" and problem is not None:
            raise ValueError(f"a whole state must come whole, and its source {problem}")
        if self.state == "whole" and self.contract.updates == "columns":
            raise ValueError('a whole state has whole rows; leave out updates="columns".')
        try:
            self.definition()
            self.delay_rule()
        except (DefinitionError, AlignmentError) as error:
            raise ValueError(str(error).replace("\n\nhint: ", "; ")) from error
        return self

    if not TYPE_CHECKING:  # type checkers know the fields

        def __init__(self, **declared: Any) -> None:
            """Check a declaration.

            Raises:
                ProviderError: If it means nothing; it names the field, the value and what to write.
            """
            try:
                super().__init__(**declared)
            except ValidationError as error:
                raise ProviderError(*explained(error, Provider, f"provider {declared.get('name', '?')!r}")) from None

    @property
    def polled(self) -> bool:
        """Whether somebody must go and fetch its rows."""
        return self.source is not None and self.source.kind in POLLED

    @property
    def drops_unchanged(self) -> bool:
        """Whether rows that repeat their key's current revision are left out."""
        if self.drop_unchanged is not None:
            return self.drop_unchanged
        repeats = self.source is not None and self.source.kind in {"files", "http", "sql", "mqtt"}
        return repeats or self.state == "whole"

    @property
    def silent_after(self) -> timedelta | None:
        """How long without a sign of life makes it overdue: `down_after`, or three cadences or polls; `None` if nobody said."""
        if self.down_after is not None:
            return timedelta(microseconds=duration_us(self.down_after, "down_after"))
        if self.cadence is None and self.schedule is not None:
            return _MISSED * self.schedule.longest_gap()
        return _MISSED * timedelta(microseconds=duration_us(self.cadence, "cadence")) if self.cadence else None

    def timetable(self) -> Timetable | None:
        """When it is polled next; `None` if it has no schedule."""
        return Timetable(self.schedule, self.name) if self.schedule is not None else None

    def delay_rule(self) -> DelayRule | None:
        """How late its history was, for a backfill; `None` if nobody said."""
        if isinstance(self.history, Publication):
            return PublishSchedule(at=self.history.at, zone=self.history.zone, days=self.history.days)
        return FixedDelay(self.history) if self.history is not None else None

    def definition(self) -> ProviderDefinition:
        """What its log keeps of it.

        Raises:
            DefinitionError: If an argument is out of its range.
        """
        return ProviderDefinition(
            provider=self.name,
            entities=self.entities,
            kind=self.kind,
            key=self.key,
            clock_tolerance=self.clock_tolerance,
            publish_margin=self.publish_margin,
            drop_unchanged=self.drops_unchanged,
            retention=self.retention,
        )

    def dtypes(self) -> dict[str, DataType]:
        """The types of entity and value columns that a new log is made with; empty if the contract has no columns."""
        if not self.contract.columns:
            return {}
        keys: dict[str, DataType] = {name: String() for name in (*self.entities, *(self.key or ()))}
        return {**keys, **self.contract.dtypes}

    @property
    def layout(self) -> Layout:
        """How the rows that it sends are laid out."""
        layout = self.marking(getattr(self.source, "layout", None)) or Layout()
        key = (*self.entities, *(self.key or ("event_time",)))
        lost = tuple(self.contract.columns) if self.contract.on_lost_column == "null" else ()
        return layout.model_copy(update={"optional": layout.optional + lost, "required": layout.required + key})

    def marking(self, layout: Layout | None) -> Layout | None:
        """A layout under which rows tell what they lack, if the contract's `updates` make a difference of that."""
        if self.contract.updates != "columns":
            return layout
        return (layout or Layout()).model_copy(update={"mark_absent": True})

    def open_source(self, environment: Mapping[str, str]) -> Source:
        """Its source, ready to be polled.

        Raises:
            ProviderError: If it is not polled.
            SourceError: If it cannot be opened, e.g. because an environment variable is not set.
        """
        if self.source is None or isinstance(self.source, PushSource | NatsSource | MqttSource | BrokerSource):
            raise ProviderError(f"provider {self.name!r}", "it has no source that can be polled", "declare a source.")
        if isinstance(self.source, PythonSource):
            return self.source.open(self.name, environment)
        return self.source.model_copy(update={"layout": self.layout}).open(self.name, environment)

    def open(
        self,
        root: str | os.PathLike[str],
        *,
        storage_options: dict[str, str] | None = None,
        clock: Clock | None = None,
    ) -> ObservationLog:
        """Its log, made on first use with the contract's types.

        Columns that were declared since are added; a type that became wider widens the log's.

        Args:
            root: The folder or address that holds the logs.
            storage_options: Passed through to `deltalake` and Polars.
            clock: Something that tells now; the system's clock if `None`.

        Raises:
            ProviderError: If the log is another provider's: of other entities, key, kind, or types.
            CommitError: If other commits kept coming first.
        """
        try:
            log = open_log(root, self.name, storage_options=storage_options, clock=clock)
        except LogNotFoundError:
            wanted = self.definition()
            log = create_log(
                root,
                self.name,
                entities=wanted.entities,
                kind=wanted.kind,
                key=wanted.key,
                schema=self.dtypes() or None,
                clock_tolerance=wanted.clock_tolerance,
                publish_margin=wanted.publish_margin,
                drop_unchanged=wanted.drop_unchanged,
                retention=wanted.retention,
                storage_options=storage_options,
                clock=clock,
                exist_ok=True,
            )
        self._check_identity(log)
        self._redefine(log)
        self._check_columns(log)
        return log

    def _check_identity(self, log: ObservationLog) -> None:
        """Refuse a log whose rows mean something else.

        Raises:
            ProviderError: If entities, key or kind differ.
        """
        declared, stored = self.definition(), log.definition
        for field in ("entities", "key", "kind"):
            here, there = getattr(declared, field), getattr(stored, field)
            if here != there:
                raise ProviderError(
                    f"provider {self.name!r}: {field}",
                    f"declared as {_shown(here)}, but its log at {log.address!r} was made with {_shown(there)}",
                    "these cannot change in a log; declare it as it was, or give the provider another name.",
                )

    def _redefine(self, log: ObservationLog) -> None:
        """Make the log's settings those that are declared."""
        declared, stored = self.definition(), log.definition
        changes = {
            field: getattr(declared, field)
            for field in _REDEFINABLE
            if getattr(declared, field) != getattr(stored, field)
        }
        if changes:
            log.redefine(**changes)

    def _check_columns(self, log: ObservationLog) -> None:
        """Add columns that the log lacks, widen those that are too narrow.

        Raises:
            ProviderError: If a type is another one.
        """
        if not self.contract.columns:
            return
        columns = log.columns
        former = log.former_names()
        for name, dtype in self.dtypes().items():
            if name in former and name not in columns:
                raise ProviderError(
                    f"provider {self.name!r}: contract.columns.{name}",
                    f"its log calls the column {former[name]!r} now",
                    f"rename it in the contract: {former[name]}.",
                )
            if name not in columns:
                log.add_column(name, dtype)
            elif columns[name] != dtype:
                self._widen(log, name, columns[name], dtype)

    def _widen(self, log: ObservationLog, name: str, old: DataType, new: DataType) -> None:
        """Give a column of the log the wider type that is declared.

        Raises:
            ProviderError: If it is no wider one.
        """
        wrong = ProviderError(
            f"provider {self.name!r}: contract.columns.{name}",
            f"declared as {dtype_text(new)}, but its log has {dtype_text(old)}",
            "declare the log's type, or send the values under a new name.",
        )
        if not (old.is_numeric() and new.is_numeric()):
            raise wrong
        try:
            log.widen_column(name, new)
        except SchemaChangeError as error:
            raise wrong from error


def _shown(value: object) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)
