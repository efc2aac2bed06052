"""What Feast gets for a question: a job that answers when it is asked for rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata

from serving.feast_support.writing import persist

if TYPE_CHECKING:
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.saved_dataset import SavedDatasetStorage


class AvailabilityRetrievalJob(RetrievalJob):
    """A question to be answered; each call answers it anew.

    Args:
        answer: What makes the rows, without on-demand features.
        repo_path: The feature repository's folder.
        full_feature_names: Whether columns carry their view's name.
        on_demand_feature_views: What Feast computes from the rows.
        metadata: What was asked.
    """

    def __init__(
        self,
        answer: Callable[[], pa.Table],
        *,
        repo_path: Path | None,
        full_feature_names: bool = False,
        on_demand_feature_views: list[OnDemandFeatureView] | None = None,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._answer = answer
        self._repo_path = repo_path
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = on_demand_feature_views or []
        self._metadata = metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        return self._answer()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    @property
    def full_feature_names(self) -> bool:
        """Whether columns carry their view's name."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """What Feast computes from the rows."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked."""
        return self._metadata

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
        timeout: int | None = None,
    ) -> None:
        """Answer, and keep the rows, on-demand features included, as a Parquet file, a folder of them, or a Delta table.

        Args:
            storage: Where.
            allow_overwrite: Whether what is there may be replaced.
            timeout: Feast's; not used.

        Raises:
            SavedDatasetLocationAlreadyExists: If something is there that may not be replaced.
        """
        persist(lambda: self.to_arrow(timeout=timeout), storage, self._repo_path, overwrite=allow_overwrite)
