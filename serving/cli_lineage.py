"""`asknown lineage` and `asknown resolve`: who uses what, and which variant of a service can be served."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import ingestion
from alignment.location import Location
from serving import render
from serving.cli_ingest import ROOT
from serving.cli_log import Json, StorageOption, instant, storage_options
from serving.declarations import read_declarations
from serving.errors import NoLogsError, OptionError
from serving.rebuilding import is_there

if TYPE_CHECKING:
    from serving.lineage import Lineage

NO = 1


def lineage(
    name: Annotated[
        str, typer.Argument(help="A feature (`weather__temp`), a view, a provider, a column, or PROVIDER.COLUMN.")
    ],
    files: Annotated[list[Path] | None, typer.Argument(help="Python files that declare views and services.")] = None,
    root: Annotated[
        str | None, typer.Option("--root", help=f"Where the logs are; {ROOT!r} by default, if it is there.")
    ] = None,
    datasets: Annotated[
        list[str] | None,
        typer.Option(help="Folder, or s3://bucket/prefix, with data sets that no log knows of; may be repeated."),
    ] = None,
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """Show who uses a feature, a provider or a column, before it is changed; exits with 1 if nobody does, with 2 if there is no such name.

    Looks in views files, in the manifests of data sets that were made of the logs, and in what was served.
    """
    from serving.lineage import find_uses

    options = storage_options(storage_option)
    if root is None:
        root = ROOT if Path(ROOT).is_dir() else None
    elif not ingestion.list_logs(root, storage_options=options):
        raise NoLogsError(root)
    for folder in datasets or ():
        place = Location.of(folder)
        if not (place.folder.exists() if place.folder is not None else is_there(folder) or place.names()):
            raise OptionError(f"--datasets {folder}: there is no such folder", "name the folder that holds data sets")
    if root is None and not files and not datasets:
        raise OptionError("there is nothing to look in", f"asknown lineage {name} features.py --root LOGS")
    found = find_uses(
        name,
        [read_declarations(file) for file in files or ()],
        root=root,
        datasets=datasets or (),
        storage_options=options,
    )
    for path in found.unread:
        render.say(f"{path} is registered, and not there any more")
    if not found.known:
        raise OptionError(f"there is no feature, view, provider or column {name!r} here", _alike(found))
    if as_json:
        render.as_json(found.to_dict())
    else:
        _show(found)
    if not found.uses:
        raise typer.Exit(NO)


def _alike(found: Lineage) -> str:
    """What may have been meant."""
    wanted = found.asked.replace(":", "__", 1)
    owner, dot, column = wanted.rpartition(".")
    own = [name.removeprefix(owner + dot) for name in found.names if dot and name.startswith(owner + dot)]
    close = difflib.get_close_matches(column, own, n=3) if own else difflib.get_close_matches(wanted, found.names, n=3)
    if close:
        return f"did you mean {' or '.join(repr(f'{owner}.{name}' if own else name) for name in close)}?"
    names = [f"{owner}.{name}" for name in own] or found.names
    return f"there are {', '.join(map(repr, names[:20]))}{', ...' if len(names) > 20 else ''}"


def _show(found: Lineage) -> None:
    if not found.uses:
        render.say(f"nothing uses {found.asked!r}")
        return
    render.table(
        [
            {
                "what": use.what,
                "name": Path(use.where).name if use.what == "data set" else use.name,
                "how": use.how,
                "where": _short(use.where),
                "last served": use.last_served or ("never" if use.what == "feature" else None),
            }
            for use in found.uses
        ],
        title=f"{found.asked} ({', '.join(found.is_a)})",
    )


def _short(where: str) -> str:
    """A path as one would type it here."""
    path = Path(where)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else where


def resolve(
    file: Annotated[Path, typer.Argument(help="Python file that declares views and services.")],
    service: Annotated[str, typer.Argument(help="The service.")],
    as_of: Annotated[str | None, typer.Option("--as-of", help="As it was at an instant: 2026-06-01T12:00:00Z.")] = None,
    as_json: Json = False,
) -> None:
    """Show which variant of a service can be served, and why not another; exits with 1 if none can."""
    from serving.online import FeatureServer
    from serving.online import resolve as decide

    declared = read_declarations(file)
    chosen = declared.service(service)
    server = FeatureServer(declared.views)
    try:
        server.catch_up()
        found = decide(server, chosen, None if as_of is None else instant(as_of, "--as-of"))
    finally:
        server.close()
    if as_json:
        render.as_json(found.to_dict())
    else:
        render.table(
            [{"variant": one.variant, "fits": one.fits, "why not": one.reason or None} for one in found.variants],
            title=f"{service} at {found.t.isoformat()}: {found.variant or 'no variant'}",
        )
        render.table(
            [
                {
                    "provider": one.provider,
                    "last heartbeat": one.last_heartbeat,
                    "down": one.down,
                    "after": one.down_after,
                }
                for one in found.providers
            ]
        )
    if found.variant is None:
        raise typer.Exit(NO)
