"""The rules of time in SQL, out of core: the engine that asks for nothing but DuckDB.

It shares the declarations, the checks of rows and the bounds per spine row with the local engine, and nothing else: which
rows count, which are current, what is picked and what a window amounts to are stated a second time, in `sql_rules` and
`sql_windows`, so that the two can be compared. See docs/concepts/the-rules-as-sql.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from alignment.engines.local import Answered
from alignment.engines.sql_answers import Answers
from alignment.engines.sql_questions import Asker
from alignment.engines.sql_rows import narrow_of, read_rows, refuse_different
from alignment.spine import Spine
from alignment.views import FeatureView

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def evaluate(
    view: FeatureView,
    spine: Spine,
    *,
    as_of_us: int | None,
    position: int | None,
    status: bool,
    threads: int | None,
    memory_limit: str | None = None,
) -> list[Answered]:
    """The columns of `view` for every spine row, in the order of its features.

    Lazy frames, Parquet files and logs are read batch by batch; what does not fit into memory is put aside in a temporary
    folder. The spine and the answers are in memory. The same rows are chosen as by the local engine; sums agree within
    `1e-12` of the sum of magnitudes (R17).

    Args:
        view: What to compute.
        spine: Checked spine.
        as_of_us: Nothing that arrived later counts; None for no limit besides each row's own t.
        position: Nothing later in the log counts; None for all.
        status: Whether to say why values are null.
        threads: How many threads; None for one per processor.
        memory_limit: How much memory DuckDB may use before it puts rows aside, e.g. `"2GB"`; None for four fifths of what
            there is.

    Raises:
        FrameError: If observations have not the form asked for.
        RevisionError: If they contradict the rules of time.
        AggregateOverflowError: If an integer sum does not fit in 64 bits.
    """
    latest = int(spine.t.max()) if len(spine.t) else 0
    limit = latest if as_of_us is None else min(latest, as_of_us)
    narrow = narrow_of(view, spine)
    with TemporaryDirectory(prefix="asknown-") as folder, _connect(folder, threads, memory_limit) as connection:
        stored = Path(folder) / "values"
        stored.mkdir()
        values = read_rows(connection, narrow, stored, position=position, limit=limit)
        asker = Asker(connection, narrow, spine, as_of_us=as_of_us, limit=limit)
        if view.observations.on_tie == "error":
            refuse_different(narrow, asker.ties(), position=position)
        found = [asker.ask(feature) for feature in view.features]
        values.fetch([rows for one in found for rows in one.rows()])
        answers = Answers(view, spine, values, status=status)
        return [answers.read(feature, one) for feature, one in zip(view.features, found, strict=True)]


@contextmanager
def _connect(folder: str, threads: int | None, memory_limit: str | None) -> Iterator[DuckDBPyConnection]:
    """A database in memory that may spill into `folder` and reaches nothing else: no network, no extensions."""
    import duckdb

    settings: dict[str, str | int | bool | float | list[str]] = {
        "temp_directory": folder,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
        "preserve_insertion_order": False,
    }
    if threads is not None:
        settings["threads"] = threads
    if memory_limit is not None:
        settings["memory_limit"] = memory_limit
    with duckdb.connect(":memory:", config=settings) as connection:
        connection.execute("SET enable_external_access = false")
        yield connection
