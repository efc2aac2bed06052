"""Rows that a provider sends by itself, over HTTP."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, PositiveInt

from ingestion.providers.declaration import Declaration
from ingestion.sources.layout import Layout
from ingestion.sources.settings import Variable


class PushSource(Declaration):
    """A provider that sends its rows to `POST /observations/{provider}`.

    Attributes:
        kind: `push`.
        layout: How the rows in a body are laid out; `None`: by our own names, as the body's media type says.
        token_env: The environment variable that holds the bearer token which a sender must show; `None` asks for none.
        max_bytes: The greatest body that is taken.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    kind: Literal["push"] = "push"
    layout: Layout | None = None
    token_env: Variable | None = None
    max_bytes: PositiveInt = 8_000_000
