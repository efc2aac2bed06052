"""What a server refuses.

ServingError
└── OnlineError           a question cannot be answered
    ├── UnknownFeatureError   no view has such a feature, no service such a name
    ├── EntityError           entities are missing, of unequal length, or of another type than the view's
    ├── AsOfError             an `as_of` that cannot be answered
    ├── NotReadyError         the server is further behind the log than it may be
    └── UnservableViewError   a view that no server can follow
        └── StateUnavailableError  what holds the state cannot be reached, or has none yet
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from serving.errors import ServingError


class OnlineError(ServingError):
    """A question cannot be answered."""


class UnknownFeatureError(OnlineError):
    """No view has such a feature, or there is no service of that name."""


class EntityError(OnlineError):
    """Entities are missing, of unequal length, or of another type than the view's."""


class AsOfError(OnlineError):
    """An `as_of` that cannot be answered: without a zone, or later than what is known."""


class UnservableViewError(OnlineError):
    """A view is not over a log, or two of its logs cannot be told apart."""


class NotReadyError(OnlineError):
    """The server is further behind the log than it may be.

    Attributes:
        behind: Seconds, or None before the first look at the log.
    """

    def __init__(self, behind: float | None, limit: str) -> None:
        self.behind = behind
        said = "has not read the log yet" if behind is None else f"is {behind:.1f} s behind the log"
        super().__init__(f"the server {said}, and may be {limit}", "ask again; if it stays so, look at its log lines.")


class StateUnavailableError(NotReadyError):
    """What holds the state cannot be reached, or has none that may be answered from.

    Args:
        problem: What is wrong.
        hint: What to do about it.
    """

    def __init__(self, problem: str, hint: str = "ask again; it answers as soon as the state can be read.") -> None:
        self.behind = None
        OnlineError.__init__(self, problem, hint)


def not_a_feature(asked: str, known: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """What is wrong with a name, and what may have been meant, spelt as the question is: `view:feature` or `view__feature`.

    Args:
        asked: What there is not.
        known: Names of features by view.
    """
    between = ":" if ":" in asked else "__"
    whole = next((view for view in known if asked.startswith(view + between)), asked.partition(between)[0])
    feature = asked[len(whole) + len(between) :]
    if asked == whole and (views := [view for view, names in known.items() if asked in names]):
        return f"there is no view {asked!r}", f"did you mean {f'{views[0]}:{asked}'!r}?"
    view = _close(whole, known)
    if not view:
        names = [f"{view}{between}{name}" for view, names in known.items() for name in names]
        return f"there is no feature {asked!r}", f"there are {_some(names)}."
    if not feature:
        return f"there is no view {asked!r}", f"did you mean {view!r}?"
    if meant := _close(feature, known[view]):
        return f"there is no feature {asked!r}", f"did you mean {view + between + meant!r}?"
    there = _some([view + between + name for name in known[view]])
    hint = f"there are {there}." if view == whole else f"did you mean view {view!r}? It has {there}."
    return f"there is no feature {asked!r}", hint


def _close(name: str, names: Mapping[str, object] | Sequence[str]) -> str:
    """The name itself, or the one that is most like it; empty if none is."""
    if name in names:
        return name
    return next(iter(difflib.get_close_matches(name[:100], list(names), n=1)), "")


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
