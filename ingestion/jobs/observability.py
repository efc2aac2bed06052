"""What a job says about itself: one structured line per event, for people on a terminal and as JSON elsewhere.

Credentials never get into a line, whatever field or message they hide in: values of the environment variables that
providers name, whatever is called a token or a password, and the user and query parts of addresses.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import IO, TYPE_CHECKING, Any, Final

from ingestion.errors import MissingLibraryError

try:
    import stamina.instrumentation
    import structlog
except ImportError as error:  # pragma: no cover - the extra is installed where tests run
    raise MissingLibraryError(error.name or "structlog", "ingest", "a job's log") from error

if TYPE_CHECKING:
    from stamina.instrumentation import RetryDetails

HIDDEN: Final = "***"
_SECRET_NAMES: Final = re.compile(
    r"(?:^|[^a-z])(?:authorization|cookie|token|passw(?:or)?d|secret|api[-_]?key|credentials?|sig|signature)(?:$|[^a-z])",
    re.IGNORECASE,
)
_USER_INFO: Final = re.compile(r"(?<=://)[^/\s@]+@")
_QUERY: Final = re.compile(r"(?P<name>[?&;][A-Za-z0-9_.\-]+)=(?P<value>[^&;#\s'\"]+)")
_HEADER: Final = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~\-]{6,}")
_SHORTEST: Final = 4  # a shorter value is no secret, and would blot out half of the text
_QUIET: Final = (
    "httpx",
    "httpcore",
    "uvicorn.access",
    "uvicorn.error",
    "faststream",
    "nats",
    "aiomqtt",
    "stamina",
    "asyncio",
)

Line = MutableMapping[str, Any]


class Redactor:
    """Takes credentials out of texts.

    Args:
        secrets: Values that must never be seen.

    Example:
        >>> hide = Redactor(["s3cret"])
        >>> hide("GET https://me:pw@feed.org/a?token=abc&page=2 failed, sent s3cret")
        'GET https://***@feed.org/a?token=***&page=2 failed, sent ***'
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        longest_first = sorted({text for text in secrets if len(text) >= _SHORTEST}, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        """`text` without what nobody may see."""
        if self._secrets is not None:
            text = self._secrets.sub(HIDDEN, text)
        text = _USER_INFO.sub(f"{HIDDEN}@", text)
        text = _HEADER.sub(lambda found: f"{found[1]} {HIDDEN}", text)
        return _QUERY.sub(_hide_parameter, text)

    def fields(self, value: Any, name: str = "") -> Any:
        """The same for a value of any shape; what is called a secret is hidden whole."""
        if name and value is not None and _SECRET_NAMES.search(name):
            return HIDDEN
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return {key: self.fields(item, str(key)) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.fields(item) for item in value]
        if isinstance(value, BaseException):
            return self(str(value))
        return value

    def processor(self, _logger: object, _method: str, line: Line) -> Line:
        """For structlog."""
        return {name: self.fields(value, name) for name, value in line.items()}


def _hide_parameter(found: re.Match[str]) -> str:
    hidden = _SECRET_NAMES.search(found["name"].lower()) or found["name"][1:].lower() in {"key", "auth", "pw"}
    return f"{found['name']}={HIDDEN if hidden else found['value']}"


def named_secrets(declared: Iterable[Any], environment: Mapping[str, str] | None = None) -> list[str]:
    """The values of all environment variables that declarations name, in fields called `..._env` and `environment`.

    Args:
        declared: Providers, or parts of them: pydantic models, mappings, lists.
        environment: Name to value; that of the process if `None`.
    """
    known = os.environ if environment is None else environment
    found: list[str] = []

    def look(value: Any, name: str = "") -> None:
        if hasattr(value, "model_dump"):
            look(value.model_dump())
        elif isinstance(value, Mapping):
            for key, item in value.items():
                look(item, name if _names_variables(name) else str(key))
        elif isinstance(value, list | tuple):
            for item in value:
                look(item, name)
        elif isinstance(value, str) and _names_variables(name) and known.get(value):
            found.append(known[value])

    for each in declared:
        look(each)
    return found


def _names_variables(field: str) -> bool:
    return field.endswith("_env") or field == "environment"


def configure_logging(
    *,
    as_json: bool | None = None,
    verbose: bool = False,
    redact: Redactor | None = None,
    stream: IO[str] | None = None,
) -> None:
    """Set up the lines of this process, those of the libraries below included.

    Args:
        as_json: A JSON object per line; `None` decides by whether the stream is a terminal.
        verbose: Also what is of interest to a developer only.
        redact: What takes credentials out.
        stream: Where to; standard error if `None`.
    """
    out = stream or sys.stderr
    plain = (not out.isatty()) if as_json is None else as_json
    hide = redact or Redactor()
    last: list[Callable[..., Any]] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        hide.processor,
        structlog.processors.JSONRenderer(default=str)
        if plain
        else structlog.dev.ConsoleRenderer(colors=out.isatty() and "NO_COLOR" not in os.environ, timestamp_key="at"),
    ]
    handler = logging.StreamHandler(out)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=_BEFORE[1:], processors=last))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    stamina.instrumentation.set_on_retry_hooks([_tell_retry])
    for name in _QUIET:  # they print addresses, or a line per request
        logging.getLogger(name).setLevel(logging.WARNING)


def _tell_retry(details: RetryDetails) -> None:
    """A source tries again; instead of stamina's own lines, which know nothing of credentials."""
    logger("source").info(
        "tries again", problem=str(details.caused_by), attempt=details.retry_num + 1, wait=round(details.wait_for, 2)
    )


def logger(part: str) -> Any:
    """A logger that says which part of the job speaks; a program that has not set up logging hears of warnings only."""
    wrapped = structlog.wrap_logger(
        logging.getLogger("asknown"), processors=[*_BEFORE, _hand_over], wrapper_class=structlog.stdlib.BoundLogger
    )
    return wrapped.bind(part=part)


def _hand_over(own: Any, method: str, line: Line) -> Any:
    """To our own handler as fields, to one of somebody else's as text."""
    if any(isinstance(each.formatter, structlog.stdlib.ProcessorFormatter) for each in logging.getLogger().handlers):
        return structlog.stdlib.ProcessorFormatter.wrap_for_formatter(own, method, line)
    text = structlog.processors.format_exc_info(own, method, line)
    return structlog.processors.KeyValueRenderer(key_order=["event"], drop_missing=True)(own, method, text)


_BEFORE: Final[list[Callable[..., Any]]] = [
    structlog.stdlib.filter_by_level,
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    structlog.processors.StackInfoRenderer(),
]
