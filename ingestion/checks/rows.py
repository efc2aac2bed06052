"""Rows against their provider's contract: typed, and each row that breaks it with a reason that names column, rule and value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

import polars as pl

from ingestion.batch import payloads
from ingestion.checks.casting import cast_column
from ingestion.definition import SYSTEM_NAMES, ProviderDefinition
from ingestion.instants import duration_us, from_us, to_us
from ingestion.providers.dtypes import dtype_text
from ingestion.schema import INSTANT, TIME_COLUMNS
from ingestion.sources.layout import ABSENT, BROKEN, TimeFormat
from ingestion.sources.times import read_instants

if TYPE_CHECKING:
    from ingestion.providers.contract import ColumnRule, Contract

Kind = Literal[
    "unreadable", "no_key", "changed_type", "null", "range", "new_category", "new_column", "lost_column", "clock_fault"
]
Policy = Literal["quarantine", "refuse", "flag", "ignore", "add", "null"]

_RESERVED: Final = frozenset({"log_sequence", "batch_id", "record_kind", "record_detail"})
_SHOWN: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One way in which a batch breaks its contract.

    Attributes:
        kind: `unreadable` (a value cannot be of the column's type), `changed_type` (no value can), `no_key`, `null`,
            `range`, `new_category`, `new_column`, `lost_column`, `clock_fault`.
        column: The column; empty if it is none of them.
        policy: What was done: `quarantine`, `refuse`, `flag`, `ignore`, `add`, `null`.
        count: How many rows; of a column that is new or lost, all of them.
        example: The reason of the first row.
        row: That row, counted from 0; `None` if it is not about rows.
    """

    kind: Kind
    column: str
    policy: Policy
    count: int
    example: str
    row: int | None = None

    def __str__(self) -> str:
        rows = f"{self.count} row{'s' if self.count != 1 else ''}"
        done = {"quarantine": "set aside", "refuse": "batch refused", "flag": "kept", "ignore": "left out"}
        what = {"add": "added", "null": "taken for null", **done}[self.policy]
        if self.kind == "new_column" and self.policy == "flag":
            what = "left out"
        where = f"; first: row {self.row}" if self.row is not None and self.count > 1 else ""
        return f"{self.kind.replace('_', ' ')}: {self.example} ({rows} {what}{where})"


@dataclass(frozen=True, slots=True)
class Checked:
    """A batch after its contract.

    Attributes:
        frame: The rows in the contract's types, same rows, same order, for `ObservationLog.append`.
        original: The rows as they came, for the quarantine.
        reasons: Per row why it is to be set aside, or null; `None` if no row is. Of a refused batch every row has one.
        refused: Why the whole batch is refused; `None` if it is not.
        flags: Every way in which the batch breaks the contract.
        added: New columns that the contract wants added to the log; then append with `evolve=True`.
    """

    frame: pl.DataFrame
    original: pl.DataFrame
    reasons: pl.Series | None = None
    refused: str | None = None
    flags: tuple[Flag, ...] = ()
    added: tuple[str, ...] = ()

    @property
    def set_aside(self) -> int:
        """How many rows have a reason."""
        return 0 if self.reasons is None else len(self.reasons) - self.reasons.null_count()

    @property
    def notes(self) -> tuple[str, ...]:
        """The flags as text, for the ledger."""
        return tuple(map(str, self.flags))


def check_rows(
    frame: pl.DataFrame,
    contract: Contract,
    definition: ProviderDefinition,
    *,
    received_time: datetime | None = None,
) -> Checked:
    """Hold a batch against its contract.

    Every column is cast to its type (`cast_column`); of a value that cannot be, and of one outside its rule, the row gets a
    reason. Retractions need their key only. Nothing is decided by other rows, except whether a whole column changed its type
    or is lost; so neither the order of the rows nor broken ones touch the good ones.

    Args:
        frame: Rows as they were parsed; `__broken` and `__absent` as `parse_payload` makes them are understood.
        contract: What is promised. One without columns promises nothing: types stay, only keys and instants are looked at.
        definition: Whose rows they are.
        received_time: When they were in hand. Only with `on_clock_fault: refuse` does it matter here; otherwise the log
            sets rows from the future aside, against the arrival that it gives them.

    Returns:
        The typed rows, reasons, flags. Pure: nothing else is read or written.
    """
    return _Check(frame, contract, definition).run(received_time)


@dataclass(slots=True)
class _Check:
    """One run of `check_rows`: what is found, column by column."""

    original: pl.DataFrame
    contract: Contract
    definition: ProviderDefinition
    columns: dict[str, pl.Series] = field(default_factory=dict)
    found: list[pl.DataFrame] = field(default_factory=list)
    flags: list[Flag] = field(default_factory=list)
    added: list[str] = field(default_factory=list)

    def run(self, received_time: datetime | None) -> Checked:
        frame = self.original
        unread = frame.schema.get(BROKEN) == pl.String
        if unread:
            self._report("unreadable", "", self._hard, frame[BROKEN].is_not_null(), "cannot be read: " + frame[BROKEN])
        told = frame[BROKEN].is_not_null() if unread else self._nowhere
        self._system_columns(told)
        self._keys(told)
        retraction = self.columns.get("is_retraction", self._nowhere).fill_null(value=False)
        self._lost(bool(retraction.all()))
        for name, rule in self.contract.columns.items():
            if name not in self._key_names:
                self._value_column(name, rule, retraction, told)
        self._new_columns()
        self._clock(received_time)
        return self._checked()

    @property
    def _nowhere(self) -> pl.Series:
        return pl.Series([False]).new_from_index(0, self.original.height)

    @property
    def _everywhere(self) -> pl.Series:
        return pl.Series([True]).new_from_index(0, self.original.height)

    @property
    def _lists_absent(self) -> bool:
        names = self.original.schema.get(ABSENT) in (pl.List(pl.String), pl.List(pl.Null))
        return names and self.contract.updates == "columns"

    @property
    def _key_names(self) -> list[str]:
        return [*self.definition.entities, *(self.definition.key or ())]

    @property
    def _hard(self) -> Policy:
        """The policy for rows that cannot be kept, whatever was asked for."""
        return "refuse" if self.contract.on_broken_row == "refuse" else "quarantine"

    # --------------------------------------------------------------------------------------------- the log's own columns

    def _system_columns(self, told: pl.Series) -> None:
        for name in self.original.columns:
            if name in TIME_COLUMNS:
                self._instants(name, told)
            elif name == "is_retraction":
                self.columns[name] = self._typed(name, pl.Boolean(), self._nowhere)
            elif name == "arrival_kind":
                self.columns[name] = self._typed(name, pl.String(), self._nowhere)
            elif name == ABSENT and self._lists_absent:
                self.columns[name] = self.original[name]

    def _instants(self, name: str, told: pl.Series) -> None:
        """Text is read, its nanoseconds rounded up (R15), instants stay as precise as they are; anything else is none."""
        values = self.original[name]
        if isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone is not None:
            self.columns[name] = values
        else:
            read = read_instants(values, TimeFormat())[0] if values.dtype == pl.String else None
            cast = self._typed(name, INSTANT, self._nowhere if read is None else read.is_not_null())
            self.columns[name] = cast if read is None else cast.fill_null(read)
        required = name == "event_time" and self.definition.key is None
        if required or (name in {"event_time", "issue_time"} and self._needed(name)):
            empty = values.is_null() & ~told
            if not required or name == "issue_time":
                empty &= ~self._retracts()
            self._report("no_key", name, self._hard, empty, f"{name} is null")

    def _needed(self, name: str) -> bool:
        return name == "event_time" or self.definition.kind == "forecast"

    def _retracts(self) -> pl.Series:
        if "is_retraction" not in self.original.columns:
            return self._nowhere
        return cast_column(self.original["is_retraction"], pl.Boolean())[0].fill_null(value=False)

    def _keys(self, told: pl.Series) -> None:
        for name in self._key_names:
            if name not in self.original.columns:
                self._refuse_lost(name, self._key_type(name))
                continue
            values = self.original[name]
            self._report("no_key", name, self._hard, values.is_null() & ~told, f"{name} is null")
            self.columns[name] = (
                self._typed(name, self._key_type(name), self._nowhere) if self.contract.columns else values
            )
            if (rule := self.contract.columns.get(name)) is not None:
                self._judge(name, rule, self._everywhere)
        only_retractions = self.original.height > 0 and bool(self._retracts().all())
        if "event_time" not in self.original.columns and not (self.definition.key and only_retractions):
            self._refuse_lost("event_time", INSTANT)

    def _key_type(self, name: str) -> pl.DataType:
        rule = self.contract.columns.get(name)
        return rule.type if rule is not None else pl.String()

    def _refuse_lost(self, name: str, dtype: pl.DataType) -> None:
        """A column without which no row can be kept."""
        self.columns[name] = pl.Series(name, [None], dtype=dtype).new_from_index(0, self.original.height)
        if self.original.height:
            self._flag("lost_column", name, "refuse", self.original.height, f"there is no column {name!r}")

    # ---------------------------------------------------------------------------------------------------------- values

    def _lost(self, only_retractions: bool) -> None:  # noqa: FBT001 - one caller
        lost = [
            name for name in self.contract.columns if name not in self.original.columns and name not in self._key_names
        ]
        for name in lost:
            dtype = self.contract.columns[name].type
            self.columns[name] = pl.Series(name, [None], dtype=dtype).new_from_index(0, self.original.height)
        if self.original.is_empty() or only_retractions or not lost:
            return
        if self.contract.updates == "columns":
            sent = self.columns.get(
                ABSENT, pl.Series(ABSENT, [[]], pl.List(pl.String)).new_from_index(0, self.original.height)
            )
            told = pl.col(ABSENT).cast(pl.List(pl.String)).fill_null([])
            everywhere = told.list.concat(pl.lit(lost, pl.List(pl.String))).list.unique(maintain_order=True)
            self.columns[ABSENT] = sent.to_frame().select(everywhere.alias(ABSENT)).to_series()
            return
        for name in lost:
            policy = self.contract.on_lost_column
            self._flag("lost_column", name, policy, self.original.height, f"there is no column {name!r}")

    def _value_column(self, name: str, rule: ColumnRule, retraction: pl.Series, told: pl.Series) -> None:
        if name in self.original.columns:
            self.columns[name] = self._typed(name, rule.type, retraction)
            empty = self.original[name].is_null()
        else:
            empty = self._everywhere
        judged = ~retraction
        if ABSENT in self.columns:
            sent = ~self.columns[ABSENT].list.contains(name, nulls_equal=True).fill_null(value=False)
            empty &= sent
        lost_and_refused = name not in self.original.columns and self.contract.on_lost_column == "refuse"
        if not rule.nullable and not lost_and_refused:
            self._report("null", name, self.contract.on_broken_row, empty & judged & ~told, f"{name} is null")
        self._judge(name, rule, judged)

    def _typed(self, name: str, dtype: pl.DataType, spared: pl.Series) -> pl.Series:
        """A column in its type; rows whose value cannot be of it are reported, except those that are spared."""
        values = self.original[name]
        cast, fails = cast_column(values, dtype)
        fails &= ~spared
        if not fails.any():
            return cast
        texts = _shown(values, fails)
        asked = "instant with an offset" if name in TIME_COLUMNS else dtype_text(dtype)
        reasons = pl.select(pl.format("{}={} is no {}", pl.lit(name), texts, pl.lit(asked))).to_series()
        everything = int(fails.sum()) == len(values) - values.null_count()
        kind: Kind = "changed_type" if everything else "unreadable"
        policy = self.contract.on_changed_type if everything else self._hard
        self._report(kind, name, policy, fails, reasons, packed=True)
        return cast

    def _judge(self, name: str, rule: ColumnRule, judged: pl.Series) -> None:
        """Range and categories of a typed column."""
        values = self.columns[name]
        unit = f" {rule.unit}" if rule.unit else ""
        if rule.min is not None or rule.max is not None:
            if values.dtype.is_float():
                self._break(name, judged & values.is_nan(), "is no number, and has a range")
                values = values.fill_nan(None)
            if rule.min is not None:
                self._break(name, judged & (values < rule.min), f"is below min {_plain(rule.min)}{unit}")
            if rule.max is not None:
                self._break(name, judged & (values > rule.max), f"is above max {_plain(rule.max)}{unit}")
        if rule.categories is not None:
            allowed = pl.Series(list(rule.categories), dtype=values.dtype)
            new = judged & values.is_not_null() & ~values.is_in(allowed.implode())
            self._report_values("new_category", name, self.contract.on_new_category, new, "is not among its categories")

    def _break(self, name: str, broken: pl.Series, rule: str) -> None:
        self._report_values("range", name, self.contract.on_broken_row, broken, rule)

    def _report_values(self, kind: Kind, name: str, policy: Policy, broken: pl.Series, rule: str) -> None:
        broken = broken.fill_null(value=False)
        if broken.any():
            texts = _shown(self.columns[name], broken)
            reasons = pl.select(pl.format("{}={} {}", pl.lit(name), texts, pl.lit(rule))).to_series()
            self._report(kind, name, policy, broken, reasons, packed=True)

    # --------------------------------------------------------------------------------------------------- whole columns

    def _new_columns(self) -> None:
        known = {*self.columns, *SYSTEM_NAMES, ABSENT, BROKEN}
        for name in self.original.columns:
            if name in _RESERVED or (name.startswith("__") and name not in known):
                self._flag("new_column", name, "ignore", self.original.height, f"column {name!r} is the log's own")
            elif name not in known:
                self._new_column(name)

    def _new_column(self, name: str) -> None:
        values = self.original[name]
        if not self.contract.columns:
            if values.dtype != pl.Null():
                self.columns[name] = values
            return
        policy = self.contract.on_new_column
        if policy == "add" and _has_no_type(values.dtype):
            policy = "ignore"
        if policy == "add":
            self.columns[name] = values
            self.added.append(name)
        if policy != "ignore" and self.original.height:
            self._flag(
                "new_column", name, policy, self.original.height, f"column {name!r} ({values.dtype}) has no rule"
            )

    def _clock(self, received_time: datetime | None) -> None:
        """With `on_clock_fault: refuse`, a batch from the future is refused here."""
        events = self.columns.get("event_time")
        if self.contract.on_clock_fault != "refuse" or self.definition.kind == "forecast":
            return
        if received_time is None or events is None:
            return
        slack = duration_us(self.definition.clock_tolerance, "clock_tolerance") + duration_us(
            self.definition.publish_margin, "publish_margin"
        )
        latest = pl.lit(from_us(to_us(received_time, "received_time") + slack), INSTANT)
        late = pl.select(events.cast(INSTANT) > latest).to_series().fill_null(value=False)
        self._report("clock_fault", "event_time", "refuse", late, "event_time is later than its arrival can be")

    # ---------------------------------------------------------------------------------------------------------- result

    def _report(
        self,
        kind: Kind,
        column: str,
        policy: Policy,
        rows: pl.Series,
        reasons: pl.Series | str,
        *,
        packed: bool = False,
    ) -> None:
        """Note that rows break a rule; `reasons` has one text for each row of the batch, or (packed) for each that does."""
        rows = rows.fill_null(value=False)
        if not rows.any():
            return
        numbers = rows.arg_true()
        if isinstance(reasons, str):
            texts = pl.Series([reasons]).new_from_index(0, len(numbers))
        else:
            texts = reasons if packed else reasons.filter(rows)
        self._flag(kind, column, policy, len(numbers), str(texts[0]), row=int(numbers[0]))
        if policy != "flag":
            self.found.append(pl.DataFrame({"row": numbers.cast(pl.Int64), "text": texts.cast(pl.String)}))

    def _flag(
        self, kind: Kind, column: str, policy: Policy, count: int, example: str, *, row: int | None = None
    ) -> None:
        self.flags.append(Flag(kind=kind, column=column, policy=policy, count=count, example=example, row=row))

    def _checked(self) -> Checked:
        order = [name for name in self.original.columns if name in self.columns]
        order += [name for name in self.columns if name not in order]
        frame = pl.DataFrame([self.columns[name].alias(name) for name in order])
        refusals = [flag for flag in self.flags if flag.policy == "refuse"]
        refused = _refusal(refusals, self.original.height) if refusals else None
        reasons = self._reasons() if self.found or refused else None
        if refused and reasons is not None:
            reasons = reasons.fill_null(f"the batch was refused: {refused}")
        return Checked(
            frame=frame,
            original=self.original.drop(ABSENT, BROKEN, strict=False),
            reasons=reasons,
            refused=refused,
            flags=tuple(self.flags),
            added=tuple(self.added),
        )

    def _reasons(self) -> pl.Series:
        """One text per row, the rules that it breaks in the contract's order."""
        if not self.found:
            return pl.Series("reason", [None], dtype=pl.String).new_from_index(0, self.original.height)
        together = (
            pl.concat(self.found).group_by("row", maintain_order=True).agg(pl.col("text").unique(maintain_order=True))
        )
        rows = pl.DataFrame({"row": pl.int_range(self.original.height, eager=True)})
        joined = rows.join(together, on="row", how="left", maintain_order="left")
        return joined.select(pl.col("text").list.join("; ").alias("reason")).to_series()


def _refusal(flags: Iterable[Flag], height: int) -> str:
    first, *others = flags
    rows = f" ({first.count} of {height} rows)" if first.kind not in {"lost_column", "new_column"} else ""
    return f"{first.example}{rows}" + (f", and {len(others)} more" if others else "")


def _shown(values: pl.Series, rows: pl.Series) -> pl.Series:
    """The values of some rows as a person reads them."""
    picked = values.filter(rows)
    if picked.dtype == pl.String:
        texts = pl.select(pl.format("'{}'", _shortened(picked))).to_series()
    elif isinstance(picked.dtype, pl.Duration):
        texts = picked.dt.to_string("polars")
    elif picked.dtype.is_numeric() or picked.dtype == pl.Boolean or picked.dtype.is_temporal():
        texts = picked.cast(pl.String)
    else:
        rendered = payloads(pl.DataFrame({"v": picked}), pl.int_range(len(picked), eager=True))
        texts = _shortened(rendered.str.slice(len('{"v":')).str.strip_suffix("}"))
    return texts


def _shortened(texts: pl.Series) -> pl.Series:
    cut = texts.str.slice(0, _SHOWN) + "..."
    return pl.select(pl.when(texts.str.len_chars() > _SHOWN).then(cut).otherwise(texts)).to_series()


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _has_no_type(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List | pl.Array):
        return _has_no_type(dtype.inner if isinstance(dtype.inner, pl.DataType) else dtype.inner())
    if isinstance(dtype, pl.Struct):
        return any(
            _has_no_type(part.dtype if isinstance(part.dtype, pl.DataType) else part.dtype()) for part in dtype.fields
        )
    return dtype == pl.Null() or dtype == pl.Object()
