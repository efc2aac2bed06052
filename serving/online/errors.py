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
