"""What a replay shows at a glance: how much was there, how old it was, and which views were there together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from alignment.errors import MissingColumnError
from alignment.moves_text import moves_text
from alignment.report_form import aligned, heading, page, piece, remark, share, table, td, th
from alignment.status import STATUS

_STATUS, _VARIANT = "__status", "__variant"
_AGES = ("event_age", "arrival_age", "issue_age")
_QUANTILES = {"min": 0.0, "q05": 0.05, "median": 0.5, "q95": 0.95, "q99": 0.99, "max": 1.0}
_COVERAGE = {"feature": pl.String(), "rows": pl.Int64()} | dict.fromkeys(STATUS.categories, pl.Int64())
_AGE = {"age": pl.String(), "rows": pl.Int64()} | dict.fromkeys(_QUANTILES, pl.Duration("us"))
_PATTERN = {"available": pl.String(), "rows": pl.Int64(), "share": pl.Float64()}
NONE = "none"


@dataclass(frozen=True, slots=True)
class ReplaySummary:
    """What a replay shows at a glance.

    Attributes:
        rows: How many rows were replayed.
        coverage: One row per feature: `feature`, `rows`, and how many of them have each status (R20).
        ages: One row per view and age: `age` (such as `meter__event_age`), `rows` with one, and its `min`, `q05`, `median`, `q95`,
            `q99`, `max`; Duration, to the second.
        patterns: One row per availability pattern, most frequent first: `available` (the views of which no feature is expired,
            retracted or missing, joined by " + "; `none`), `rows`, `share`.
        variants: Where a service was replayed: `variant` (null for none), `rows`, `share`.
        provisional: How many rows may still change: not all that counts for them is known to have come (R1).
        asked: What was asked, as it was passed to `summarize_replay`; None if it was not.
    """

    rows: int
    coverage: pl.DataFrame
    ages: pl.DataFrame
    patterns: pl.DataFrame
    variants: pl.DataFrame
    provisional: int = 0
    asked: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain data; ages in seconds."""
        seconds = self.ages.with_columns(pl.col(name).dt.total_seconds(fractional=True) for name in _QUANTILES)
        return {
            "asked": None if self.asked is None else dict(self.asked),
            "rows": self.rows,
            "provisional": self.provisional,
            "coverage": self.coverage.to_dicts(),
            "ages_in_seconds": seconds.to_dicts(),
            "patterns": self.patterns.to_dicts(),
            "variants": self.variants.to_dicts(),
        }

    def to_html(self) -> str:
        """The summary as one page, without scripts."""
        return page("Replay", self._html())

    def _repr_html_(self) -> str:
        return piece(self._html())

    def _html(self) -> str:
        parts = [heading("Replay", f"{self.rows:,} rows", "What serving would have had at the ticks of a schedule.")]
        parts += [remark(line) for line in self._told()]
        for caption, cells in self._tables():
            head, *body = cells
            top = "".join(th(name, right=place > 0) for place, name in enumerate(head))
            lines = ["<tr>" + "".join(td(cell, left=i == 0) for i, cell in enumerate(line)) + "</tr>" for line in body]
            parts.append(table(caption, top, lines))
        return "\n".join(parts)

    def _tables(self) -> list[tuple[str, list[list[str]]]]:
        found = []
        words = list(STATUS.categories)
        rows = [[row["feature"], *(share(_part(row[word], row["rows"])) for word in words)] for row in self._coverage()]
        found.append(("Share of ticks by status", [["feature", *words], *rows]))
        if self.ages.height:
            rows = [
                [row["age"], *(_length(row[name]) for name in _QUANTILES)] for row in self.ages.iter_rows(named=True)
            ]
            found.append(("Ages of the newest row", [["age", *_QUANTILES], *rows]))
        for name, frame in (("available", self.patterns), ("variant", self.variants)):
            if frame.height:
                rows = [[r[name] or NONE, share(r["share"]), f"{r['rows']:,}"] for r in frame.iter_rows(named=True)]
                found.append(
                    (
                        f"Share of ticks by {name} {'views' if name == 'available' else ''}".strip(),
                        [[name, "share", "rows"], *rows],
                    )
                )
        return found

    def _told(self) -> list[str]:
        """What was asked, and how much of the answer may still change."""
        found = [] if self.asked is None else _asked_lines(self.asked)
        if self.provisional:
            found.append(
                f"{self.provisional:,} of {self.rows:,} rows are provisional: what counts for them may still arrive"
            )
        return found

    def _coverage(self) -> Iterable[dict[str, Any]]:
        return self.coverage.iter_rows(named=True)

    def __str__(self) -> str:
        parts = ["\n".join([f"{self.rows:,} rows replayed", *self._told()])]
        parts += [f"{caption}\n{aligned(cells)}" for caption, cells in self._tables()]
        return "\n\n".join(parts)


def summarize_replay(
    frames: pl.DataFrame | Iterable[pl.DataFrame], *, asked: Mapping[str, Any] | None = None
) -> ReplaySummary:
    """What a replay shows at a glance.

    Args:
        frames: What `replay` returned or `replay_batches` yields, with statuses. Frames are looked at one by one and not kept.
        asked: What was asked, as plain data, to be said with the answer: any of `start`, `end`, `every`, `zone`, `as_of`, `service`,
            `variant`, `rows`, and `outages`, `delays`, `seed` as a manifest has them.

    Raises:
        MissingColumnError: If there are features without a status.

    Example:
        >>> frame = pl.DataFrame(
        ...     {
        ...         "meter__load": [1.0, None, 2.0, None],
        ...         "meter__load__status": pl.Series(["present", "missing", "present", "null"], dtype=STATUS),
        ...     }
        ... )
        >>> summarize_replay(frame).patterns.rows()
        [('meter', 3, 0.75), ('none', 1, 0.25)]
    """
    count = provisional = 0
    statuses: dict[str, Any] = {}
    ages: dict[str, dict[int, int]] = {}
    patterns: dict[str, int] = {}
    variants: dict[str | None, int] = {}
    for frame in [frames] if isinstance(frames, pl.DataFrame) else frames:
        count += frame.height
        provisional += int(frame["provisional"].sum()) if "provisional" in frame.columns else 0
        features = [name.removesuffix(_STATUS) for name in frame.columns if name.endswith(_STATUS)]
        if not features:
            raise MissingColumnError("<feature>__status", "the replay", frame.columns)
        for name in features:
            code = frame[f"{name}{_STATUS}"].to_physical().to_numpy()
            statuses[name] = statuses.get(name, 0) + np.bincount(code, minlength=len(STATUS.categories))
        _add(patterns, _patterns(frame, features))
        for name in frame.columns:
            if name.rpartition("__")[2] in _AGES and frame.schema[name] == pl.Duration:
                _add(ages.setdefault(name, {}), frame[name].dt.total_seconds().drop_nulls())
            if name.endswith(_VARIANT):
                _add(variants, frame[name].cast(pl.String))
    return ReplaySummary(
        rows=count,
        coverage=pl.DataFrame(
            [(name, int(found.sum()), *map(int, found)) for name, found in statuses.items()], _COVERAGE, orient="row"
        ),
        ages=pl.DataFrame([(name, *_quantiles(ages[name])) for name in _by_view(ages, statuses)], _AGE, orient="row"),
        patterns=_shares(patterns, "available", count),
        variants=_shares(variants, "variant", count),
        provisional=provisional,
        asked=asked,
    )


def _asked_lines(asked: Mapping[str, Any]) -> list[str]:
    """What was asked, in words: the schedule and whose features, then what moved arrivals."""
    every = asked.get("every")
    times = f"at {', '.join(every)}" if isinstance(every, list | tuple) else every and f"every {every}"
    parts = [
        f"from {asked['start']} to {asked['end']}" if asked.get("start") and asked.get("end") else None,
        times,
        asked.get("zone"),
        asked.get("as_of") and f"as of {asked['as_of']}",
        asked.get("service") and f"service {asked['service']}",
        asked.get("variant") and f"variant {asked['variant']}{' at all ticks' if asked.get('rows') == 'all' else ''}",
    ]
    found = [", ".join(str(part) for part in parts if part)]
    moves = moves_text({name: asked[name] for name in ("outages", "delays", "seed") if asked.get(name) is not None})
    return [line for line in (*found, f"under: {moves}" if moves else "") if line]


def _by_view(ages: Iterable[str], features: Iterable[str]) -> list[str]:
    """Columns of ages view by view, in the order of the features: of each view its event, arrival and issue age."""
    names = list(ages)
    views = list(dict.fromkeys(name.partition("__")[0] for name in (*features, *names)))
    return sorted(names, key=lambda name: (views.index(name.partition("__")[0]), _AGES.index(name.rpartition("__")[2])))


def _patterns(frame: pl.DataFrame, features: list[str]) -> pl.Series:
    """Per row the views of which every feature is there, be it null."""
    views: dict[str, list[pl.Expr]] = {}
    for name in features:
        if name.rpartition("__")[2] not in _AGES:
            there = pl.col(f"{name}{_STATUS}").cast(pl.String).is_in(["present", "null"])
            views.setdefault(name.partition("__")[0], []).append(there)
    up = frame.select(pl.all_horizontal(there).alias(view) for view, there in views.items())
    # As a number first: there are few patterns and many rows.
    number = up.select(pl.sum_horizontal(pl.col(view).cast(pl.Int64) * (1 << i) for i, view in enumerate(views)))
    codes = number.to_series().unique()
    texts = [" + ".join(v for i, v in enumerate(views) if code >> i & 1) or NONE for code in codes]
    return number.to_series().replace_strict(codes, pl.Series(texts, dtype=pl.String), return_dtype=pl.String)


def _add(counts: dict[Any, int], values: pl.Series) -> None:
    for value, number in values.value_counts().iter_rows():
        counts[value] = counts.get(value, 0) + number


def _quantiles(counts: dict[int, int]) -> list[Any]:
    """How many there are, and their quantiles: of equal ages any, of two the lower."""
    seconds = np.array(sorted(counts), np.int64)
    numbers = np.cumsum([counts[int(second)] for second in seconds])
    if not len(seconds):
        return [0, *[None] * len(_QUANTILES)]
    places = [max(0, int(np.ceil(q * numbers[-1])) - 1) for q in _QUANTILES.values()]
    found = seconds[np.searchsorted(numbers, places, side="right")]
    return [int(numbers[-1]), *(int(second) * 1_000_000 for second in found)]


def _shares(counts: dict[Any, int], name: str, rows: int) -> pl.DataFrame:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    schema = {name: pl.String()} | {key: kind for key, kind in _PATTERN.items() if key != "available"}
    return pl.DataFrame([(value, number, number / rows) for value, number in ordered], schema, orient="row")


def _part(number: int, rows: int) -> float | None:
    return number / rows if rows else None


def _length(value: Any) -> str:
    if value is None:
        return "-"
    minutes, seconds = divmod(round(value.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = zip((days, hours, minutes, seconds), "dhms", strict=True)
    return " ".join([f"{number}{unit}" for number, unit in units if number][:2]) or "0s"
