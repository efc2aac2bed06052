"""The test rows of an outage report: which providers were down, which variant was chosen, and who was how wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from alignment.arrivals import transform_arrivals
from alignment.baseline import Numbers
from alignment.dataset import Dataset
from alignment.durations import instant_us
from alignment.errors import DefinitionError
from alignment.exams import Exam
from alignment.heartbeats import Bools
from alignment.join import point_in_time_join
from alignment.layout import Ints
from alignment.models import Trained
from alignment.outages import Outage
from alignment.resampling import Drawing, DrawnDays, Errors
from alignment.service_binding import bind
from alignment.service_join import ServiceQuestion, VariantRows
from alignment.services import FeatureService
from alignment.spine import check_spine
from alignment.views import FeatureView
from alignment.wallclock import Instants

ALL_UP = "all up"
ROUTER = "router"
FEW_DAYS = 5
"""On fewer days nobody is said to be clearly better."""
_SCORES = [f"{score}{end}" for score in ("mae", "rmse") for end in ("", "_low", "_high")]
_PATTERN: dict[str, Any] = {
    "pattern": pl.String,
    "down": pl.List(pl.String),
    "rows": pl.Int64,
    "share": pl.Float64,
    "days": pl.Int64,
}
_SCORED: dict[str, Any] = (
    _PATTERN
    | {"variant": pl.String, "rows_served": pl.Int64}
    | dict.fromkeys([*_SCORES, "mae_without_outages"], pl.Float64)
    | {"wins": pl.Boolean}
)
_WINNERS: dict[str, Any] = (
    _PATTERN
    | {"winner": pl.String, "runner_up": pl.String}
    | dict.fromkeys(["mae_margin", "mae_margin_low", "mae_margin_high"], pl.Float64)
    | {"clear": pl.Boolean, "served": pl.String, "rows_served": pl.Int64}
    | {"router_mae": pl.Float64}
    | {f"router_mae_{what}{end}": pl.Float64 for what in ("over_winner", "cost") for end in ("", "_low", "_high")}
    | {"misrouted": pl.Boolean}
)
_OVERALL: dict[str, Any] = {"who": pl.String, "rows": pl.Int64} | dict.fromkeys(
    [*_SCORES, "mae_over_router", "mae_over_router_low", "mae_over_router_high"], pl.Float64
)


@dataclass(slots=True, eq=False)
class Fates:
    """What happens to the test rows, as they were and under injected outages.

    Attributes:
        tested: The test rows as the service would have answered them under the outages.
        untouched: The same without the outages; None if there are none.
        t: Their prediction times, microseconds.
        down: Provider to whether it was down, per test row.
        chosen: The place of the variant that the service would have chosen, per test row; -1 for none.
        meant: The same without the outages.
        trainable: The same per training row, without the outages.
        drawing: How days are drawn.
        errors: Variant to its errors on the test rows; filled by `add`.
        without: Variant to its errors on them without the outages.
    """

    tested: pl.DataFrame
    untouched: pl.DataFrame | None
    t: Instants
    down: Mapping[str, Bools]
    chosen: Ints
    meant: Ints
    trainable: Ints
    drawing: Drawing
    errors: dict[str, Errors] = field(default_factory=dict)
    without: dict[str, Errors] = field(default_factory=dict)

    @classmethod
    def of(
        cls, service: FeatureService, dataset: Dataset, exam: Exam, outages: Sequence[Outage], drawing: Drawing
    ) -> Fates:
        """Ask under the outages as the data set was asked: the same `as_of`, the same log positions.

        Args:
            service: What answers.
            dataset: All rows, as they were.
            exam: Which of them train and test.
            outages: What is injected.
            drawing: How days are drawn.
        """
        prediction_time = str(dataset.manifest["prediction_time"])
        inputs = dataset.manifest["inputs"]
        positions = {view.name: p for view in dataset.views if (p := inputs[view.name]["position"]) is not None}
        moment = datetime.fromisoformat(dataset.manifest["as_of"])

        def question(views: Sequence[FeatureView]) -> ServiceQuestion:
            return ServiceQuestion(
                bind(service, views),
                None,
                "all",
                lambda view: positions.get(view.name),
                instant_us(moment, "as_of"),
            )

        tested = untouched = dataset.frame[exam.test]
        moved = transform_arrivals(dataset.views, outages=outages)
        if outages:
            tested = point_in_time_join(
                untouched.select(dataset.manifest["spine"]["columns"]),
                moved,
                as_of=moment,
                prediction_time=prediction_time,
                positions=positions,
                service=service,
            )
        t = check_spine(tested, [], prediction_time).t
        asked, plain = question(moved), question(dataset.views)
        training = check_spine(dataset.frame[exam.train], [], prediction_time).t
        return cls(
            tested,
            untouched if outages else None,
            t,
            asked.down(asked.bound.down_after, t),
            asked.chosen(t).astype(np.int64),
            plain.chosen(t).astype(np.int64),
            plain.chosen(training).astype(np.int64),
            drawing,
        )

    def training_rows(self, place: int, rows: VariantRows) -> pl.Series:
        """Which of the training rows train the variant at a place.

        Raises:
            DefinitionError: If none does, or `rows` is unknown.
        """
        if rows not in ("all", "chosen"):
            raise DefinitionError(f"train_rows={rows!r} is unknown", 'choose "all" or "chosen".')
        keep = pl.Series(np.ones(len(self.trainable), np.bool_) if rows == "all" else self.trainable == place)
        if not keep.any():
            raise DefinitionError(
                "a variant would not have been chosen at any training row", 'train it on all rows: train_rows="all".'
            )
        return keep

    def add(self, name: str, trained: Trained, truth: Numbers) -> None:
        """Ask a variant's model about the test rows."""
        self.errors[name] = Errors.of(trained.predict(self.tested), truth)
        if self.untouched is not None:
            self.without[name] = Errors.of(trained.predict(self.untouched), truth)

    def patterns(self) -> list[tuple[tuple[str, ...], Ints]]:
        """Which providers were down together, and at which rows; the most frequent first."""
        flags = np.array([self.down[name] for name in self.down], np.bool_).reshape(len(self.down), len(self.t)).T
        found, place = np.unique(flags, axis=0, return_inverse=True)
        patterns = [
            (tuple(name for name, is_off in zip(self.down, row, strict=True) if is_off), np.flatnonzero(place == n))
            for n, row in enumerate(found)
        ]
        return sorted(patterns, key=lambda pattern: (-len(pattern[1]), pattern[0]))

    def scores(self) -> pl.DataFrame:
        """One row per pattern and variant; see `OutageCost.frame`."""
        cells = []
        for down, rows in self.patterns():
            facts, days = self._facts(down, rows)
            errors = self._at(rows)
            best = min(errors, key=lambda name: errors[name].mae)
            for place, (name, found) in enumerate(errors.items()):
                own = {
                    "variant": name,
                    "rows_served": int((self.chosen[rows] == place).sum()),
                    "mae_without_outages": self.without[name].at(rows).mae if self.without else None,
                    "wins": name == best,
                }
                cells.append(facts | own | found.facts(days))
        return pl.DataFrame(cells, schema=_SCORED)

    def winners(self) -> pl.DataFrame:
        """One row per pattern; see `OutageCost.winners`."""
        return pl.DataFrame([self._winner(down, rows) for down, rows in self.patterns()], schema=_WINNERS)

    def overall(self) -> pl.DataFrame:
        """One row per variant and the router; see `OutageCost.overall`."""
        rows = np.flatnonzero(self.chosen >= 0)
        if not len(rows):
            return pl.DataFrame(schema=_OVERALL)
        days, router = self.drawing.of(self.t[rows]), self._router(rows)
        found = [
            {"who": name, "rows": len(rows)} | errors.facts(days) | errors.less(router, days, "over_router")
            for name, errors in (self._at(rows) | {ROUTER: router}).items()
        ]
        return pl.DataFrame([{name: row[name] for name in _OVERALL} for row in found], schema=_OVERALL)

    def _winner(self, down: tuple[str, ...], rows: Ints) -> dict[str, Any]:
        facts, days = self._facts(down, rows)
        errors = self._at(rows)
        first, *others = sorted(errors, key=lambda name: errors[name].mae)
        served = self.chosen[rows]
        found: dict[str, Any] = facts | {
            "winner": first,
            "clear": False,
            "misrouted": False,
            "rows_served": int((served >= 0).sum()),
        }
        if others:
            margin = errors[others[0]].less(errors[first], days, "margin")
            clear = days.days >= FEW_DAYS and (margin["mae_margin_low"] or 0.0) > 0
            found |= {"runner_up": others[0], "clear": clear} | margin
        said = rows[served >= 0]
        if len(said):
            counts = np.bincount(served[served >= 0], minlength=len(errors))
            router, days = self._router(said), self.drawing.of(self.t[said])
            over = router.less(self.errors[first].at(said), days, "over_winner", prefix="router_")
            found |= {"served": list(errors)[int(counts.argmax())], "router_mae": router.mae} | over
            found["misrouted"] = days.days >= FEW_DAYS and (over["router_mae_over_winner_low"] or 0.0) > 0
        both = rows[(served >= 0) & (self.meant[rows] >= 0)]
        if self.without and len(both):
            before = _chosen_of(self.without, self.meant[both], both)
            found |= self._router(both).less(before, self.drawing.of(self.t[both]), "cost", prefix="router_")
        return {name: found.get(name) for name in _WINNERS}

    def _facts(self, down: tuple[str, ...], rows: Ints) -> tuple[dict[str, Any], DrawnDays]:
        days = self.drawing.of(self.t[rows])
        facts = {
            "pattern": f"without {', '.join(down)}" if down else ALL_UP,
            "down": list(down),
            "rows": len(rows),
            "share": len(rows) / len(self.t),
            "days": days.days,
        }
        return facts, days

    def _at(self, rows: Ints) -> dict[str, Errors]:
        return {name: found.at(rows) for name, found in self.errors.items()}

    def _router(self, rows: Ints) -> Errors:
        """The errors of the chosen variants, at rows at which one was."""
        return _chosen_of(self.errors, self.chosen[rows], rows)


def _chosen_of(errors: Mapping[str, Errors], chosen: Ints, rows: Ints) -> Errors:
    table = np.array([found.absolute for found in errors.values()])
    return Errors(table[chosen, rows])
