"""A delay rule made of measured history: each day of history borrows the arrivals of a measured day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.delays import origin_of
from alignment.durations import DAY_US, instant_from_us
from alignment.errors import DefinitionError, KeyTypeError, MissingColumnError
from alignment.settling import human
from alignment.stable_hash import check_seed, kind_of, mixed, row_hashes, salt, value_texts
from alignment.wallclock import Instants, check_zone, to_instants, to_local

if TYPE_CHECKING:
    from alignment.delay_report import DelayReport

Travels = Literal["issue", "event", "key"]
CLOCK = ("hour", "weekday")
"""What of the wall clock delays may go by; other names in `by` are columns."""

_TRAVELS = ("issue", "event", "key")
_WRITTEN = "write it with rule.to_dict()."
_MS, _HOUR_US = 1_000, 3_600_000_000
_NEAR = 2
"""A key that travels alone takes its delay from one of so many measured ones on either side."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EmpiricalDelay:
    """Rows arrive as a provider's rows were measured to arrive: bursts, polls, outages and catch-ups included.

    History is cut into blocks of `block_days` local days. Each block is laid over a measured stretch of the same length, which is
    drawn: any that begins a whole number of hours away, with `by` "hour" of days, with "weekday" on the same weekday. A row
    takes the delay of the measured batch nearest to its place there. Between two batches that arrived together it arrives with
    them: what caught up after an outage, or came with one poll, does so again. Nothing is clipped or smoothed.

    Draws are keyed by (seed, provider, block or key, draw): a row's arrival does not depend on which other rows there are, nor on
    their order (R23), and is the same on every machine. Made by `fit_delay`.

    Args:
        provider: Whose delays.
        travels: What arrives together: one `"issue"`, all entities of one `"event"`, or each `"key"` alone.
        origins_ms: Instants of the measured batches (issue or event), milliseconds from 1970 UTC, ascending within a group.
        delays_ms: Their delays, milliseconds.
        stretch_ms: From when to when batches were measured completely.
        by: What delays go by: `"hour"`, `"weekday"` (which includes the hour), names of entity columns.
        zone: Zone of hours, weekdays and blocks.
        groups: Per group the values of the columns in `by`; empty if there are none.
        kinds: What sort of value each of these columns held, as `kind_of` says, where the values are written as `value_texts`;
            else the values themselves tell.
        members: Per measured batch its group.
        keys: Columns that tell keys apart, instants included; needed where each travels alone.
        block_days: Length of a block; outages longer than it are cut.
        polled: Whether keys that travel alone nevertheless arrive at common instants.
        seed: Seed of the draws.
        draw: Number of the draw: other draws of one seed are independent of each other.
        assessment: How good the rule was on a held-out period, if that was asked for.

    Raises:
        DefinitionError: If there are no measured batches, or the arguments do not fit each other.

    Example:
        >>> from datetime import UTC, datetime
        >>> rule = EmpiricalDelay(
        ...     provider="mast",
        ...     travels="event",
        ...     origins_ms=(0, 3_600_000),
        ...     delays_ms=(60_000, 60_000),
        ...     stretch_ms=(0, 7_200_000),
        ... )
        >>> frame = pl.DataFrame({"event_time": [datetime(2026, 1, 1, 12, tzinfo=UTC)]})
        >>> rule.arrival_times(frame).dt.to_string("%H:%M").to_list()
        ['12:01']
    """

    provider: str
    travels: Travels
    origins_ms: tuple[int, ...]
    delays_ms: tuple[int, ...]
    stretch_ms: tuple[int, int]
    by: tuple[str, ...] = ()
    zone: str = "UTC"
    groups: tuple[tuple[Any, ...], ...] = ()
    members: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    block_days: int = 1
    polled: bool = False
    seed: int = 0
    draw: int = 0
    assessment: DelayReport | None = field(default=None, compare=False)
    arrival_kind: str = field(default="modelled", init=False)

    def __post_init__(self) -> None:
        check_zone(self.zone)
        check_seed(self.seed)
        if type(self.block_days) is not int or self.block_days < 1:
            raise DefinitionError(
                f"block_days={self.block_days!r} is not a number of whole days", "one or more, e.g. block_days=2."
            )
        if not self.origins_ms or len(self.origins_ms) != len(self.delays_ms):
            raise DefinitionError(
                f"{len(self.origins_ms)} measured batches have {len(self.delays_ms)} delays",
                "fit it: al.fit_delay(rows).",
            )
        if (
            bool(self.groups) != bool(self.columns)
            or len(self.members) != (len(self.origins_ms) if self.groups else 0)
            or (self.kinds and len(self.kinds) != len(self.columns))
        ):
            raise DefinitionError(f"by={self.by!r} does not fit the groups of the rule", "fit it: al.fit_delay(rows).")
        if min(self.delays_ms) < 0 or self.travels not in _TRAVELS or (self.travels == "key" and not self.keys):
            raise DefinitionError(
                f"travels={self.travels!r}, keys={self.keys!r}, least delay {min(self.delays_ms)} ms mean nothing",
                "fit it: al.fit_delay(rows).",
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns in `by`."""
        return tuple(name for name in self.by if name not in CLOCK)

    def arrival_times(self, frame: pl.DataFrame) -> pl.Series:
        """One arrival per row; see `DelayRule.arrival_times`.

        Args:
            frame: `event_time`, of forecasts `issue_time` (instants), and the columns in `by` and, where each key travels alone,
                in `keys`.

        Raises:
            MissingColumnError: If one of them is not there.
            NaiveTimeError: If the times have no zone.
            ColumnTypeError: If they are no times.
            KeyTypeError: If a column in `by` holds another sort of value than was measured, e.g. text instead of numbers.
        """
        for name in (
            "event_time",
            *(["issue_time"] if self.travels == "issue" else []),
            *self.columns,
            *self._key_columns,
        ):
            if name not in frame.columns:
                raise MissingColumnError(
                    name, f"the frame that the delays of {self.provider!r} are applied to", frame.columns
                )
        origin = origin_of(frame)
        known = origin.is_not_null().to_numpy()
        x = origin.to_physical().fill_null(0).to_numpy()
        arrivals = self._arrivals(frame, x) if len(x) else x
        series = pl.Series("arrival_time", arrivals, pl.Int64).cast(pl.Datetime("us", "UTC"))
        return series if known.all() else series.set(pl.Series(~known), None)

    @property
    def _key_columns(self) -> tuple[str, ...]:
        return self.keys if self.travels == "key" else ()

    def _arrivals(self, frame: pl.DataFrame, x: Instants) -> Instants:
        shift = self._shifts(x)
        measured = _Measured.of(self)
        place = (x - shift) // _MS
        low, high, first, end = measured.around(place, self._group_of(frame))
        if self.travels == "key":
            return self._alone(frame, measured, x, shift, (low, high, first, end))
        left, right = np.maximum(low - 1, first), np.minimum(low, end - 1)
        exact = high > low
        nearer = place - measured.origins[left] <= measured.origins[right] - place
        donor = np.where(nearer & ~exact, left, right)
        alone = x + measured.delays[donor] * _MS
        together = exact | ((measured.arrivals[left] == measured.arrivals[right]) & (left != right))
        shared = measured.arrivals[right] * _MS + shift
        arrivals: Instants = np.where(together & (shared >= x), shared, alone)
        return arrivals

    def _alone(
        self, frame: pl.DataFrame, measured: _Measured, x: Instants, shift: Instants, around: tuple[Instants, ...]
    ) -> Instants:
        """Each key by itself: the delay of a measured one near its place; where there are polls the poll nearest to that.

        Without polls, a key between two that arrived together, as that measured one did, arrives with them.
        """
        low, high, first, end = around
        exact = high > low
        begin = np.where(exact, low, np.maximum(low - _NEAR, first))
        until = np.where(exact, high, np.minimum(low + _NEAR, end))
        drawn = row_hashes([frame[name] for name in self.keys], salt(self.seed, self.provider, self.draw, "key"))
        donor = begin + (drawn % (until - begin).astype(np.uint64)).astype(np.int64)
        arrival: Instants = x + measured.delays[donor] * _MS
        polls = measured.polls * _MS
        if not self.polled or len(polls) == 1:
            shared = measured.arrivals[donor] * _MS + shift
            return np.where(measured.within_run(donor, (x - shift) // _MS) & (shared >= x), shared, arrival)
        moved = arrival - shift
        after = np.clip(np.searchsorted(polls, moved), 1, len(polls) - 1)
        nearest = np.where(moved - polls[after - 1] <= polls[after] - moved, polls[after - 1], polls[after])
        snapped = np.where(nearest + shift < x, polls[after], nearest)
        gap = np.median(np.diff(polls))
        polled: Instants = np.where((np.abs(snapped - moved) <= gap) & (snapped + shift >= x), snapped + shift, arrival)
        return polled

    def _shifts(self, x: Instants) -> Instants:
        """Per row how far its block is from the measured stretch that it is laid over, microseconds."""
        day = to_local(x, self.zone) // DAY_US // self.block_days
        blocks, row = np.unique(day, return_inverse=True)
        begin = to_instants(blocks * self.block_days * DAY_US, self.zone)
        drawn = mixed(blocks, salt(self.seed, self.provider, self.draw, "block"))
        return (begin - self._stretches(begin, drawn))[row]

    def _stretches(self, begin: Instants, drawn: npt.NDArray[np.uint64]) -> Instants:
        """Where the drawn stretch of each block begins."""
        start, end = (bound * _MS for bound in self.stretch_ms)
        length = self.block_days * DAY_US
        if not {"hour", "weekday"} & set(self.by):
            first = start + (begin - start) % _HOUR_US
            count = np.maximum((end - length - first) // _HOUR_US + 1, 1).astype(np.uint64)
            return first + (drawn % count).astype(np.int64) * _HOUR_US
        days = np.arange(*(to_local(np.array([start - length, end + DAY_US]), self.zone) // DAY_US))
        midnights = to_instants(days * DAY_US, self.zone)
        covered = np.minimum(midnights + length, end) - np.maximum(midnights, start)
        whole = (midnights >= start) & (midnights + length <= end)
        eligible = whole if whole.any() else covered == covered.max()
        found = _drawn_from(midnights[eligible], drawn)
        if "weekday" in self.by:
            own = (to_local(begin, self.zone) // DAY_US) % 7
            for weekday in range(7):
                same = midnights[eligible & (days % 7 == weekday)]
                if len(same):
                    found[own == weekday] = _drawn_from(same, drawn[own == weekday])
        return found

    def _group_of(self, frame: pl.DataFrame) -> Instants:
        """Per row its group; the last, which is all of them together, where it was not measured.

        Raises:
            KeyTypeError: If a column holds another sort of value than was measured.
        """
        if not self.groups:
            return np.zeros(frame.height, np.int64)
        columns = list(self.columns)
        known = pl.DataFrame(list(self.groups), schema=columns, orient="row", infer_schema_length=None)
        for name, measured in zip(columns, self.kinds or map(kind_of, known.dtypes), strict=True):
            asked = kind_of(frame.schema[name])
            if asked and measured and asked != measured:
                raise KeyTypeError(
                    f"{name!r} is {frame.schema[name]}; where the delays of {self.provider!r} were measured, it was: {measured}",
                    f"make them alike: cast {name!r}, or fit to rows like these: al.fit_delay(rows, by={name!r}).",
                )
        if not self.kinds:
            known = known.select(value_texts(known[name]) for name in columns)
        found = frame.select(value_texts(frame[name]) for name in columns).join(
            known.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("@group")),
            on=columns,
            how="left",
            maintain_order="left",
            nulls_equal=True,
        )
        return found["@group"].fill_null(len(self.groups)).to_numpy()

    def to_dict(self) -> dict[str, Any]:
        """The rule as plain data; `from_dict` makes it again."""
        first = self.origins_ms[0]
        found: dict[str, Any] = {
            "rule": "empirical",
            "provider": self.provider,
            "travels": self.travels,
            "by": list(self.by),
            "zone": self.zone,
            "block_days": self.block_days,
            "stretch_ms": list(self.stretch_ms),
            "first_ms": first,
            "after_ms": [origin - first for origin in self.origins_ms],
            "delays_ms": list(self.delays_ms),
            "seed": self.seed,
            "draw": self.draw,
        }
        if self.groups:
            found |= {"groups": [list(group) for group in self.groups], "members": list(self.members)}
            found |= {"kinds": list(self.kinds)} if self.kinds else {}
        if self.keys:
            found |= {"keys": list(self.keys)}
        return found | ({"polled": True} if self.polled else {})

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Self:
        """The rule that `to_dict` described.

        Raises:
            DefinitionError: If it is not the description of one.
        """
        if not isinstance(described, Mapping):
            raise DefinitionError(f"{described!r} does not describe a rule", _WRITTEN)
        if described.get("rule") != "empirical":
            raise DefinitionError(f"rule={described.get('rule')!r} is not an empirical delay", _WRITTEN)
        try:
            return cls._read(described)
        except KeyError as error:
            raise DefinitionError(f"the description of an empirical delay lacks {error}", _WRITTEN) from error
        except (TypeError, ValueError) as error:
            raise DefinitionError(f"the description of an empirical delay is broken: {error}", _WRITTEN) from error

    @classmethod
    def _read(cls, described: Mapping[str, Any]) -> Self:
        first = described["first_ms"]
        start, end = described["stretch_ms"]
        return cls(
            provider=described["provider"],
            travels=described["travels"],
            origins_ms=tuple(first + after for after in described["after_ms"]),
            delays_ms=tuple(described["delays_ms"]),
            stretch_ms=(start, end),
            by=tuple(described["by"]),
            zone=described["zone"],
            groups=tuple(tuple(group) for group in described.get("groups", ())),
            members=tuple(described.get("members", ())),
            kinds=tuple(described.get("kinds", ())),
            keys=tuple(described.get("keys", ())),
            block_days=described["block_days"],
            polled=described.get("polled", False),
            seed=described["seed"],
            draw=described["draw"],
        )

    def quantile(self, q: float) -> float:
        """A quantile of the measured delays in seconds, each batch counting once; linear between two.

        Example:
            >>> EmpiricalDelay(
            ...     provider="p", travels="event", origins_ms=(0, 1), delays_ms=(1000, 3000), stretch_ms=(0, 1)
            ... ).quantile(0.5)
            2.0
        """
        return float(np.quantile(np.array(self.delays_ms), q)) / 1_000

    def __repr__(self) -> str:
        quantiles = ", ".join(f"p{round(100 * q)} {human(self.quantile(q))}" for q in (0.5, 0.9, 1.0))
        start, end = (instant_from_us(bound * _MS).date().isoformat() for bound in self.stretch_ms)
        by = f", by {' and '.join(self.by)}" if self.by else ""
        zone = f" in {self.zone}" if self.zone != "UTC" else ""
        return (
            f"EmpiricalDelay({self.provider!r}: {quantiles}; {len(self.origins_ms):,} batches, one per {self.travels}, "
            f"{start} .. {end}{by}{zone}; seed {self.seed}, draw {self.draw})"
        )


@dataclass(frozen=True, slots=True)
class _Measured:
    """Measured batches as arrays, group after group and at last all of them together; milliseconds."""

    origins: Instants
    delays: Instants
    arrivals: Instants
    polls: Instants
    ends: Instants
    places: Instants
    begin: int
    width: int

    @classmethod
    def of(cls, rule: EmpiricalDelay) -> _Measured:
        origins, delays = np.array(rule.origins_ms, np.int64), np.array(rule.delays_ms, np.int64)
        everything = np.argsort(origins, kind="stable")
        order, sizes = everything, [len(origins)]
        if rule.groups:
            members = np.array(rule.members, np.int64)
            order = np.concatenate([np.lexsort((origins, members)), everything])
            sizes = [*np.bincount(members, minlength=len(rule.groups)).tolist(), len(origins)]
        origins, delays = origins[order], delays[order]
        begin = int(origins.min())
        width = int(origins.max()) - begin + 3
        ends = np.cumsum(sizes)
        segment = np.repeat(np.arange(len(sizes)), sizes)
        arrivals = origins + delays
        return cls(
            origins, delays, arrivals, np.unique(arrivals), ends, segment * width + origins - begin + 1, begin, width
        )

    def around(self, place: Instants, group: Instants) -> tuple[Instants, Instants, Instants, Instants]:
        """Per row the batches of its group: the first not before its place, the first after it, the first and the end of all."""
        within = np.clip(place - self.begin + 1, 0, self.width - 1)
        wanted = group * self.width + within
        end = self.ends[group]
        first = np.concatenate([[0], self.ends[:-1]])[group]
        return np.searchsorted(self.places, wanted), np.searchsorted(self.places, wanted, side="right"), first, end

    def within_run(self, batch: Instants, place: Instants) -> npt.NDArray[np.bool_]:
        """Whether a place lies between the first and the last origin of what arrived together with a batch."""
        _, run = np.unique(self.arrivals, return_inverse=True)
        first, last = np.full(run.max() + 1, np.iinfo(np.int64).max), np.full(run.max() + 1, np.iinfo(np.int64).min)
        np.minimum.at(first, run, self.origins)
        np.maximum.at(last, run, self.origins)
        found: npt.NDArray[np.bool_] = (first[run[batch]] <= place) & (place <= last[run[batch]])
        return found


def _drawn_from(instants: Instants, drawn: npt.NDArray[np.uint64]) -> Instants:
    return instants[(drawn % np.uint64(len(instants))).astype(np.int64)]
