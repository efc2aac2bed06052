"""What a provider's rows must look like, and what happens to those that do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import polars as pl
from pydantic import BeforeValidator, Field, StrictBool, StrictInt, StrictStr, model_validator

from ingestion.definition import SYSTEM_NAMES
from ingestion.providers.declaration import Declaration
from ingestion.providers.dtypes import dtype_text, parse_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ingestion.checks.frames import ContractReport


def _number(value: Any) -> Any:
    """A number, and nothing that can merely be read as one.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number; write one, without quotes.")  # noqa: TRY004 - pydantic reports ValueErrors
    return value


Bound = Annotated[float | int, BeforeValidator(_number)]
Category = StrictBool | StrictInt | StrictStr


def _dtype(value: Any) -> Any:
    if isinstance(value, type) and issubclass(value, pl.DataType):
        value = value()
    if isinstance(value, pl.DataType):
        value = dtype_text(value)
    return dtype_text(parse_dtype(value)) if isinstance(value, str) else value


class ColumnRule(Declaration):
    """What one column must look like.

    Attributes:
        dtype: Its type: `Float64`, `Int32`, `String`, `Boolean`, `Datetime(us, UTC)`, `Array(Float32, 4)`, ... In Python
            also a Polars type.
        unit: What its numbers count; shown in reasons and reports.
        min: The smallest value allowed.
        max: The greatest value allowed.
        categories: The values allowed; any other is a new category.
        nullable: Whether a row may have no value there.
        description: What it is, for people.
    """

    dtype: Annotated[str, BeforeValidator(_dtype)]
    unit: str | None = None
    min: Bound | None = None
    max: Bound | None = None
    categories: tuple[Category, ...] | None = None
    nullable: bool = True
    description: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        """`temp: Float64` is short for `temp: {dtype: Float64}`."""
        if isinstance(value, str | pl.DataType) or (isinstance(value, type) and issubclass(value, pl.DataType)):
            return {"dtype": value}
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Refuse bounds and categories that the type cannot have.

        Raises:
            ValueError: If they cannot.
        """
        dtype = self.type
        if (self.min is not None or self.max is not None) and not dtype.is_numeric():
            raise ValueError(f"min and max are for numbers, and the column is {self.dtype}; leave them out.")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min={self.min!r} is above max={self.max!r}; swap them.")
        if any(bound is not None and bound != bound for bound in (self.min, self.max)):  # noqa: PLR0124 - NaN
            raise ValueError("a bound that is NaN bounds nothing; leave it out.")
        if self.categories is not None:
            self._check_categories(dtype)
        return self

    def _check_categories(self, dtype: pl.DataType) -> None:
        """Refuse categories of another type.

        Raises:
            ValueError: If there are none, or one is of another type.
        """
        wanted = str if dtype == pl.String else bool if dtype == pl.Boolean else int if dtype.is_integer() else None
        if wanted is None:
            raise ValueError(f"categories are for String, Boolean and integers, and the column is {self.dtype}.")
        if not self.categories:
            raise ValueError("an empty list of categories allows nothing; leave it out.")
        wrong = [value for value in self.categories if type(value) is not wanted]
        if wrong:
            raise ValueError(f"category {wrong[0]!r} is no {self.dtype}; write it as one, in quotes if it is text.")

    @property
    def type(self) -> pl.DataType:
        """The Polars type."""
        return parse_dtype(self.dtype)


class Contract(Declaration):
    """What a provider promises to send, and what is done when it does not.

    A contract without columns promises nothing: the rows are kept with the types that they come in.

    Attributes:
        columns: A rule per column; text alone is the type. Entity and id columns without a rule are `String`.
        updates: `"row"`: each row is whole, and a column that is not sent is lost. `"columns"`: a row has only what changed;
            what it lacks keeps the value that its key has now (R22).
        on_broken_row: Rows with a value outside its range, without one where there must be one, or with one that cannot be
            of the column's type: `"quarantine"` those rows, `"refuse"` the batch, or `"flag"`: keep and report them. A row
            that cannot be kept (no key, a value of no use to the column's type) is quarantined even then.
        on_new_column: A column without a rule: `"flag"`: leave it out and report it, `"ignore"` it, `"add"` it to the log,
            or `"refuse"` the batch.
        on_lost_column: A column that did not come: `"refuse"` the batch, or `"null"`: take it for null, and report it.
        on_changed_type: A column of which no value can be of its type: `"quarantine"` the rows or `"refuse"` the batch.
        on_new_category: A value that is not among the categories: `"quarantine"` those rows, `"refuse"` the batch, or
            `"flag"`: keep and report them.
        on_clock_fault: A measurement later than its arrival by more than the clock tolerance: `"quarantine"` those rows or
            `"refuse"` the batch.
    """

    columns: dict[str, ColumnRule] = Field(default_factory=dict)
    updates: Literal["row", "columns"] = "row"
    on_broken_row: Literal["quarantine", "refuse", "flag"] = "quarantine"
    on_new_column: Literal["flag", "ignore", "add", "refuse"] = "flag"
    on_lost_column: Literal["refuse", "null"] = "refuse"
    on_changed_type: Literal["quarantine", "refuse"] = "quarantine"
    on_new_category: Literal["quarantine", "refuse", "flag"] = "quarantine"
    on_clock_fault: Literal["quarantine", "refuse"] = "quarantine"

    @model_validator(mode="after")
    def _own_names(self) -> Self:
        """Refuse rules for what the log itself defines.

        Raises:
            ValueError: If a column has a name of the log's own.
        """
        for name in self.columns:
            if name in SYSTEM_NAMES or name.startswith("__"):
                raise ValueError(f"column {name!r} is the log's own and needs no rule; leave it out or rename it.")
        return self

    @property
    def dtypes(self) -> dict[str, pl.DataType]:
        """The Polars type of each column."""
        return {name: rule.type for name, rule in self.columns.items()}

    def check(self, frame: pl.DataFrame, *, columns: Mapping[str, str] | None = None) -> ContractReport:
        """Hold a frame of features or training rows against the contract; see `ingestion.checks.check_frame`."""
        from ingestion.checks import check_frame

        return check_frame(frame, self, columns=columns)
