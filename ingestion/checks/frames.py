"""A frame of features, training rows or served values against the contract of the provider that they come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from ingestion.checks.casting import cast_column
from ingestion.providers.dtypes import dtype_text

if TYPE_CHECKING:
    from ingestion.providers.contract import ColumnRule, Contract

_EXAMPLES: Final = 3
# Features whose values are values of the column itself, or lie between them: they keep its unit and its range.
_SAME_RANGE: Final = re.compile(
    r"(?:_lag_\w+|_forecast_\w+|_(?:min|max|first|last|mean|median|q\d+)_\w+?)?", flags=re.ASCII
)
_SAME_VALUES: Final = re.compile(r"(?:_lag_\w+|_forecast_\w+|_(?:min|max|first|last)_\w+?)?", flags=re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A column of a frame that breaks the contract.

    Attributes:
        column: The frame's column.
        rule: What it breaks: `type`, `min`, `max`, `nan` or `categories`.
        text: The rule in words.
        count: How many rows.
        rows: The first of them, counted from 0.
        examples: Their values.
    """

    column: str
    rule: str
    text: str
    count: int
    rows: tuple[int, ...]
    examples: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractReport:
    """What `check_frame` found.

    Attributes:
        rows: How many rows the frame has.
        checked: The frame's columns that a rule was found for, and the contract's column each is held against.
        findings: What breaks the contract; empty if nothing does.
    """

    rows: int
    checked: dict[str, str]
    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing breaks the contract."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {**asdict(self), "findings": [asdict(finding) for finding in self.findings], "ok": self.ok}

    def __str__(self) -> str:
        head = f"{self.rows} rows, {len(self.checked)} columns checked: "
        if self.ok:
            return head + "they keep the contract"
        lines = [
            f"  {finding.text}: {finding.count} rows; first: row {finding.rows[0]}, {finding.examples[0]!r}"
            for finding in self.findings
        ]
        return "\n".join([head + f"{len(self.findings)} rules broken", *lines])


def check_frame(frame: pl.DataFrame, contract: Contract, *, columns: Mapping[str, str] | None = None) -> ContractReport:
    """Hold a frame of features, training rows or served values against a contract.

    Nulls are never wrong here: a feature is null when nothing counts. A column is held against the contract's column of
    its own name, or of the name after a view's (`weather__temp`); so are lags, forecasts and the aggregates min, max,
    first, last, mean, median and quantiles, which cannot leave the range of their column.

    Args:
        frame: What a training read or a server returned.
        contract: The provider's.
        columns: The frame's column to the contract's, instead of going by the names.

    Returns:
        Which columns were checked, and every rule that is broken, with count and first examples.

    Raises:
        KeyError: If `columns` names a column that frame or contract do not have.

    Example:
        >>> from ingestion.providers import ColumnRule, Contract
        >>> contract = Contract(columns={"temp": ColumnRule(dtype="Float64", unit="degC", max=60)})
        >>> print(check_frame(pl.DataFrame({"weather__temp_max_1h": [21.5, 412.0, None]}), contract))
        3 rows, 1 columns checked: 1 rules broken
          weather__temp_max_1h is above max 60 degC: 1 rows; first: row 1, 412.0
    """
    pairs = dict(columns) if columns is not None else _pairs(frame.columns, contract)
    findings: list[Finding] = []
    for name, ours in pairs.items():
        findings += _judged(frame[name], name, contract.columns[ours], same_values=_of_values(name, ours))
    return ContractReport(rows=frame.height, checked=pairs, findings=tuple(findings))


def _pairs(names: list[str], contract: Contract) -> dict[str, str]:
    """The contract's column for each of the frame's that has one; the longest name that fits."""
    pairs: dict[str, str] = {}
    for name in names:
        feature = name.rpartition("__")[2]
        fits = [ours for ours in contract.columns if name == ours or _rest(feature, ours, _SAME_RANGE)]
        if fits:
            pairs[name] = max(fits, key=len)
    return pairs


def _rest(feature: str, ours: str, pattern: re.Pattern[str]) -> bool:
    return feature.startswith(ours) and pattern.fullmatch(feature[len(ours) :]) is not None


def _of_values(name: str, ours: str) -> bool:
    return name == ours or _rest(name.rpartition("__")[2], ours, _SAME_VALUES)


def _judged(values: pl.Series, name: str, rule: ColumnRule, *, same_values: bool) -> list[Finding]:
    found = []
    wanted = rule.type
    if wanted.is_numeric() and values.dtype.is_numeric():
        typed = values  # means and served JSON numbers are floats whatever the column is
    else:
        typed, fails = cast_column(values, wanted)
        found.append(_finding(values, name, "type", f"{name} is no {dtype_text(wanted)}", fails))
    unit = f" {rule.unit}" if rule.unit else ""
    if typed.dtype.is_numeric() and (rule.min is not None or rule.max is not None):
        if typed.dtype.is_float():
            found.append(_finding(values, name, "nan", f"{name} is no number, and has a range", typed.is_nan()))
            typed = typed.fill_nan(None)
        if rule.min is not None:
            found.append(_finding(values, name, "min", f"{name} is below min {rule.min}{unit}", typed < rule.min))
        if rule.max is not None:
            found.append(_finding(values, name, "max", f"{name} is above max {rule.max}{unit}", typed > rule.max))
    if rule.categories is not None and same_values:
        allowed = pl.Series(list(rule.categories), dtype=typed.dtype)
        new = typed.is_not_null() & ~typed.is_in(allowed.implode())
        found.append(_finding(values, name, "categories", f"{name} is not among the categories", new))
    return [finding for finding in found if finding is not None]


def _finding(values: pl.Series, name: str, rule: str, text: str, broken: pl.Series) -> Finding | None:
    broken = broken.fill_null(value=False)
    if not broken.any():
        return None
    rows = broken.arg_true()
    first = rows.head(_EXAMPLES)
    return Finding(
        column=name,
        rule=rule,
        text=text,
        count=len(rows),
        rows=tuple(first.to_list()),
        examples=tuple(values.gather(first).to_list()),
    )
