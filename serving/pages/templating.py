"""Pages from templates; whatever a value holds, it is text there and never markup."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from alignment.explain_words import counts_text, declared_text, span_text
from serving.pages.assets import version_of_plotly
from serving.pages.marks import is_current
from serving.pages.plain import age_text, hundredths_text, instant_text, iso, to_json, value_text


@cache
def environment() -> jinja2.Environment:
    """Where templates are found, and what they can do besides; a name that nobody gave is an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("serving.pages", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        instant=instant_text,
        iso=iso,
        age=age_text,
        text=value_text,
        count=lambda number: f"{number:,}",
        data=lambda value: Markup(to_json(value)),  # noqa: S704 - no letter in it can end an element
        seconds=lambda instant: round(instant.astimezone(UTC).timestamp()),
        current_at=is_current,
        declared=declared_text,
        counted=counts_text,
        span=lambda seconds: "-" if seconds is None else span_text(timedelta(seconds=seconds)),
        hundredths=hundredths_text,
        iso_text=lambda text: "-" if text is None else instant_text(datetime.fromisoformat(text)),
    )
    made.globals["plotly_version"] = version_of_plotly()
    return made


def rendered(template: str, **told: Any) -> str:
    """A page.

    Args:
        template: The name of its file.
        told: What it shows.
    """
    return environment().get_template(template).render(**told)
