"""Our declarations inside Feast's registry: a view's definition travels in its tags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from alignment.definitions import read_view
from serving.feast_support.sources import LogSource

if TYPE_CHECKING:
    from feast import FeatureView

    import alignment as al

DEFINITION: Final = "asknown.definition"
"""The tag of a Feast view that holds the definition of ours, as JSON."""


def is_declared(view: FeatureView) -> bool:
    """Whether a Feast view was made from one of our declarations."""
    return DEFINITION in view.tags and isinstance(view.batch_source, LogSource)


def declared_view(view: FeatureView, repo_path: str | Path | None) -> al.FeatureView:
    """Our view over its log, from the Feast view that was made of it.

    Args:
        view: A Feast view for which `is_declared` holds.
        repo_path: The feature repository's folder (`RepoConfig.repo_path`).

    Raises:
        LogNotFoundError: If there is no such log.
        AlignmentError: If the log lacks a column that the definition reads.
    """
    source = cast("LogSource", view.batch_source)
    return read_view(json.loads(view.tags[DEFINITION]), source.open(repo_path))
