"""What the training sets of the worked example promise, and what the models trained on them deliver.

Every model is a ridge regression that knows where the sun will stand. Offline it is scored on test rows made the same way as
its training rows; live on what a replay of the test days says serving would have had, tick by tick.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

import alignment as al
from alignment.resampling import Drawing, Errors
from serving.errors import MissingExtraError
from serving.quickstart import LABEL_COLUMNS, TRAINING_DAYS, service, views

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from ingestion import ObservationLog
    from ingestion.sources.simulated import SimulatedWorld

    Numbers = npt.NDArray[np.float64]

DRAWN_SEED: Final = 99
"""Of the outages that models are tested under; those that one is trained under have others."""
_CHOSEN: Final = "power__variant"


@dataclass(frozen=True, kw_only=True)
class Score:
    """A model's errors on the test rows, in kW: mean absolute error unless it is said otherwise.

    Attributes:
        offline: On test rows made the same way as the training rows.
        live: On test rows as serving would have had them.
        gap: The difference.
        gap_low: With 95 % confidence the gap is not less (days drawn again and again, whole).
        gap_high: Nor greater.
        offline_rmse: Root of the mean squared error, which is what the model minimises.
        live_rmse: The same live.
        live_in_outages: Live, at rows at which a provider was down.
        live_otherwise: Live, at the other rows.
        in_drawn_outages: Live under outages that never happened, at rows at which one of them has a provider down.
        in_drawn_outages_less_asknown: The same less that of `asknown`.
        in_drawn_outages_less_asknown_low: With 95 % confidence it is not less.
        in_drawn_outages_less_asknown_high: Nor greater.
    """

    offline: float
    live: float
    gap: float
    gap_low: float | None
    gap_high: float | None
    offline_rmse: float
    live_rmse: float
    live_in_outages: float | None
    live_otherwise: float | None
    in_drawn_outages: float | None
    in_drawn_outages_less_asknown: float | None = None
    in_drawn_outages_less_asknown_low: float | None = None
    in_drawn_outages_less_asknown_high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Errors in kW on the test days.

    Attributes:
        methods: Per way to make training rows, the model's errors.
        persistence_live: The mean absolute error of the newest known power, without a model.
        training_rows: Rows that each model was trained on (under outages several times as many).
        test_rows: Rows that were scored.
        test_days: Days that they are of.
        outage_rows: Rows at which a provider was down.
        drawn_outage_rows: Rows at which one would have been down under the drawn outages.
        variants: Rows that each variant of the router answered.
    """

    methods: Mapping[str, Score]
    persistence_live: float
    training_rows: int
    test_rows: int
    test_days: int
    outage_rows: int
    drawn_outage_rows: int
    variants: Mapping[str, int]

    @property
    def promised(self) -> dict[str, float]:
        """Per way, the error on test rows made the same way as the training rows."""
        return {name: score.offline for name, score in self.methods.items()}

    @property
    def live(self) -> dict[str, float]:
        """Per way, the error on test rows as serving would have had them."""
        return {name: score.live for name, score in self.methods.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "unit": "kW",
            "promised": self.promised,
            "live": self.live,
            "persistence_live": self.persistence_live,
            "training_rows": self.training_rows,
            "test_rows": self.test_rows,
            "test_days": self.test_days,
            "outage_rows": self.outage_rows,
            "drawn_outage_rows": self.drawn_outage_rows,
            "variants": dict(self.variants),
            "methods": {name: asdict(score) for name, score in self.methods.items()},
        }


def replayed(
    world: SimulatedWorld, logs: Mapping[str, ObservationLog], outages: Sequence[al.Outage] = ()
) -> pl.DataFrame:
    """What serving would have returned on the test days, every ten minutes, and which variant it would have chosen.

    Args:
        world: The world that filled the logs.
        logs: Provider to its log.
        outages: What would have happened beside the world's own outages.

    Returns:
        The rows of `alignment.replay`, with `power__variant`.
    """
    declared = views(logs)
    start = world.start + timedelta(days=TRAINING_DAYS)
    asked = {"site": list(world.sites)}
    return al.replay(
        *(declared, asked, start, world.end, "10m"),
        service=service(declared),
        outages=outages,
        status=False,
        ages=False,
    )


def score(
    world: SimulatedWorld,
    sets: Mapping[str, al.Dataset],
    *,
    logs: Mapping[str, ObservationLog] | None = None,
    more: Sequence[al.Dataset] = (),
) -> Scores:
    """Train on the first days, score on the rest.

    A row trains only if its label had arrived when the training days ended (R12), and if its features look at nothing that
    those of the tested rows look at; `alignment.split_at` cuts.

    Args:
        world: The world.
        sets: Data sets of the same rows in the same order, `asknown` among them.
        logs: Provider to its log: what is live is replayed from them, and the router is scored as well. Without them live is
            `asknown`.
        more: `asknown` under outages: one more model trains on these rows too.

    Returns:
        The scores.

    Raises:
        MissingExtraError: If scikit-learn is not installed.
    """
    split = al.split_at(sets["asknown"], world.start + timedelta(days=TRAINING_DAYS))
    live, drawn = None, None
    if logs is not None:
        live = replayed(world, logs)
        invented = al.draw_outages(list(logs), split.at, world.end, per_month=30, seed=DRAWN_SEED)
        drawn = replayed(world, logs, invented)
    exam = _Exam.of(sets["asknown"], split, live, drawn)
    asked = {name: exam.ask([dataset], dataset) for name, dataset in sets.items()}
    if more:
        asked["asknown + outages"] = exam.ask([sets["asknown"], *more], sets["asknown"])
    if logs is not None:
        asked["router"] = exam.route(logs)
    return exam.report(asked)


@dataclass(frozen=True)
class _Asked:
    """What a model got wrong on the test rows: made as its training rows were, live, and under drawn outages."""

    offline: Errors
    live: Errors
    drawn: Errors | None


@dataclass(frozen=True)
class _Exam:
    """The split, the test rows as they were live and under drawn outages, and how sure a score on them is."""

    asknown: al.Dataset
    split: al.Split
    live: pl.DataFrame
    drawn: pl.DataFrame | None
    truth: Numbers
    t: npt.NDArray[np.int64]

    @classmethod
    def of(cls, asknown: al.Dataset, split: al.Split, live: pl.DataFrame | None, drawn: pl.DataFrame | None) -> _Exam:
        tested = split.test_frame(asknown)

        def at_test_rows(replay: pl.DataFrame) -> pl.DataFrame:
            known = tested.select("site", "prediction_time", "clear_sky")
            return known.join(replay, on=["site", "prediction_time"], how="left", maintain_order="left", validate="1:1")

        return cls(
            asknown,
            split,
            tested if live is None else at_test_rows(live),
            None if drawn is None else at_test_rows(drawn),
            tested["label"].to_numpy(),
            tested["prediction_time"].dt.epoch("us").to_numpy(),
        )

    def ask(self, trained_on: Sequence[al.Dataset], tested_on: al.Dataset) -> _Asked:
        """A model that is trained on data sets of the same rows."""
        columns = ["clear_sky", *self.asknown.feature_columns]
        model = _trained([self.split.train_frame(dataset) for dataset in trained_on], columns)
        said = [model(self.split.test_frame(tested_on)), model(self.live)]
        drawn = None if self.drawn is None else Errors.of(model(self.drawn), self.truth)
        return _Asked(Errors.of(said[0], self.truth), Errors.of(said[1], self.truth), drawn)

    def route(self, logs: Mapping[str, ObservationLog]) -> _Asked:
        """A model per variant, each with its own features; the variant that is chosen at a row answers.

        Offline rows are those that a training set of the variant has; live the replay says which one was chosen.
        """
        declared = views(logs)
        chooser = service(declared)
        rows = self.split.test_frame(self.asknown).select("site", "prediction_time", "clear_sky")
        train = self.split.train_frame(self.asknown)
        replays = [frame for frame in (self.live, self.drawn) if frame is not None]
        said, offline = [np.full(len(self.truth), np.nan) for _ in replays], []
        for variant in chooser.variants:
            columns = ["clear_sky", *(variant.features or ())]
            model = _trained([train], columns)
            for answers, frame in zip(said, replays, strict=True):
                chosen = (frame[_CHOSEN] == variant.name).fill_null(value=False)
                if chosen.any():
                    answers[chosen.to_numpy()] = model(frame.filter(chosen))
            own = al.build_dataset(rows, declared, service=chooser, variant=variant.name).frame
            if own.height:
                offline.append(own.select("site", "prediction_time").with_columns(said=pl.Series(model(own))))
        told = rows.join(pl.concat(offline), on=["site", "prediction_time"], how="left", maintain_order="left")
        errors = [Errors.of(one, self.truth) for one in said]
        return _Asked(Errors.of(told["said"].to_numpy(), self.truth), errors[0], errors[1] if errors[1:] else None)

    def _score(self, asked: _Asked, asknown: _Asked) -> Score:
        days = Drawing().of(self.t)
        down, drawn_down = _down(self.live), _down(self.drawn)
        found = Score(
            offline=asked.offline.mae,
            live=asked.live.mae,
            gap=asked.live.mae - asked.offline.mae,
            gap_low=(gap := asked.live.less(asked.offline, days, "gap"))["mae_gap_low"],
            gap_high=gap["mae_gap_high"],
            offline_rmse=asked.offline.rmse,
            live_rmse=asked.live.rmse,
            live_in_outages=_mae(asked.live, down),
            live_otherwise=None if down is None else _mae(asked.live, ~down),
            in_drawn_outages=_mae(asked.drawn, drawn_down),
        )
        if asked.drawn is None or asknown.drawn is None or drawn_down is None or not drawn_down.any():
            return found
        rows = np.flatnonzero(drawn_down)
        less = asked.drawn.at(rows).less(asknown.drawn.at(rows), Drawing().of(self.t[rows]), "less")
        return replace(
            found,
            in_drawn_outages_less_asknown=less["mae_less"],
            in_drawn_outages_less_asknown_low=less["mae_less_low"],
            in_drawn_outages_less_asknown_high=less["mae_less_high"],
        )

    def report(self, asked: Mapping[str, _Asked]) -> Scores:
        """All scores, and what else there is to say of the rows."""
        down, drawn_down = _down(self.live), _down(self.drawn)
        chosen: dict[str, int] = {}
        if down is not None:
            counted = self.live[_CHOSEN].cast(pl.String).value_counts(name="rows")
            chosen = dict(counted.sort("rows", _CHOSEN, descending=[True, False]).iter_rows())
        known = self.live["meter__power_kw"].fill_null(0.0).to_numpy()
        return Scores(
            methods={name: self._score(one, asked["asknown"]) for name, one in asked.items()},
            persistence_live=Errors.of(known, self.truth).mae,
            training_rows=len(self.split.train),
            test_rows=len(self.truth),
            test_days=Drawing().of(self.t).days,
            outage_rows=0 if down is None else int(down.sum()),
            drawn_outage_rows=0 if drawn_down is None else int(drawn_down.sum()),
            variants=chosen,
        )


def _down(replay: pl.DataFrame | None) -> npt.NDArray[np.bool_] | None:
    """The rows at which a provider was down; None if it is not known."""
    if replay is None or _CHOSEN not in replay.columns:
        return None
    return (replay[_CHOSEN] != "full").to_numpy()


def _mae(errors: Errors | None, rows: npt.NDArray[np.bool_] | None) -> float | None:
    return None if errors is None or rows is None or not rows.any() else errors.at(np.flatnonzero(rows)).mae


def _trained(frames: Sequence[pl.DataFrame], columns: Sequence[str]) -> Callable[[pl.DataFrame], Numbers]:
    """What a ridge regression says, trained on some rows.

    Raises:
        MissingExtraError: If scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "skill", "the worked example's model") from error

    model = make_pipeline(StandardScaler(), Ridge())
    model.fit(
        np.concatenate([_matrix(frame, columns) for frame in frames]),
        np.concatenate([frame[LABEL_COLUMNS[0]].to_numpy() for frame in frames]),
    )
    return lambda frame: model.predict(_matrix(frame, columns))


def _matrix(frame: pl.DataFrame, columns: Sequence[str]) -> Numbers:
    """Features as numbers: ages in minutes, null as 0."""
    ages = [name for name in columns if isinstance(frame.schema[name], pl.Duration)]
    return (
        frame.select(columns)
        .with_columns(pl.col(name).dt.total_minutes() for name in ages)
        .cast(pl.Float64)
        .fill_nan(None)
        .fill_null(0.0)
        .to_numpy()
    )
