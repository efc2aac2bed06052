"""The command `asknown`: groups of commands, and what becomes of errors.

Data goes to standard output, everything else to standard error. Exit codes: 0 done, 1 the answer is no, 2 the question was
wrong (usage, definitions, data that break the rules), 3 something could not be reached; 70 a fault of asknown itself.
"""

from __future__ import annotations

import sys
import traceback
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Final

import polars as pl
import typer
from deltalake.exceptions import DeltaError, TableNotFoundError

from alignment import errors as core
from alignment.errors import AlignmentError
from ingestion.errors import (
    IngestionError,
    LogNotFoundError,
    MissingColumnError,
    NaiveTimeError,
    SchemaChangeError,
    StoreError,
    UnknownArrivalError,
)
from serving import (
    cli_audit,
    cli_backfill,
    cli_dataset,
    cli_delays,
    cli_explain,
    cli_ingest,
    cli_leakage,
    cli_lineage,
    cli_log,
    cli_maturity,
    cli_quarantine,
    cli_quickstart,
    cli_replay,
    cli_serve,
    cli_sql,
    cli_status,
    cli_ui,
    cli_upkeep,
    cli_whatif,
    cli_world,
)
from serving.errors import ListeningError, MissingExtraError, NoLogsError, ServingError
from serving.files import is_about_storage
from serving.render import complain, say

if TYPE_CHECKING:
    from collections.abc import Sequence

NO: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
FAULT: Final = 70
_UNREACHABLE: Final = (
    core.MissingFileError,
    core.StoreError,
    StoreError,
    ListeningError,
    MissingExtraError,
    NoLogsError,
)

app = typer.Typer(
    name="asknown",
    help="Training sets that contain only what serving could have seen.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cli_log.app.command()(cli_upkeep.compact)
cli_log.app.command()(cli_upkeep.erase)
app.add_typer(cli_log.app, name="log")
app.add_typer(cli_quarantine.app, name="quarantine")
app.add_typer(cli_dataset.app, name="dataset")
app.add_typer(cli_ingest.app, name="ingest")
app.add_typer(cli_ingest.providers_app, name="providers")
app.command("polls")(cli_ingest.polls)
app.command("outages")(cli_ingest.outages)
app.command("status")(cli_status.status)
app.command("backfill")(cli_backfill.backfill)
app.command("audit")(cli_audit.audit)
app.command("leak-report")(cli_leakage.leak_report)
app.add_typer(cli_whatif.app, name="whatif")
app.command("label-maturity")(cli_maturity.label_maturity)
app.add_typer(cli_delays.app, name="delays")
app.command("explain")(cli_explain.explain)
app.command("lineage")(cli_lineage.lineage)
app.command("sql")(cli_sql.sql)
app.command("replay")(cli_replay.replay)
app.command("resolve")(cli_lineage.resolve)
app.command("serve")(cli_serve.serve)
app.command("ui")(cli_ui.ui)
app.add_typer(cli_world.app, name="world")
app.command("quickstart")(cli_quickstart.quickstart)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"asknown {version('asknown')}")
        raise typer.Exit


@app.callback()
def _options(
    shown: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Training sets that contain only what serving could have seen."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors are printed, not raised.

    Args:
        arguments: The words after `asknown`; None takes those of the process.

    Returns:
        0 done, 1 no, 2 usage, 3 unreachable.
    """
    try:
        app(args=None if arguments is None else list(arguments), prog_name="asknown")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else (0 if stop.code is None else NO)
    except LogNotFoundError as error:
        complain(error, type(error).__name__)
        if "create_log(" in error.hint:
            say(f"      on the command line: asknown log append {error.root} {error.provider} FILE --entities COLUMN")
        return UNREACHABLE
    except (AlignmentError, IngestionError, ServingError) as error:
        complain(error, type(error).__name__)
        if option := _option_for(error):
            say(f"      on the command line: {option}")
        return UNREACHABLE if isinstance(error, _UNREACHABLE) else USAGE
    except (OSError, DeltaError, pl.exceptions.PolarsError) as error:
        told = StoreError.of(error)  # rows are read where nobody could say yet what is wrong with their store
        if told is None and not isinstance(error, OSError | TableNotFoundError) and not is_about_storage(error):
            raise
        complain(told or error, "cannot be reached" if told is None else type(told).__name__)
        return UNREACHABLE
    except KeyboardInterrupt:
        complain(KeyboardInterrupt("stopped"), "interrupted")
        return 130
    return 0


def _option_for(error: Exception) -> str:
    """The option of `asknown log append` that does what an error's hint says in Python; empty if there is none."""
    if isinstance(error, NaiveTimeError):
        return "--zone UTC"
    if isinstance(error, UnknownArrivalError):
        return "--delay 45m"
    if isinstance(error, SchemaChangeError) and "evolve=True" in error.hint:
        return "--evolve"
    if isinstance(error, MissingColumnError) and error.column == "event_time":
        return "--event-time COLUMN"
    return ""


def main() -> None:
    """Run the command line of this process; a fault of asknown itself shows its traceback and exits with 70."""
    try:
        code = run()
    except Exception:  # noqa: BLE001 - the last resort: exit code 1 would mean "no"
        traceback.print_exc()
        code = FAULT
    sys.exit(code)
