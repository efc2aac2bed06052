"""What a contender is asked. Standard library only: workers of every environment read this file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Question:
    """One question about one data set.

    Attributes:
        kind: `latest`, `windows`, `snapshot` or `training_set`.
        observations: Parquet file, or a folder of them.
        spine: Parquet file with the entity columns, `prediction_time` and `row`; empty for a snapshot.
        entities: Entity columns.
        columns: Value columns to answer for; of `windows` the first alone is aggregated.
        aggregates: For `windows`: of `count`, `sum`, `mean`, `std`, `min`, `max`.
        minutes: For `windows`: the length; events in `(t - length, t]`.
        ttl_hours: For `latest`: events older than this are null; 0 for no limit.
        views: For `latest` asked through a feature store: in how many views, each over the same observations.
        as_of: For `snapshot`: an ISO instant in UTC.
        log: For `training_set`: a folder that holds the same observations as an observation log.
        output: For `training_set`: the folder to write to.
        from_disk: Whether reading the observations belongs to the time.
    """

    kind: str
    observations: str
    spine: str
    entities: tuple[str, ...]
    columns: tuple[str, ...]
    aggregates: tuple[str, ...] = ()
    minutes: int = 0
    ttl_hours: int = 0
    views: int = 1
    as_of: str = ""
    log: str = ""
    output: str = ""
    from_disk: bool = False

    def answer_columns(self) -> list[str]:
        """Names of the value columns of an answer, in order."""
        if self.kind == "windows":
            return list(self.aggregates)
        return list(self.columns)

    def key_columns(self) -> list[str]:
        """Names of the columns that say which row of the answer is which."""
        return [*self.entities, "event_time"] if self.kind == "snapshot" else ["row"]

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Question:
        """Back from `to_dict`."""
        named: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
        }
        return cls(**named)


class Contender(Protocol):
    """What every file in `contenders/` offers as module-level names.

    Heavy imports belong inside the functions: the file is also read where its library is not installed.
    """

    NAME: str
    """Short and unique; what the tables print."""
    ENVIRONMENT: str
    """`project`, or the name of a `requirements-<name>.txt`."""
    CLAIM: str
    """`exact`, or in a few words what the answer leaves out."""
    KINDS: tuple[str, ...]
    """Kinds of question it answers."""

    @staticmethod
    def load(question: Question) -> Any:
        """Inputs in memory, in the contender's own form; not timed."""

    @staticmethod
    def run(loaded: Any) -> Any:
        """The answer; timed. Everything the answer needs counts: sorts, indexes, conversions."""

    @staticmethod
    def write(answer: Any, path: Path) -> None:
        """The answer as Parquet with the key columns and the answer columns of the question; not timed."""
