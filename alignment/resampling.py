"""How sure a score is: days drawn again and again, whole, since the rows of a day depend on each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alignment.baseline import Numbers
from alignment.durations import DAY_US
from alignment.errors import DefinitionError
from alignment.layout import Ints
from alignment.stable_hash import check_seed
from alignment.wallclock import Instants, check_zone, to_local

DRAWS = 1000
CONFIDENCE = 0.95

Interval = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True, eq=False)
class DrawnDays:
    """Rows by day, and how often each day was drawn; made by `Drawing`.

    What is compared is compared on the same draws, so that a day that is hard for all does not count as a difference.

    Attributes:
        day: Per row the place of its day.
        rows: Rows per day.
        weights: How often each day was drawn; shape (draws, days).
        confidence: Share of the draws inside an interval.
    """

    day: Ints
    rows: Numbers
    weights: Numbers
    confidence: float

    @property
    def days(self) -> int:
        """How many days there are."""
        return len(self.rows)

    def means(self, values: Numbers) -> Numbers:
        """The mean of a value per row, in each draw; shape (draws,)."""
        sums = np.bincount(self.day, weights=values, minlength=self.days)
        return np.asarray((self.weights @ sums) / (self.weights @ self.rows))

    def interval(self, drawn: Numbers) -> Interval:
        """The middle part of what the draws say, by percentiles; nothing of less than two days.

        Args:
            drawn: One figure per draw.
        """
        if self.days < 2:
            return None, None
        rest = 50 * (1 - self.confidence)
        low, high = np.percentile(drawn, [rest, 100 - rest])
        return float(low), float(high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How days are drawn: as many as there are, with replacement.

    Attributes:
        seed: The same seed draws the same days.
        draws: How often.
        confidence: Share of the draws inside an interval.
        zone: Whose days; None for UTC.

    Raises:
        DefinitionError: If `seed`, `draws` or `confidence` cannot mean anything, or there is no such zone.

    Example:
        >>> hour = 3_600_000_000
        >>> drawn = Drawing(draws=4).of(np.arange(48) * hour)
        >>> drawn.weights.sum(axis=1).tolist(), drawn.means(np.ones(48)).tolist()
        ([2.0, 2.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0])
    """

    seed: int = 0
    draws: int = DRAWS
    confidence: float = CONFIDENCE
    zone: str | None = None

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if type(self.draws) is not int or self.draws < 1:
            raise DefinitionError(f"draws={self.draws!r} is not a positive integer", "e.g. draws=1000.")
        if not isinstance(self.confidence, float | int) or not 0 < self.confidence < 1:
            raise DefinitionError(f"confidence={self.confidence!r} is not between 0 and 1", "e.g. confidence=0.95.")
        check_zone(self.zone)

    def of(self, t: Instants) -> DrawnDays:
        """Draws of the days of some rows.

        Args:
            t: Prediction times, microseconds; at least one.
        """
        local = t if self.zone is None else to_local(t, self.zone)
        days, place = np.unique(local // DAY_US, return_inverse=True)
        even = np.full(len(days), 1 / len(days))
        weights = np.random.default_rng(self.seed).multinomial(len(days), even, size=self.draws)
        counts = np.bincount(place, minlength=len(days)).astype(np.float64)
        return DrawnDays(place, counts, weights.astype(np.float64), self.confidence)


@dataclass(frozen=True, slots=True, eq=False)
class Errors:
    """What a model got wrong, row by row.

    Attributes:
        absolute: |said - truth|; shape (rows,).
    """

    absolute: Numbers

    @classmethod
    def of(cls, said: Numbers, truth: Numbers) -> Errors:
        """Of what was said, against the truth."""
        return cls(np.abs(said - truth))

    @property
    def mae(self) -> float:
        """Mean absolute error."""
        return float(self.absolute.mean())

    @property
    def rmse(self) -> float:
        """Root of the mean squared error."""
        return float(np.sqrt((self.absolute**2).mean()))

    def at(self, rows: Ints) -> Errors:
        """Those of some rows."""
        return Errors(self.absolute[rows])

    def drawn(self, days: DrawnDays) -> dict[str, Numbers]:
        """Both errors in each draw."""
        return {"mae": days.means(self.absolute), "rmse": np.sqrt(days.means(self.absolute**2))}

    def facts(self, days: DrawnDays) -> dict[str, float | None]:
        """`mae`, `rmse`, and `_low` and `_high` of each."""
        found: dict[str, float | None] = {}
        for name, drawn in self.drawn(days).items():
            low, high = days.interval(drawn)
            found |= {name: getattr(self, name), f"{name}_low": low, f"{name}_high": high}
        return found

    def less(self, other: Errors, days: DrawnDays, suffix: str, *, prefix: str = "") -> dict[str, float | None]:
        """How much greater these errors are than others on the same rows: `mae_<suffix>`, `rmse_<suffix>`, `_low`, `_high`.

        Args:
            other: Errors on the same rows.
            days: The rows' days.
            suffix: What to call the difference.
            prefix: What to put before all names.
        """
        found: dict[str, float | None] = {}
        mine, theirs = self.drawn(days), other.drawn(days)
        for name in mine:
            low, high = days.interval(mine[name] - theirs[name])
            key = f"{prefix}{name}_{suffix}"
            found |= {key: getattr(self, name) - getattr(other, name), f"{key}_low": low, f"{key}_high": high}
        return found
