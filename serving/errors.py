"""Everything that `serving` raises.

ServingError
├── DeclarationError     a views file cannot be read or declares nothing
├── ListeningError       the port is taken, or the host is not this machine's
├── MissingExtraError    a library that an extra brings is not installed
├── NoLogsError          there are no logs at an address
├── OptionError          options of a command do not fit each other
└── QueryError           a query in SQL cannot be read or run
"""

from __future__ import annotations


class ServingError(Exception):
    """Root of all errors of this package.

    Args:
        problem: What is wrong, with the value and the place.
        hint: What to do about it, ready to be pasted. Empty if there is nothing to say.
    """

    def __init__(self, problem: str, hint: str = "") -> None:
        self.problem = problem
        self.hint = hint
        super().__init__(f"{problem}\n\nhint: {hint}" if hint else problem)


class DeclarationError(ServingError):
    """A views file cannot be read or declares nothing.

    Attributes:
        path: The file.
    """

    def __init__(self, path: str, problem: str, hint: str) -> None:
        self.path = path
        super().__init__(f"{path}: {problem}", hint)


class ListeningError(ServingError):
    """A server cannot listen: the port is taken, or the host is not this machine's."""


class MissingExtraError(ServingError):
    """A library that an extra brings is not installed.

    Attributes:
        extra: The extra that has it.
    """

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        self.extra = extra
        super().__init__(f"{purpose} needs {library}, which is not installed", f"pip install 'asknown[{extra}]'")


class NoLogsError(ServingError):
    """There are no logs at an address.

    Attributes:
        root: The folder or address.
    """

    def __init__(self, root: str, *, or_else: str = "") -> None:
        self.root = root
        hint = f"asknown log append {root} PROVIDER FILE --entities COLUMN"
        super().__init__(f"there are no logs at {root!r}", f"{hint}\n{or_else}" if or_else else hint)


class OptionError(ServingError):
    """Options of a command do not fit each other."""


class QueryError(ServingError):
    """A query in SQL cannot be read or run."""
