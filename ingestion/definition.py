"""What a provider is: said once, kept in the table's own metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ingestion.errors import DefinitionError
from ingestion.instants import duration_us

Kind = Literal["measurement", "forecast"]
OnBadRow = Literal["quarantine", "raise"]

PROPERTY = "asknown.definition"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderDefinition:
    """How a provider's observations are to be read.

    Attributes:
        provider: Its name, also the name of the folder: letters, digits, `_`, `-`, `.`.
        entities: The columns that name the entity. Empty: one series for all.
        kind: `"measurement"` or `"forecast"`.
        key: Id columns of the provider, if it declares ids; then the key of a row is (entity, id) and `event_time` may move.
        clock_tolerance: How much later than its arrival an event may be and still be kept (R5).
        publish_margin: How far ahead of the clock a batch is stamped, so that the commit is done by then (R14).
        on_bad_row: What happens to rows that break R5 or have no key: `"quarantine"` or `"raise"`.
        drop_unchanged: Whether rows that repeat their key's current revision bit for bit are left out; of forecasts, their issue's.
        retention: Rows whose event is older may be retired; `None` keeps everything.
    """

    provider: str
    entities: tuple[str, ...]
    kind: Kind = "measurement"
    key: tuple[str, ...] | None = None
    clock_tolerance: str = "5s"
    publish_margin: str = "500ms"
    on_bad_row: OnBadRow = "quarantine"
    drop_unchanged: bool = False
    retention: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot mean anything.

        Raises:
            DefinitionError: If an argument is out of its range or does not fit another.
        """
        if not _NAME.fullmatch(self.provider):
            raise DefinitionError(
                "provider",
                f"provider={self.provider!r} is not a name",
                'use letters, digits, "_", "-" and ".", beginning with a letter or digit.',
            )
        _check_columns("entities", self.entities)
        _check_columns("key", self.key or ())
        if self.key is not None and (not self.key or set(self.key) & set(self.entities)):
            raise DefinitionError(
                "key",
                f"key={list(self.key)!r} must name columns besides the entities",
                'name the provider\'s id column: key=["id"], or leave key out.',
            )
        if self.kind not in ("measurement", "forecast"):
            raise DefinitionError("kind", f"kind={self.kind!r} is unknown", 'use "measurement" or "forecast".')
        if self.on_bad_row not in ("quarantine", "raise"):
            raise DefinitionError(
                "on_bad_row", f"on_bad_row={self.on_bad_row!r} is unknown", 'use "quarantine" or "raise".'
            )
        duration_us(self.clock_tolerance, "clock_tolerance")
        duration_us(self.publish_margin, "publish_margin")
        if self.retention is not None and duration_us(self.retention, "retention") == 0:
            raise DefinitionError("retention", "retention='0s' would keep nothing", 'say how long: retention="365d".')

    @property
    def key_columns(self) -> list[str]:
        """The columns whose values say which revisions belong together, without the issue."""
        return [*self.entities, *(self.key or ("event_time",))]

    @property
    def revision_columns(self) -> list[str]:
        """The key with the issue, where there are issues."""
        return [*self.key_columns, "issue_time"] if self.kind == "forecast" else self.key_columns

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain values."""
        plain = asdict(self)
        plain["entities"] = list(self.entities)
        plain["key"] = list(self.key) if self.key is not None else None
        return plain

    def to_json(self) -> str:
        """The definition as one line."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ProviderDefinition:
        """The definition that `to_json` wrote; what a later release added is ignored."""
        plain = {name: value for name, value in json.loads(text).items() if name in cls.__slots__}
        plain["entities"] = tuple(plain["entities"])
        plain["key"] = tuple(plain["key"]) if plain.get("key") is not None else None
        return cls(**plain)


FIXED = ("provider", "entities", "kind", "key")
"""What the rows of a log are by; it cannot change once there is a log."""


def redefine(definition: ProviderDefinition, changes: Mapping[str, Any]) -> ProviderDefinition:
    """The definition with some settings changed.

    Raises:
        DefinitionError: If a change is to what rows are by, or to nothing there is.
    """
    for name in changes:
        if name in FIXED or name not in definition.to_dict():
            raise DefinitionError(
                name,
                f"provider {definition.provider!r}: {name} cannot be changed",
                "what rows are by stays; make a new log for another key, and load the rows into it.",
            )
    return replace(definition, **changes)


def refused_name(columns: Iterable[str]) -> tuple[str, str] | None:
    """The first column that no log can have, and why; None if there is none.

    Args:
        columns: Entities and values; the log's own names may be among them.

    Example:
        >>> refused_name(["temp", "Temp"])
        ('Temp', "'Temp' and 'temp' differ in case alone, which Delta does not tell apart")
    """
    known = {name.lower(): name for name in SYSTEM_NAMES}
    for name in columns:
        if name.startswith("@"):
            return name, f'{name!r} begins with "@", as columns of a join\'s own do'
        other = known.setdefault(name.lower(), name)
        if other != name:
            return name, f"{name!r} and {other!r} differ in case alone, which Delta does not tell apart"
    return None


def _check_columns(argument: str, columns: Sequence[str]) -> None:
    refused = refused_name(columns)
    if refused is not None:
        raise DefinitionError(argument, f"{argument}={list(columns)!r}: {refused[1]}", "choose another name.")
    if len(set(columns)) != len(columns) or any(not name or name in SYSTEM_NAMES for name in columns):
        raise DefinitionError(
            argument,
            f"{argument}={list(columns)!r} repeats a name or uses one of the log's own",
            f"choose names other than {', '.join(sorted(SYSTEM_NAMES))}.",
        )


SYSTEM_NAMES = frozenset(
    {
        "event_time",
        "arrival_time",
        "received_time",
        "published_time",
        "issue_time",
        "arrival_kind",
        "is_retraction",
        "log_sequence",
        "batch_id",
        "record_kind",
        "record_detail",
    }
)
"""The columns that every log has; no entity or value may be called so."""
