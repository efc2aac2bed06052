"""How a server follows its logs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineSettings:
    """How a server follows its logs.

    Attributes:
        poll_every: How often it looks for new commits.
        clock_allowance: By how much its clock may be ahead of the clocks that stamp rows (R19).
        max_behind: How far behind the log it may answer; beyond it is not ready.
        keep_events: Of features without a floor: how many events of an entity are kept at least.
    """

    poll_every: str = "100ms"
    clock_allowance: str = "250ms"
    max_behind: str = "30s"
    keep_events: int = 64
