"""Declarations of real public feeds, ready to be taken."""

from __future__ import annotations

import copy
from typing import Any, Final

from ingestion.errors import ProviderError
from ingestion.providers.explaining import nearest
from ingestion.providers.provider import Provider

PRESETS: Final[dict[str, dict[str, Any]]] = {}


def preset_fields(name: str) -> dict[str, Any]:
    """The fields of a preset, as a file would write them.

    Raises:
        ProviderError: If there is no such preset.
    """
    if name not in PRESETS:
        raise ProviderError("preset", f"{name!r} is unknown", nearest(name, PRESETS))
    return copy.deepcopy(PRESETS[name])


def preset(name: str, **fields: Any) -> Provider:
    """The provider of a preset; `fields` replace its own.

    Raises:
        ProviderError: If there is no such preset, or a field means nothing.
    """
    return Provider(**{"name": name, **preset_fields(name), **fields})
