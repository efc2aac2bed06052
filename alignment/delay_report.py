"""How good delay rules are on a period whose arrivals were measured: who would have seen what, and with which features."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import numpy as np
import polars as pl

from alignment.arrivals import transform_arrivals
from alignment.delay_report_text import as_html, as_text, notebook_html
from alignment.delays import DelayRule, FixedDelay, PublishSchedule
from alignment.durations import Duration, DurationLike, instant_from_us, instant_us, parse_duration
from alignment.errors import DefinitionError, DelayFitError, MissingColumnError
from alignment.features import event_age, issue_age, latest, window
from alignment.heartbeats import provider_of
from alignment.join import point_in_time_join
from alignment.measured import ORIGIN, first_arrivals, key_of
from alignment.observations import FrameLike, Observations
from alignment.report_form import plain
from alignment.rows import ARRIVAL
from alignment.settling import human
from alignment.snapshot import as_observations
from alignment.spine import PREDICTION_TIME
from alignment.views import FeatureView
from alignment.wallclock import Instants

ENTITIES = 50
"""Features are compared for so many entities, those with the most rows."""
_LATE, _LATE_FACTOR, _HOUR_US = 0.99, 2, 3_600_000_000
_US = pl.Datetime("us", "UTC")
_SCORES = {
    "rule": pl.String,
    "is": pl.String,
    "precision": pl.Float64,
    "recall": pl.Float64,
    "f1": pl.Float64,
    "visible_bias": pl.Float64,
    "latest_differs": pl.Float64,
    "age_bias_s": pl.Float64,
    "age_error_s": pl.Float64,
}
_FEATURES = {
    "rule": pl.String,
    "feature": pl.String,
    "compared": pl.Int64,
    "differs": pl.Float64,
    "mae": pl.Float64,
    "bias": pl.Float64,
    "mean": pl.Float64,
}


@dataclass(frozen=True, slots=True, eq=False)
class DelayReport:
    """Delay rules against arrivals that were measured.

    Attributes:
        scores: One row per rule. Over the rows that might be visible (origin, that is event or issue, within `lookback` before t) of
            all prediction times together: `precision`, the share of the rows that the rule shows that were there; `recall`, the
            share of the rows that were there that it shows; `f1`, their harmonic mean; `visible_bias`, how many rows more (or
            fewer) it shows, as a share of those that were there. Of `latest`: `latest_differs`, where it takes another row or
            none; `age_bias_s` and `age_error_s`, how much older its row is than the true one, in seconds, and without sign.
        features: One row per rule and feature: `compared` rows with both values, `differs` (share of all rows), `mae` and `bias` (rule
            less truth) in the column's unit, and the true `mean`.
        provider: Whose rows.
        since: Stamps from here on were hidden from the rules.
        until: The last prediction time.
        lookback: How far back rows were looked at.
        times: How many prediction times.
        rows: Held-out keys that rules gave arrivals to.
        draws: How many draws of rules that draw were averaged.
    """

    scores: pl.DataFrame
    features: pl.DataFrame
    provider: str
    since: datetime
    until: datetime
    lookback: str
    times: int
    rows: int
    draws: int

    def best(self, score: str) -> str:
        """The rule with the best score: the greatest `precision`, `recall` or `f1`, of the others that nearest to nothing.

        Raises:
            MissingColumnError: If there is no such score.
        """
        if score not in self.scores.columns:
            raise MissingColumnError(score, "the scores", self.scores.columns)
        great = score in ("precision", "recall", "f1")
        order = self.scores.drop_nulls(score).sort(
            -pl.col(score) if great else pl.col(score).abs(), maintain_order=True
        )
        return str(order["rule"][0])

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON; what is not finite is None."""
        return {
            "provider": self.provider,
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "lookback": self.lookback,
            "times": self.times,
            "rows": self.rows,
            "draws": self.draws,
            "scores": [plain(row) for row in self.scores.to_dicts()],
            "features": [plain(row) for row in self.features.to_dicts()],
        }

    def to_html(self) -> str:
        """A page of its own: no scripts, nothing loaded from elsewhere, light or dark as the reader prefers."""
        return as_html(self.to_dict())

    def _repr_html_(self) -> str:
        return notebook_html(self.to_dict())

    def __str__(self) -> str:
        return as_text(self.to_dict())

    __repr__ = __str__


def assess_delay(
    rules: DelayRule | Mapping[str, DelayRule],
    observations: Observations | FeatureView | FrameLike,
    *,
    since: datetime,
    until: datetime | None = None,
    lookback: DurationLike | None = None,
    column: str | None = None,
    times: int = 1000,
    draws: int = 5,
    provider: str | None = None,
) -> DelayReport:
    """How good delay rules are where arrivals were measured, at evenly spaced prediction times.

    Rows that are new from `since` on are given arrivals by each rule, and two questions are asked: which of the rows near a prediction
    time would have been visible, and which values would features have had. Features come from `point_in_time_join` over the
    same view with moved arrivals (`transform_arrivals`), for the entities with the most rows.

    Args:
        rules: A rule, or name to rule; any that gives arrivals.
        observations: `Observations`, a view, or a log, with measured arrivals.
        since: Rules know nothing that arrived from here on.
        until: Stamps later than this are not looked at.
        lookback: Rows whose event (of forecasts issue) is older than this at t are left out, for they are there anyway, and the length
            of windows; None for twice the 99th percentile of the delays, at most a quarter of the held-out time.
        column: Values of features; None for the first column of numbers.
        times: How many prediction times.
        draws: How many draws of a rule that draws are averaged.
        provider: Name in the report; None for the log's provider or the view.

    Raises:
        DelayFitError: If nothing was measured from `since` on.
        DefinitionError: If something is no delay rule, or `times` or `draws` is not positive.
        MissingColumnError: If the column is not there, or the observations have no column of numbers.
        AlignmentError: What the observations break; see `Observations`.

    Example:
        >>> from datetime import UTC, timedelta
        >>> event = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(96)]
        >>> frame = pl.DataFrame({"event_time": event, "temp": 1.0}).with_columns(
        ...     arrival_time=pl.col("event_time") + timedelta(minutes=20)
        ... )
        >>> report = assess_delay(
        ...     {"right": FixedDelay("20m"), "late": FixedDelay("80m")},
        ...     Observations(frame, []),
        ...     since=event[48],
        ...     lookback="12h",
        ... )
        >>> report.scores.select("rule", "precision", pl.col("recall").round(3)).rows()
        [('right', 1.0, 1.0), ('late', 1.0, 0.914)]
    """
    named = dict(rules) if isinstance(rules, Mapping) else {type(rules).__name__: rules}
    for name, rule in named.items():
        if not isinstance(rule, DelayRule):
            raise DefinitionError(f"{name}: {rule!r} is not a delay rule", 'e.g. al.FixedDelay("45m").')
    if times < 1 or draws < 1:
        raise DefinitionError(f"times={times!r} and draws={draws!r} are not both positive", "e.g. times=1000, draws=5.")
    rows = as_observations(observations)
    held = _HeldOut.of(rows, since, until, lookback, times)
    view = _view(rows, _column(rows, column), held.lookback)
    spine = _spine(rows, held)
    truth = point_in_time_join(spine, [view])
    scores: list[dict[str, Any]] = []
    features: list[dict[str, Any]] = []
    for name, rule in named.items():
        drawn = _draws(rule, draws)
        seen = [_answers(view, one, spine, held) for one in drawn]
        visible = held.visible([answer for answer, _ in seen])
        compared = [_compared(view, truth, answers) for _, answers in seen]
        ages = [_ages(view, truth, answers) for _, answers in seen]
        scores.append({"rule": name, "is": _told(rule), **visible, **_means(ages)})
        features += [
            {"rule": name, "feature": feature, **_means([one[feature] for one in compared])} for feature in compared[0]
        ]
    return DelayReport(
        scores=pl.DataFrame(scores, schema=_SCORES),
        features=pl.DataFrame(features, schema=_FEATURES),
        provider=provider or provider_of(view),
        since=since,
        until=instant_from_us(int(held.t[-1])),
        lookback=held.lookback.text,
        times=times,
        rows=held.keys.height,
        draws=draws,
    )


@dataclass(frozen=True, slots=True)
class _HeldOut:
    """Keys that are new after the cut, in order of their origin, and the prediction times."""

    rows: Observations
    keys: pl.DataFrame
    t: Instants
    lookback: Duration

    @classmethod
    def of(
        cls, rows: Observations, since: datetime, until: datetime | None, lookback: DurationLike | None, times: int
    ) -> _HeldOut:
        start = instant_us(since, "since")
        firsts = first_arrivals(rows, until=until)
        keys = firsts.filter(pl.col(ORIGIN) > start).sort(ORIGIN, maintain_order=True)
        end = int(keys[ARRIVAL].max() or start)  # type: ignore[arg-type]
        if keys.is_empty() or end <= start:
            raise DelayFitError(
                f"{rows.place}: nothing was measured after {since.isoformat()}",
                "hold out a period with measured arrivals.",
            )
        if lookback is None:
            late = int((keys[ARRIVAL] - keys[ORIGIN]).quantile(_LATE, "linear") or 0)
            least = -(-_LATE_FACTOR * late // _HOUR_US) or 1
            most = (end - start) // 4 // _HOUR_US
            lookback = f"{min(least, most)}h" if most else f"{max(1, (end - start) // 4)}us"
        span = parse_duration(lookback, "lookback")
        begin = min(start + span.total_us, end)
        t = np.linspace(begin, end, times).astype(np.int64)
        return cls(rows, keys, t, span)

    def visible(self, modelled: Sequence[Instants]) -> dict[str, float | None]:
        """Precision and recall of the rows that arrivals show, over all draws."""
        origin, true = self.keys[ORIGIN].to_numpy(), self.keys[ARRIVAL].to_numpy()
        both = shown = there = 0
        for t in self.t.tolist():
            near = slice(*np.searchsorted(origin, [t - self.lookback.total_us, t], side="right").tolist())
            came = true[near] <= t
            there += len(modelled) * int(came.sum())
            for arrivals in modelled:
                seen = arrivals[near] <= t
                both += int((came & seen).sum())
                shown += int(seen.sum())
        precision, recall = both / shown if shown else None, both / there if there else None
        return {
            "precision": precision,
            "recall": recall,
            "f1": 2 * both / (shown + there) if shown + there else None,
            "visible_bias": (shown - there) / there if there else None,
        }


def _answers(view: FeatureView, rule: DelayRule, spine: pl.DataFrame, held: _HeldOut) -> tuple[Instants, pl.DataFrame]:
    """Under a rule: the arrivals of the held-out keys, and the features."""
    moved = transform_arrivals(view, delays={provider_of(view): rule})
    given = first_arrivals(moved[0].observations, measured=False)
    key = key_of(held.rows)
    told = held.keys.select(key).join(
        given.select(*key, ARRIVAL), on=key, how="left", maintain_order="left", nulls_equal=True
    )
    return told[ARRIVAL].fill_null(np.iinfo(np.int64).max).to_numpy(), point_in_time_join(spine, moved)


def _draws(rule: DelayRule, draws: int) -> list[DelayRule]:
    own: Any = rule
    drawn = dataclasses.is_dataclass(own) and any(one.name == "draw" for one in dataclasses.fields(own))
    return [cast("DelayRule", dataclasses.replace(own, draw=own.draw + n)) for n in range(draws)] if drawn else [rule]


def _told(rule: DelayRule) -> str:
    if isinstance(rule, FixedDelay):
        return f"each row {human(rule.duration.total_us / 1e6)} later"
    if isinstance(rule, PublishSchedule):
        days = {0: "on the day", 1: "on the day after that", -1: "on the day before that"}
        far = f"{abs(rule.days)} days {'after' if rule.days > 0 else 'before'} that"
        return f"at {rule.at} {rule.zone}, {days.get(rule.days, far)} of the {rule.day_of}"
    return repr(rule)


def _column(rows: Observations, column: str | None) -> str:
    """The column of values that features are compared by.

    Raises:
        MissingColumnError: If it is not there, or there is no column of numbers.
    """
    if column is not None and column not in rows.values:
        raise MissingColumnError(column, rows.place, rows.values, argument="column")
    numbers = [name for name in rows.values if rows.schema[name].is_numeric()]
    if column is None and not numbers:
        raise MissingColumnError("of numbers", rows.place, rows.values, argument="column")
    return column or numbers[0]


def _view(rows: Observations, column: str, lookback: Duration) -> FeatureView:
    """What is compared: `latest`, a window's count and mean, the age of the row that `latest` takes."""
    numeric = rows.schema[column].is_numeric() or rows.schema[column] == pl.Boolean
    what = ["count", "mean"] if numeric else ["count"]
    offset = f"-{lookback.text}" if rows.kind == "forecast" else "0s"
    ages = [event_age(), issue_age()] if rows.kind == "forecast" else [event_age()]
    features = [latest(column), window(column, what, lookback.text, offset), *ages]
    return FeatureView("held_out" if rows.source is None else rows.source.provider, None, rows, features)


def _spine(rows: Observations, held: _HeldOut) -> pl.DataFrame:
    t = pl.DataFrame({PREDICTION_TIME: pl.Series(held.t, dtype=pl.Int64).cast(_US)})
    if not rows.entities:
        return t
    counted = (
        held.keys.group_by(rows.entities, maintain_order=True).len().sort("len", descending=True, maintain_order=True)
    )
    return counted.head(ENTITIES).select(rows.entities).join(t, how="cross", maintain_order="left_right")


def _compared(view: FeatureView, truth: pl.DataFrame, answers: pl.DataFrame) -> dict[str, dict[str, float | None]]:
    """Per feature how far values are from the truth."""
    found = {}
    for feature in view.features:
        name = view.column_name(feature)
        kind = view.column_type(feature)
        if isinstance(kind, pl.Duration):
            continue
        both = pl.DataFrame({"true": truth[name], "told": answers[name]})
        numbers = both.drop_nulls().select(pl.all().cast(pl.Float64)) if kind.is_numeric() else both.clear()
        gap = numbers["told"] - numbers["true"] if numbers.height else pl.Series([], dtype=pl.Float64)
        found[feature.name] = {
            "compared": numbers.height,
            "differs": both.select(pl.col("true").ne_missing(pl.col("told")).mean()).item(),
            "mae": gap.abs().mean(),
            "bias": gap.mean(),
            "mean": numbers["true"].mean() if numbers.height else None,
        }
    return cast("dict[str, dict[str, float | None]]", found)


def _ages(view: FeatureView, truth: pl.DataFrame, answers: pl.DataFrame) -> dict[str, float | None]:
    """How often `latest` takes another row, and how much older it is: by event, of forecasts by issue."""
    names = [view.column_name(one) for one in view.features if isinstance(view.column_type(one), pl.Duration)]
    other = pl.any_horizontal(truth[name].ne_missing(answers[name]) for name in names)
    age = (answers[names[-1]] - truth[names[-1]]).drop_nulls().dt.total_microseconds() / 1e6
    return {
        "latest_differs": cast("float", truth.select(other.mean()).item()),
        "age_bias_s": cast("float | None", age.mean()),
        "age_error_s": cast("float | None", age.abs().mean()),
    }


def _means(draws: Iterable[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Means over draws; of draws without a value none."""
    frame = pl.DataFrame(list(draws), schema_overrides={"compared": pl.Float64})
    means = {name: frame[name].cast(pl.Float64).mean() for name in frame.columns}
    if "compared" in means:
        means["compared"] = round(cast("float", means["compared"]))
    return cast("dict[str, float | None]", means)
