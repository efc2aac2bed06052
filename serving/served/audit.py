"""The audit of R19: is what was served what training says?

First at (t, position): equal bit for bit, no excuse. Then at (t, head): what differs must have rows behind it that came after the
answer and count at its t, and they are named.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

import alignment as al
from alignment.definitions import definition_hash, describe_view
from ingestion import ObservationLog, list_logs, open_log
from serving.errors import OptionError
from serving.served.differences import Flags, differs
from serving.served.late import SCHEMA, late_rows
from serving.served.positions import Changes, Ints, changes_of, restamped
from serving.served.report import SHOWN, AuditReport, Difference
from serving.served.tables import (
    POSITIONS,
    PREDICTION_TIME,
    SERVED_BY,
    SERVED_TIME,
    STATUS,
    ServedTable,
    ServedView,
    list_tables,
)

_OF_ONE_FEATURE = 3
_OWN_ARITHMETIC = ("sum", "mean", "std", "var", "median", "slope")


@dataclass(slots=True)
class _Tally:
    """What has been found so far."""

    vectors: int = 0
    values: int = 0
    evaluations: int = 0
    positions: set[tuple[str, int]] = field(default_factory=set)
    differences: Counter[str] = field(default_factory=Counter)
    first: list[Difference] = field(default_factory=list)
    beyond: int = 0
    head_differences: int = 0
    unexplained: int = 0
    first_late: list[Difference] = field(default_factory=list)
    first_unexplained: list[Difference] = field(default_factory=list)
    late: list[pl.DataFrame] = field(default_factory=list)


def audit(
    root: str,
    *,
    views: Iterable[al.FeatureView] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    sample: float = 1.0,
    engine: str = "local",
    storage_options: dict[str, str] | None = None,
) -> AuditReport:
    """Hold what was served against what training says (R19).

    Args:
        root: The logs, with the served vectors below.
        views: The views that were served; where one is not given, or has been changed since, it is made from its declaration
            as it was kept.
        since: Leave out what was served before.
        until: Leave out what was served at this instant or later.
        sample: Share of the vectors to look at.
        engine: `"local"`, or `"duckdb"`: the rules stated a second time, whose sums may be 1e-9 apart (R17).
        storage_options: Of the root.

    Returns:
        What was found.

    Raises:
        OptionError: If nothing was served, or nothing of it is to be looked at, or a view cannot be made from its declaration.
    """
    tables = list_tables(root, storage_options=storage_options)
    if not tables:
        raise OptionError(f"nothing that was served is kept at {root!r}", "start it: asknown serve ... --served-log")
    given = {definition_hash(describe_view(view)): view for view in views}
    logs = _Logs(root, storage_options)
    tally = _Tally()
    for table in tables:
        rows = _chosen(table, since, until, sample)
        tally.vectors += int(rows.select(pl.len()).collect().item())
        for served in table.views:
            view = given.get(served.hash) or _again(served, logs)
            source: object = view.observations.source
            if not isinstance(source, ObservationLog):
                raise OptionError(
                    f"view {view.name!r} does not read a log", "serve and audit views over logs: open_log(...)."
                )
            _View(served, view, logs.known(source), engine, tally).audit(rows)
    if not tally.vectors:
        refused = _nothing(root, tables, since, until, sample)
        raise refused
    return AuditReport(
        root=str(root),
        vectors=tally.vectors,
        values=tally.values,
        positions=len(tally.positions),
        evaluations=tally.evaluations,
        differences=tally.differences.total(),
        by_feature=dict(tally.differences),
        first=tally.first,
        beyond=tally.beyond,
        head_differences=tally.head_differences,
        unexplained=tally.unexplained,
        first_late=tally.first_late,
        first_unexplained=tally.first_unexplained,
        late=_together(tally.late),
        removals=logs.removals(),
    )


def _nothing(
    root: str, tables: Sequence[ServedTable], since: datetime | None, until: datetime | None, sample: float
) -> OptionError:
    """Why there was nothing to look at: an audit that saw nothing has found nothing out."""
    kept = pl.concat([table.scan().select(SERVED_TIME).collect() for table in tables])
    if not kept.height:
        return OptionError(f"nothing that was served is kept at {root!r}", "start it: asknown serve ... --served-log")
    chosen = sum(int(_chosen(table, since, until, 1.0).select(pl.len()).collect().item()) for table in tables)
    if chosen:
        return OptionError(
            f"a sample of {sample} of {chosen:,} served vectors is none", "take more, or all: --sample 1"
        )
    start, end = ("" if bound is None else bound.isoformat() for bound in (since, until))
    when = f"between {start} and {end}" if start and end else f"since {start}" if start else f"until {end}"
    first, last = (
        bound.isoformat() for bound in kept.select(a=pl.col(SERVED_TIME).min(), b=pl.col(SERVED_TIME).max()).row(0)
    )
    return OptionError(f"nothing was served {when}", f"{kept.height:,} vectors were served between {first} and {last}.")


def _chosen(table: ServedTable, since: datetime | None, until: datetime | None, sample: float) -> pl.LazyFrame:
    rows = table.scan()
    if since is not None:
        rows = rows.filter(pl.col(SERVED_TIME) >= since)
    if until is not None:
        rows = rows.filter(pl.col(SERVED_TIME) < until)
    if sample < 1.0:
        number = pl.col("@number").hash(seed=0) % 1_000_000
        rows = rows.with_row_index("@number").filter(number < int(sample * 1_000_000)).drop("@number")
    return rows


def _together(late: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """A row that is behind vectors of several views stands once, with the most that one view has."""
    if not late:
        return pl.DataFrame(schema=SCHEMA)
    rows = pl.concat(late).group_by(list(SCHEMA)[:-1]).agg(pl.col("vectors").max())
    return rows.sort("provider", "log_sequence", "key")


@dataclass(frozen=True, slots=True)
class _Log:
    """A log as it is for the whole audit.

    Attributes:
        log: The log.
        head: The position that is called head.
        late: Its restamps.
        changes: What came into it.
    """

    log: ObservationLog
    head: int
    late: pl.DataFrame
    changes: Changes


class _Logs:
    """The logs that the views read, each with one head for the whole audit."""

    def __init__(self, root: str, storage_options: dict[str, str] | None) -> None:
        self._root = root
        self._options = storage_options
        self._here = set(list_logs(root, storage_options=storage_options))
        self._opened: dict[str, ObservationLog] = {}
        self._known: dict[str, _Log] = {}

    def open(self, served: ServedView) -> ObservationLog:
        """The log of a view: at the root if it is there, else where it was."""
        there = served.address.removesuffix(f"/{served.provider}")
        root = self._root if served.provider in self._here else there
        if served.provider not in self._opened:
            self._opened[served.provider] = open_log(root, served.provider, storage_options=self._options)
        return self._opened[served.provider]

    def known(self, log: ObservationLog) -> _Log:
        if log.address not in self._known:
            head = log.position()
            late = restamped(log, head)
            self._known[log.address] = _Log(log, head, late, changes_of(log, head, late))
        return self._known[log.address]

    def removals(self) -> list[str]:
        logs = [known.log for known in self._known.values()]
        return [f"{log.provider}: {removal}" for log in logs for removal in log.removals()]


def _again(served: ServedView, logs: _Logs) -> al.FeatureView:
    log = logs.open(served)
    try:
        return served.over(log)
    except al.DatasetError as error:
        raise OptionError(
            f"view {served.name!r} cannot be made from what was kept of it: {str(error).splitlines()[0]}",
            "name the file that declares it: --views FILE",
        ) from error


@dataclass(slots=True)
class _View:
    """One view's part of one table."""

    served: ServedView
    view: al.FeatureView
    known: _Log
    engine: str
    tally: _Tally

    def audit(self, rows: pl.LazyFrame) -> None:
        features = list(self.served.features)
        frame = rows.select(
            *self.view.spine_entities,
            PREDICTION_TIME,
            *(name for feature in features for name in (feature, feature + STATUS)),
            pl.col(POSITIONS).struct.field(self.known.log.provider).alias("@position"),
            SERVED_TIME,
            SERVED_BY,
        ).collect()
        asked = {name: frame[name + STATUS].is_not_null().to_numpy() for name in features}
        self.tally.values += sum(int(flags.sum()) for flags in asked.values())
        position = frame["@position"].to_numpy()
        t = frame[PREDICTION_TIME].to_physical().to_numpy()
        self.tally.positions |= {(self.known.log.provider, int(p)) for p in np.unique(position)}
        beyond = position > self.known.head
        if beyond.any():
            lost = {name: int((flags & beyond).sum()) for name, flags in asked.items()}
            self.tally.beyond += sum(lost.values())
            self.tally.differences.update(lost)
        at = self.known.changes.same_answers(position, t)
        for p, places in _groups(np.where(beyond, np.int64(-2), at)):
            if p == -2:
                continue
            part = frame[places]
            for name, wrong, trained in self._compare(part, p):
                count = int(wrong.sum())
                self.tally.differences[name] += count
                _note(self.tally.first, self._differences(part, name, wrong, trained))
                if p == self.known.head:
                    self.tally.head_differences += count
                    self.tally.unexplained += count
                    _note(self.tally.first_unexplained, self._differences(part, name, wrong, trained))
        late = frame.filter((at < self.known.head) & ~beyond)
        if late.height:
            self._at_head(late)

    def _at_head(self, frame: pl.DataFrame) -> None:
        """The second audit, of the answers that rows could have changed since."""
        found = list(self._compare(frame, self.known.head))
        wrong = np.zeros(frame.height, np.bool_)
        for _, flags, _ in found:
            wrong |= flags
        answers = frame.with_row_index("answer").filter(wrong)
        answers = answers.with_columns(
            pl.col("answer").cast(pl.Int64), pl.col(PREDICTION_TIME).alias("t"), pl.col("@position").alias("p")
        )
        rows, behind = late_rows(self.view, self.known.log, self.known.head, late=self.known.late, answers=answers)
        self.tally.late.append(rows)
        explained = np.zeros(frame.height, np.bool_)
        explained[behind["answer"].to_numpy()] = True
        for name, flags, trained in found:
            self.tally.head_differences += int(flags.sum())
            self.tally.unexplained += int((flags & ~explained).sum())
            _note(self.tally.first_late, self._differences(frame, name, flags & explained, trained, behind))
            _note(self.tally.first_unexplained, self._differences(frame, name, flags & ~explained, trained))

    def _compare(self, frame: pl.DataFrame, position: int) -> Iterator[tuple[str, Flags, pl.DataFrame]]:
        """The features with a difference: where, and what training says."""
        self.tally.evaluations += 1
        spine = frame.select(*self.view.spine_entities, PREDICTION_TIME)
        trained = al.point_in_time_join(spine, [self.view], positions=position, status=True, engine=self.engine)
        own = self._own_arithmetic()
        for name in self.served.features:
            close = self.engine != "local" and name in own
            status = frame[name + STATUS]
            wrong = differs(frame[name], trained[name], close=close)
            wrong |= differs(status, trained[name + STATUS].cast(pl.String))
            wrong &= status.is_not_null().to_numpy()
            if wrong.any():
                yield name, wrong, trained.select(name, name + STATUS)

    def _own_arithmetic(self) -> set[str]:
        """The features that are sums of many values, which another engine may round otherwise (R17)."""
        described = self.served.declaration["features"]
        kinds = {name: one.get("aggregate", "") for name, one in zip(self.served.features, described, strict=True)}
        return {name for name, kind in kinds.items() if kind in _OWN_ARITHMETIC or kind[:1] == "q"}

    def _differences(
        self, frame: pl.DataFrame, name: str, wrong: Flags, trained: pl.DataFrame, behind: pl.DataFrame | None = None
    ) -> Iterator[Difference]:
        for place in np.flatnonzero(wrong).tolist():
            row = frame.row(place, named=True)
            rows = behind.filter(pl.col("answer") == place)["rows"] if behind is not None else None
            yield Difference(
                entity={entity: row[entity] for entity in self.view.spine_entities},
                t=row[PREDICTION_TIME],
                position=row["@position"],
                provider=self.known.log.provider,
                feature=name,
                served=(row[name], row[name + STATUS]),
                trained=trained.row(place),
                served_time=row[SERVED_TIME],
                served_by=row[SERVED_BY],
                rows=rows[0].to_list() if rows is not None and len(rows) else (),
            )


def _note(first: list[Difference], more: Iterator[Difference]) -> None:
    first.extend(itertools.islice(more, max(0, min(_OF_ONE_FEATURE, SHOWN - len(first)))))


def _groups(values: Ints) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Each value and the places that have it, greatest value first."""
    order = np.argsort(values, kind="stable")
    distinct, starts = np.unique(values[order], return_index=True)
    ends = np.append(starts[1:], len(values))
    for i in range(len(distinct) - 1, -1, -1):
        yield int(distinct[i]), order[starts[i] : ends[i]]
