"""Views over our logs inside Feast's registry; of a declared one, the definition travels in its tags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import alignment as al
from alignment.definitions import read_view
from serving.feast_support.sources import LogSource

if TYPE_CHECKING:
    from feast import FeatureView

DEFINITION: Final = "asknown.definition"
"""The tag of a Feast view that holds the definition of ours, as JSON."""


def is_declared(view: FeatureView) -> bool:
    """Whether a Feast view was made from one of our declarations."""
    return DEFINITION in view.tags and isinstance(view.batch_source, LogSource)


def is_followed(view: FeatureView) -> bool:
    """Whether a Feast view is over one of our logs, so that nothing has to be materialized for it."""
    return isinstance(view.batch_source, LogSource)


def followed_view(view: FeatureView, repo_path: str | Path | None) -> al.FeatureView:
    """Our view over its log, from a Feast view for which `is_followed` holds.

    One that was not declared with us has the newest event's values, as long as Feast's ttl.

    Args:
        view: The Feast view.
        repo_path: The feature repository's folder (`RepoConfig.repo_path`).

    Raises:
        LogNotFoundError: If there is no such log.
        AlignmentError: If the log lacks a column that a feature reads.
    """
    if is_declared(view):
        return declared_view(view, repo_path)
    source = cast("LogSource", view.batch_source)
    own = {theirs: name for name, theirs in source.field_mapping.items()}
    features = [al.latest(own.get(field.name, field.name), name=field.name) for field in view.features]
    renamed = {field.name: own[field.name] for field in view.entity_columns if field.name in own}
    return al.FeatureView(
        view.name, None, source.open(repo_path), features, max_event_age=view.ttl or None, entity_map=renamed
    )


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
