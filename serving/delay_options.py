"""Delay rules as options of commands: how `--delay` is written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import alignment as al
from alignment.definitions import read_delay
from serving import render
from serving.errors import OptionError

HELP: Final = (
    "PROVIDER=45m: rows arrive so long after their event (forecasts: issue); PROVIDER=+15m or -15m: later or earlier than they "
    "did; PROVIDER=FILE.json: by a fitted rule. Repeatable."
)
HELP_FOR_HISTORY: Final = (
    "45m, or a time of day: '06:00 Europe/Berlin +1d', or FILE.json: a rule that asknown delays fit wrote."
)
_OF_A_FRAME: Final = "observations"
"""Provider of a rule that was fitted to a plain frame: nobody's in particular."""
_SCHEDULE = re.compile(r"(?P<at>\d{1,2}:\d{2}(?::\d{2})?)\s+(?P<zone>[A-Za-z0-9_+\-/]+)(?:\s+(?P<days>[+-]\d+)d)?")


def parse_delays(given: Iterable[str] | None) -> dict[str, al.DelayRule]:
    """The rules that the `--delay` options of a command mean, by provider; a rule that was fitted to another one is remarked upon.

    Args:
        given: Each `PROVIDER=45m`, `PROVIDER=+15m`, `PROVIDER=-15m` or `PROVIDER=FILE.json`, which `asknown delays fit` writes.

    Raises:
        OptionError: If one is none of these.

    Example:
        >>> parse_delays(["meter=45m", "mast=+15m"])["meter"].duration.text
        '45m'
    """
    found: dict[str, al.DelayRule] = {}
    for text in given or ():
        provider, _, said = text.partition("=")
        if not provider or not said:
            raise OptionError(f"--delay {text!r} says nothing of a provider", "write --delay meter=45m")
        if provider in found:
            raise OptionError(f"--delay names {provider!r} twice", "leave one of them")
        found[provider] = _rule(said, text, provider)
    return found


def parse_delay(text: str | None, provider: str | None = None) -> al.DelayRule | None:
    """The rule for history that one `--delay` option means; None for none.

    Args:
        text: A duration, a time of day with its zone and perhaps a number of days, or the name of a file with a rule.
        provider: Whose history; a rule that was fitted to another one is remarked upon.

    Raises:
        OptionError: If the file cannot be read or holds no rule.
        DefinitionError: If it is no duration or time of day.

    Example:
        >>> parse_delay("45m").duration.text, parse_delay("06:00 Europe/Berlin +2d").days
        ('45m', 2)
    """
    if text is None or text.endswith(".json"):
        return None if text is None else _read(text, text, provider)
    schedule = _SCHEDULE.fullmatch(text.strip())
    if schedule is None:
        return al.FixedDelay(text)
    return al.PublishSchedule(at=schedule["at"], zone=schedule["zone"], days=int(schedule["days"] or 1))


def _read(path: str, text: str, provider: str | None) -> al.DelayRule:
    try:
        rule = read_delay(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise OptionError(f"--delay {text!r} cannot be read: {error.strerror}", "name a fitted rule") from error
    except (ValueError, KeyError, TypeError, al.AlignmentError) as error:
        raise OptionError(
            f"--delay {text!r}: the file holds no delay rule",
            "write one: asknown delays fit ROOT PROVIDER --out FILE",
        ) from error
    fitted_to = getattr(rule, "provider", _OF_A_FRAME)
    if provider is not None and fitted_to not in (provider, _OF_A_FRAME):
        render.say(f"note: {path} was fitted to {fitted_to!r}, and is applied to {provider!r}")
    return rule


def _rule(said: str, text: str, provider: str) -> al.DelayRule:
    if said.endswith(".json"):
        return _read(said, text, provider)
    try:
        return al.ShiftedDelay(said.removeprefix("+")) if said[0] in "+-" else al.FixedDelay(said)
    except al.DurationError as error:
        raise OptionError(f"--delay {text!r}: {error.problem}", error.hint) from error
