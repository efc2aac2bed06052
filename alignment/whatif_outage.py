"""What an outage costs: the score of each way to serve, by which providers were up, and which way wins where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from alignment.dataset import build_dataset
from alignment.durations import DurationLike
from alignment.errors import ServiceError
from alignment.exams import exam_of
from alignment.join import Positions
from alignment.labels import Label
from alignment.layout import Ints
from alignment.models import Model, name_of, train
from alignment.observations import FrameLike
from alignment.outages import Outage, as_outages
from alignment.report_form import plain
from alignment.resampling import CONFIDENCE, DRAWS, Drawing
from alignment.service_binding import BoundService, bind
from alignment.service_join import VariantRows
from alignment.services import FeatureService
from alignment.spine import PREDICTION_TIME
from alignment.splits import LOOKBACK
from alignment.views import FeatureView
from alignment.whatif_delay import check_known, notes_of
from alignment.whatif_outage_text import as_html, as_text, notebook_html
from alignment.whatif_patterns import Fates

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, eq=False)
class OutageCost:
    """What each way to serve is worth while providers are up or down.

    Of every figure `_low` and `_high` are the bounds between which lies 95 % of what days drawn anew give; null of less than
    two days.

    Attributes:
        frame: One row per availability pattern and variant, the most frequent pattern first. `pattern` in words, `down` the
            providers that were, `rows` tested, their `share` and on how many `days`; `rows_served` at which the service would
            have chosen the variant; `mae` and `rmse` of the variant's model on all of the pattern's rows; `mae_without_outages`
            on the same rows without the injected outages (null if none was); `wins`, whether its `mae` is the least.
        winners: One row per pattern: the `winner`, the `runner_up`, by how much (`mae_margin`, paired on the same rows), whether
            that is `clear` (its interval is above 0, and there are five days or more); the variant that the service would have chosen
            most often (`served`, null if none), at how many rows it would have chosen any (`rows_served`), and on these rows the
            error of what it chose (`router_mae`), how much greater that is than the winner's (`router_mae_over_winner`), whether
            that is clear (`misrouted`), and how much greater it is than without the injected outages (`router_mae_cost`, null
            if none was).
        overall: One row per variant, and the `router`, which asks at each row the variant that the service chose; on the rows
            at which it chose one. `mae_over_router` is how much greater the variant's error is, on the same rows.
        service: The service's name.
        label: The label's column.
        unit: Its unit, if it was given.
        models: Variant to what its model is, in words.
        outages: What was injected.
        trained_at: T of the split.
        as_of: When the labels were read.
        train_rows: Variant to rows that trained it.
        test_rows: Rows that were tested.
        test_days: Days that they lie on, in `zone`.
        zone: Whose days were drawn.
        confidence: Share of the draws inside an interval.
        notes: What else to know.
    """

    frame: pl.DataFrame
    winners: pl.DataFrame
    overall: pl.DataFrame
    service: str
    label: str
    unit: str | None
    models: Mapping[str, str]
    outages: tuple[Outage, ...]
    trained_at: datetime
    as_of: datetime
    train_rows: Mapping[str, int]
    test_rows: int
    test_days: int
    zone: str
    confidence: float
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON; what is not finite is None."""
        return {
            "service": self.service,
            "label": self.label,
            "unit": self.unit,
            "models": dict(self.models),
            "outages": [outage.to_dict() for outage in self.outages],
            "trained_at": self.trained_at.isoformat(),
            "as_of": self.as_of.isoformat(),
            "train_rows": dict(self.train_rows),
            "test_rows": self.test_rows,
            "test_days": self.test_days,
            "zone": self.zone,
            "confidence": self.confidence,
            "patterns": [plain(row) for row in self.frame.to_dicts()],
            "winners": [plain(row) for row in self.winners.to_dicts()],
            "overall": [plain(row) for row in self.overall.to_dicts()],
            "notes": list(self.notes),
        }

    def plot(self, *, score: str = "mae") -> Figure:
        """Each variant's score by pattern, with intervals; what the service chose is ringed.

        Args:
            score: `"mae"` or `"rmse"`.

        Returns:
            A matplotlib figure; needs the extra `plot`.
        """
        from alignment.whatif_plot import plot_outage

        return plot_outage(self, score)

    def to_html(self) -> str:
        """A page of its own: no scripts, nothing loaded from elsewhere, light or dark as the reader prefers."""
        return as_html(self.to_dict())

    def _repr_html_(self) -> str:
        return notebook_html(self.to_dict())

    def __str__(self) -> str:
        return as_text(self.to_dict())

    def __repr__(self) -> str:
        return f"OutageCost({self.service!r}, {self.winners.height} patterns, {self.test_rows} rows tested)"


def outage_cost(
    spine: FrameLike,
    views: Sequence[FeatureView] | FeatureView,
    service: FeatureService,
    *,
    label: Label,
    outages: Sequence[Outage] | Outage = (),
    model: Model | Mapping[str, Model] = None,
    train_rows: VariantRows = "all",
    test_from: datetime | None = None,
    embargo: DurationLike | None = LOOKBACK,
    known_columns: Sequence[str] = (),
    as_of: datetime | None = None,
    prediction_time: str = PREDICTION_TIME,
    positions: Positions | None = None,
    threads: int | None = None,
    draws: int = DRAWS,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    zone: str | None = None,
    unit: str | None = None,
    after_each: Callable[[str], object] | None = None,
) -> OutageCost:
    """The score of each variant of a service by availability pattern, which one wins where, and what the service makes of it.

    Each variant has a model of its own, trained on its own features. The test rows are answered under the arrivals as they were,
    outages included, and under those that are injected; the training rows only under the arrivals as they were. A pattern is
    the set of providers that are down at a row: no heartbeat in `(t - down_after, t]` (R20). A provider without
    `down_after` never is. The router asks at each row the model of the variant that the service would have chosen.

    Args:
        spine: See `point_in_time_join`.
        views: Whose features.
        service: Its variants are compared; its fallbacks apply.
        label: What the models are to say.
        outages: What happens to providers in the test period, beside what did happen.
        model: See `delay_cost`; one for all variants, or by variant.
        train_rows: `"all"` trains a variant on all rows; `"chosen"` only on those at which it would have been chosen.
        test_from: T; None leaves the last three tenths of the labelled rows for the test.
        embargo: See `time_splits`.
        known_columns: Columns of the spine that the models may use beside the features, for instance a calendar.
        as_of: When labels are read; None is the greatest arrival in the inputs.
        prediction_time: The spine's column of prediction times.
        positions: Log positions to answer at; None is each log's head now.
        threads: How many threads; None for one per processor.
        draws: How often days are drawn.
        confidence: Share of the draws inside an interval.
        seed: The same seed draws the same days.
        zone: IANA zone of the days; None for UTC.
        unit: The label's unit, for text and axes.
        after_each: Called with the variant's name after each.

    Returns:
        The report.

    Raises:
        AlignmentError: See `build_dataset`.
        ServiceError: If the service does not fit the views, or a model is given for a variant that it has not.
        MissingColumnError: If the spine lacks one of `known_columns`.
        DefinitionError: If nothing is left to train or test on, or a model does not take the rows.
        LabelError: If the label is no number.

    Example:
        >>> from datetime import UTC, timedelta
        >>> from alignment.features import latest
        >>> from alignment.labels import label
        >>> from alignment.observations import Observations
        >>> from alignment.services import Variant
        >>> start = datetime(2026, 1, 1, tzinfo=UTC)
        >>> hours = pl.datetime_range(start, start + timedelta(days=10), "1h", eager=True)
        >>> true = pl.DataFrame({"site": "a", "event_time": hours, "load": [h % 24.0 for h in range(len(hours))]})
        >>> true = true.with_columns(arrival_time=pl.col("event_time"))
        >>> meter = FeatureView("meter", ["site"], true, [latest("load")])
        >>> clock = FeatureView("clock", ["site"], true, [latest("load", name="yesterday")])
        >>> service = FeatureService(
        ...     "power",
        ...     ["meter", "clock"],
        ...     down_after={"meter": "2h"},
        ...     variants=[Variant("full"), Variant("spare", needs=["clock"], features=["clock"])],
        ... )
        >>> costs = outage_cost(
        ...     pl.DataFrame({"site": "a", "prediction_time": hours}),
        ...     [meter, clock],
        ...     service,
        ...     label=label("load", "1h", observations=Observations(true, ["site"])),
        ...     outages=[Outage("meter", start + timedelta(days=9), start + timedelta(days=9, hours=12))],
        ... )
        >>> costs.winners.select("pattern", "rows", "served").rows()
        [('all up', 61, 'full'), ('without meter', 11, 'spare')]
    """
    views = [views] if isinstance(views, FeatureView) else list(views)
    outages = as_outages(outages)
    bound = bind(service, views)
    models = _models(model, bound)
    dataset = build_dataset(
        spine,
        views,
        label=label,
        as_of=as_of,
        prediction_time=prediction_time,
        positions=positions,
        threads=threads,
        service=service,
    )
    check_known(known_columns, dataset)
    exam = exam_of(dataset, label.name, test_from=test_from, embargo=embargo)
    drawing = Drawing(draws=draws, confidence=confidence, seed=seed, zone=zone)
    fates = Fates.of(service, dataset, exam, outages, drawing)
    sizes: dict[str, int] = {}
    for place, (name, one) in enumerate(models.items()):
        columns = [*known_columns, *bound.variant(name).features]
        own = fates.training_rows(place, train_rows)
        trained = train(one, dataset.frame[exam.train.filter(own)], columns, exam.target[own.to_numpy()])
        fates.add(name, trained, exam.truth)
        sizes[name] = int(own.sum())
        if after_each is not None:
            after_each(name)
    days = drawing.of(fates.t)
    return OutageCost(
        frame=fates.scores(),
        winners=fates.winners(),
        overall=fates.overall(),
        service=service.name,
        label=label.column,
        unit=unit,
        models={name: name_of(one) for name, one in models.items()},
        outages=outages,
        trained_at=exam.at,
        as_of=datetime.fromisoformat(dataset.manifest["as_of"]),
        train_rows=sizes,
        test_rows=len(exam.test),
        test_days=days.days,
        zone=zone or "UTC",
        confidence=confidence,
        notes=(*notes_of(exam, days), *_notes(bound, fates.chosen)),
    )


def _models(model: Any, bound: BoundService) -> dict[str, Model]:
    """A model per variant.

    Raises:
        ServiceError: If one is given for a variant that the service has not.
    """
    names = [variant.name for variant in bound.variants]
    if not isinstance(model, Mapping):
        return dict.fromkeys(names, model)
    for name in model:
        bound.variant(name)
    if missing := [name for name in names if name not in model]:
        raise ServiceError(
            f"there is no model for the variant {missing[0]!r} of {bound.service.place}",
            f"add model={{{missing[0]!r}: ...}}; None is a ridge regression.",
        )
    return {name: model[name] for name in names}


def _notes(bound: BoundService, chosen: Ints) -> list[str]:
    notes = []
    if not bound.down_after:
        notes.append(
            f"{bound.service.place} names no down_after, so that no provider is ever down; e.g. "
            'al.FeatureService(..., down_after="1h")'
        )
    if unanswered := int((chosen < 0).sum()):
        notes.append(f"at {unanswered:,} of {len(chosen):,} rows the service would have chosen no variant")
    return notes
