"""Columns that suddenly mean something else: another unit, another level, nothing at all.

What is compared are blocks of rows: statistics of the newest block with those of earlier blocks of the same column, not values
with values. Blocks of a day's nights and noons differ, and so the earlier blocks say by how much blocks ordinarily differ; what
they must cover for that is a whole cycle, such as a day. A statistic is reported if it lies

- beyond every earlier block,
- beyond the outer fences of the earlier blocks, three interquartile ranges outside their quartiles (J. W. Tukey, Exploratory
  Data Analysis, 1977, section 2E), and
- so far beyond them that it matters: for a level half of a block's own interquartile range, for a spread a factor of three, for a
  share of nulls or zeros a fifth of the rows.

Comparing a statistic of the newest block with its values on earlier blocks of a series needs no independent values (Politis,
Romano and Wolf, Subsampling, 1999), which neighbouring observations never are.

A change of unit is told by its shape: the quantiles of the block are those of earlier blocks times 3.6, say, much more closely
than they are those of any earlier block as it is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import polars as pl

from ingestion.definition import SYSTEM_NAMES

What = Literal["unit", "level", "spread", "nulls", "zeros"]

MIN_ROWS: Final = 40
"""Smaller batches wait until there are so many rows."""
MIN_BLOCKS: Final = 12
"""Before there are so many blocks, nobody knows what is ordinary."""
MAX_BLOCKS: Final = 240
_PROBES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
_FENCE: Final = 3.0
_LEVEL: Final = 0.5
_SPREAD: Final = 3.0
_SHARE: Final = 0.2
_NEAR: Final = 0.2
_CLEAR: Final = 4.0


@dataclass(frozen=True, slots=True)
class Unit:
    """A change of unit: `new = factor * old + offset`.

    Attributes:
        factor: What values are multiplied by.
        offset: What is added then.
        example: What it is when it happens.
    """

    factor: float
    offset: float
    example: str

    def __str__(self) -> str:
        times = f"x{self.factor:g}" if self.factor != 1 else ""
        plus = f"{self.offset:+g}" if self.offset else ""
        return f"{times}{' ' if times and plus else ''}{plus} ({self.example})"


UNITS: Final = (
    Unit(1000, 0, "kilo, or metres to millimetres"),
    Unit(0.001, 0, "to kilo, or millimetres to metres"),
    Unit(-1, 0, "the sign"),
    Unit(100, 0, "a share to per cent, or hPa to Pa"),
    Unit(0.01, 0, "per cent to a share, or Pa to hPa"),
    Unit(3.6, 0, "m/s to km/h"),
    Unit(1 / 3.6, 0, "km/h to m/s"),
    Unit(1.8, 32, "degC to degF"),
    Unit(1 / 1.8, -32 / 1.8, "degF to degC"),
    Unit(1, 273.15, "degC to K"),
    Unit(1, -273.15, "K to degC"),
    Unit(0.514444, 0, "knots to m/s"),
    Unit(1.943844, 0, "m/s to knots"),
    Unit(2.236936, 0, "m/s to mph"),
    Unit(0.44704, 0, "mph to m/s"),
    Unit(1.609344, 0, "miles to km"),
    Unit(1 / 1.609344, 0, "km to miles"),
    Unit(0.3048, 0, "feet to metres"),
    Unit(1 / 0.3048, 0, "metres to feet"),
    Unit(25.4, 0, "inches to mm"),
    Unit(1 / 25.4, 0, "mm to inches"),
    Unit(33.8639, 0, "inHg to hPa"),
    Unit(1 / 33.8639, 0, "hPa to inHg"),
    Unit(60, 0, "hours to minutes, or minutes to seconds"),
    Unit(1 / 60, 0, "minutes to hours, or seconds to minutes"),
    Unit(3600, 0, "hours to seconds"),
    Unit(1 / 3600, 0, "seconds to hours"),
    Unit(1e6, 0, "mega"),
    Unit(1e-6, 0, "to mega"),
    Unit(10, 0, "tenths"),
    Unit(0.1, 0, "of tenths"),
)
"""The changes of unit that are recognised; of two that fit alike both are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """A column whose newest block is not like its recent past.

    Attributes:
        column: Its name.
        what: `unit`, `level`, `spread`, `nulls` or `zeros`.
        before: What was usual: the median block's median, interquartile range, or share.
        after: The same of the newest block.
        factor: `after / before` of a unit, level or spread; `None` if that means nothing.
        likely: The change of unit that explains it, if one does.
        rows: How many rows the newest block has.
    """

    column: str
    what: What
    before: float
    after: float
    factor: float | None
    likely: str | None = None
    rows: int = 0

    def __str__(self) -> str:
        name = {"unit": "median", "level": "median", "spread": "interquartile range"}.get(self.what)
        change = (
            f"{name} {self.before:.4g} -> {self.after:.4g}"
            if name is not None
            else f"{self.what} {self.before:.0%} -> {self.after:.0%}"
        )
        likely = f", likely {self.likely}" if self.likely else ""
        return f"shift of {self.column}: {change}{likely} ({self.rows} rows)"


@dataclass(frozen=True, slots=True)
class Block:
    """What is kept of a block of rows.

    Attributes:
        rows: How many rows it has.
        nulls: The share of nulls and NaN among them.
        zeros: The share of zeros among the numbers.
        probes: The 5, 25, 50, 75 and 95 per cent quantiles of the numbers; empty if there are none.
    """

    rows: int
    nulls: float
    zeros: float
    probes: tuple[float, ...]

    @classmethod
    def of(cls, values: pl.Series) -> Block:
        """The block of some values."""
        numbers = values.cast(pl.Float64, strict=False).fill_nan(None).drop_nulls()
        numbers = numbers.filter(numbers.is_finite())
        probes = tuple(float(numbers.quantile(q, "linear") or 0.0) for q in _PROBES) if len(numbers) else ()
        zeros = int((numbers == 0).sum()) / len(numbers) if len(numbers) else 0.0
        return cls(len(values), 1 - len(numbers) / len(values), zeros, probes)

    @property
    def level(self) -> float:
        """The median."""
        return self.probes[2]

    @property
    def spread(self) -> float:
        """The interquartile range."""
        return self.probes[3] - self.probes[1]


def compare(recent: pl.Series, batch: pl.Series, *, column: str | None = None) -> Shift | None:
    """Whether a batch is not like the recent past of its column.

    Args:
        recent: The column's values before, in the order in which they arrived; at least a whole cycle of them. They are cut
            into blocks as long as the batch.
        batch: Its newest values.
        column: The column's name; that of the batch by default.

    Returns:
        The most telling shift; `None` if there is none, or there is too little to tell.

    Example:
        >>> hours = pl.int_range(4000, eager=True)
        >>> celsius = (10 + 8 * (hours * 2 * 3.14159 / 24).sin() + hours % 7 / 7).alias("temp")
        >>> print(compare(celsius[:3800], celsius[3800:] * 1.8 + 32))
        shift of temp: median 10.43 -> 50.78, likely x1.8 +32 (degC to degF) (200 rows)
        >>> compare(celsius[:3800], celsius[3800:]) is None
        True
    """
    size = len(batch)
    if size < MIN_ROWS:
        return None
    first = len(recent) % size
    past = [Block.of(recent[start : start + size]) for start in range(first, len(recent), size)]
    return compare_blocks(past[-MAX_BLOCKS:], Block.of(batch), column or batch.name)


def compare_blocks(past: Sequence[Block], block: Block, column: str) -> Shift | None:
    """Whether a block is not like earlier ones; see `compare`."""
    if len(past) < MIN_BLOCKS or block.rows < MIN_ROWS:
        return None
    return (
        _share("nulls", past, block, column)
        or _share("zeros", past, block, column)
        or _of_numbers([old for old in past if old.probes], block, column)
    )


def _share(what: Literal["nulls", "zeros"], past: Sequence[Block], block: Block, column: str) -> Shift | None:
    shares = [getattr(old, what) for old in past]
    share = getattr(block, what)
    if not _far_out(shares, share, _SHARE):
        return None
    return Shift(column=column, what=what, before=_median(shares), after=share, factor=None, rows=block.rows)


def _of_numbers(past: Sequence[Block], block: Block, column: str) -> Shift | None:
    if len(past) < MIN_BLOCKS or not block.probes:
        return None
    levels, spreads = [old.level for old in past], [old.spread for old in past]
    level, spread = _median(levels), _median(spreads)
    matters = max(_LEVEL * spread, 0.01 * abs(level))
    moved = _far_out(levels, block.level, matters)
    widened = _widened(spreads, block.spread)
    likely = _likely(past, block) if moved or widened else None
    moved = moved and _moved_whole(past, block)
    if not (moved or widened or likely):
        return None
    if likely is not None:
        factor = block.level / level if level else None
        return Shift(
            column=column,
            what="unit",
            before=level,
            after=block.level,
            factor=factor,
            likely=likely,
            rows=block.rows,
        )
    before, after = (level, block.level) if moved else (spread, block.spread)
    return Shift(
        column=column,
        what="level" if moved else "spread",
        before=before,
        after=after,
        factor=after / before if before else None,
        rows=block.rows,
    )


def _far_out(past: Sequence[float], value: float, matters: float) -> bool:
    """Beyond all of the past, its outer fences, and by more than matters."""
    low, high = min(past), max(past)
    first, third = _quantile(past, 0.25), _quantile(past, 0.75)
    reach = _FENCE * (third - first)
    above = value > max(high + matters, third + reach)
    below = value < min(low - matters, first - reach)
    return above or below


def _moved_whole(past: Sequence[Block], block: Block) -> bool:
    """Whether the whole block moved, not only which of its usual values there are more of.

    Either its median is no longer among the values of a usual block, or all of its quantiles are beyond those of every block.
    """
    if not _median([old.probes[0] for old in past]) <= block.level <= _median([old.probes[-1] for old in past]):
        return True
    columns = list(zip(*(old.probes for old in past), strict=True))
    above = all(probe > max(column) for probe, column in zip(block.probes, columns, strict=True))
    below = all(probe < min(column) for probe, column in zip(block.probes, columns, strict=True))
    return above or below


def _widened(past: Sequence[float], spread: float) -> bool:
    """Far out as a factor; a spread of nothing where there always was some is far out too."""
    some = [old for old in past if old > 0]
    if len(some) < len(past):
        return False
    if spread == 0:
        return True
    return _far_out([math.log(old) for old in some], math.log(spread), math.log(_SPREAD))


def _likely(past: Sequence[Block], block: Block) -> str | None:
    """The change of unit that makes an earlier block of the newest one, if one does so clearly; two if both do."""
    same = min(_distance(old.probes, block.probes) for old in past)
    usual = Block(
        block.rows, 0.0, 0.0, tuple(_median(column) for column in zip(*(old.probes for old in past), strict=True))
    )
    fits = []
    for unit in UNITS:
        near = min(_distance(_turned(old, unit), block.probes) for old in past)
        if near <= _NEAR and same > _CLEAR * max(near, 0.05):
            fits.append((_distance(_turned(usual, unit), block.probes), unit))
    fits.sort(key=lambda fit: fit[0])  # stable: of equals the first that is listed
    told = [unit for distance, unit in fits[:2] if distance <= 1.5 * fits[0][0]]
    return " or ".join(map(str, told)) or None


def _turned(block: Block, unit: Unit) -> list[float]:
    """The quantiles of a block after a change of unit; a change of sign turns their order."""
    probes = [unit.factor * probe + unit.offset for probe in block.probes]
    return probes[::-1] if unit.factor < 0 else probes


def _distance(expected: Sequence[float], probes: Sequence[float]) -> float:
    """The greatest distance of two blocks' quantiles, in spreads of the expected one."""
    scale = max(expected[-1] - expected[0], 0.02 * abs(expected[2]), 1e-12)
    return max(abs(one - other) for one, other in zip(expected, probes, strict=True)) / scale


def _median(values: Sequence[float]) -> float:
    return _quantile(values, 0.5)


def _quantile(values: Sequence[float], q: float) -> float:
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(slots=True)
class _Column:
    past: deque[Block] = field(default_factory=lambda: deque(maxlen=MAX_BLOCKS))
    waiting: list[pl.Series] = field(default_factory=list)
    strange: list[Block] = field(default_factory=list)


@dataclass(slots=True)
class ShiftDetector:
    """Watches the numeric columns of one provider, batch by batch.

    A block that shifted does not become part of what is ordinary, so a shift is reported until values are as before; after
    `MIN_BLOCKS` shifted blocks in a row they are what is ordinary from then on.

    Attributes:
        ignored: Columns that are not watched: entities and ids.
    """

    ignored: frozenset[str] = frozenset()
    _columns: dict[str, _Column] = field(default_factory=dict, init=False, repr=False)

    def observe(self, batch: pl.DataFrame) -> tuple[Shift, ...]:
        """What of a batch is not like the recent past, which the batch then becomes part of.

        Args:
            batch: Rows in the types of the contract, as they arrived; without those that were set aside.

        Returns:
            At most one shift per column. Batches below `MIN_ROWS` rows wait for the next and are judged with them.
        """
        found = (self._observe(values) for values in batch.get_columns() if self._watched(values))
        return tuple(shift for shift in found if shift is not None)

    def remember(self, past: pl.DataFrame, *, rows: int = 500) -> None:
        """Learn what is ordinary, when a job starts, from rows of the log in the order in which they arrived.

        Args:
            past: The rows, oldest first.
            rows: How many rows a batch usually has.
        """
        for start in range(0, past.height, rows):
            self.observe(past[start : start + rows])

    def _watched(self, values: pl.Series) -> bool:
        name = values.name
        return values.dtype.is_numeric() and name not in self.ignored and name not in SYSTEM_NAMES

    def _observe(self, values: pl.Series) -> Shift | None:
        column = self._columns.setdefault(values.name, _Column())
        column.waiting.append(values.cast(pl.Float64, strict=False))
        if sum(map(len, column.waiting)) < MIN_ROWS:
            return None
        block = Block.of(pl.concat(column.waiting))
        column.waiting.clear()
        shift = compare_blocks(column.past, block, values.name)
        if shift is None:
            column.strange.clear()
            column.past.append(block)
            return None
        column.strange.append(block)
        if len(column.strange) >= MIN_BLOCKS:
            column.past = deque(column.strange, maxlen=MAX_BLOCKS)
            column.strange.clear()
        return shift
