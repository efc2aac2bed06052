"""Which features are asked of which views, and for whom if nobody is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from feast.utils import compute_non_entity_date_range

from serving.errors import OptionError
from serving.feast_support.pulling import entities_between
from serving.feast_support.reading import open_table
from serving.feast_support.translated import join_keys

if TYPE_CHECKING:
    from feast import FeatureView

    from serving.feast_support.translated import Rules


@dataclass(frozen=True, slots=True)
class Requested:
    """What is asked of one view.

    Attributes:
        view: The Feast view, with its projection.
        columns: Feature to the name of its column in the result.
    """

    view: FeatureView
    columns: Mapping[str, str]


def requested(views: Sequence[FeatureView], refs: Sequence[str], *, full_feature_names: bool) -> list[Requested]:
    """What is asked of each view, in Feast's order.

    Args:
        views: The views.
        refs: `view:feature` (or `view@v2:feature`) for each feature, those of on-demand views among them.
        full_feature_names: Whether to put `view__` before each name.
    """
    found = []
    for view in views:
        asked = f"{view.projection.name_to_use()}:"
        names = dict.fromkeys(ref.removeprefix(asked) for ref in refs if ref.startswith(asked))
        prefix = f"{view.projection.name_alias or view.name}__" if full_feature_names else ""
        found.append(Requested(view, {name: prefix + name for name in names}))
    return [item for item in found if item.columns]


def known_entities(
    views: Sequence[FeatureView], start: datetime | None, end: datetime | None, rules: Rules, repo_path: Path | None
) -> tuple[pl.DataFrame, datetime]:
    """Every entity with an event in a range of time that was known at its end, and that end.

    Args:
        views: The views; at least one must have all join keys there are.
        start: First instant; default the greatest ttl, or 30 days, before the end.
        end: Last instant; default now.
        rules: By what rows count.
        repo_path: The feature repository's folder.

    Raises:
        OptionError: If no view has all join keys.
    """
    first, last = compute_non_entity_date_range(list(views), start_date=start, end_date=end)
    keys = {view.name: join_keys(view) for view in views}
    every = list(dict.fromkeys(alias for aliases in keys.values() for alias in aliases.values()))
    if not every:
        return pl.DataFrame(), last
    frames = []
    for view in views:
        aliases = keys[view.name]
        if set(aliases.values()) == set(every) and view.batch_source is not None:
            table = open_table(view.batch_source, repo_path)
            own = {table.column(name): alias for name, alias in aliases.items()}
            frames.append(entities_between(table, list(own), first, last, rules).rename(own).select(every))
    if not frames:
        raise OptionError(
            f"no view has all of the join keys {every}, so the entities cannot be told from a range of time",
            "pass an entity frame, or ask view by view.",
        )
    return pl.concat(frames, how="vertical_relaxed").unique().sort(every), last
