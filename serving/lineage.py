"""Who uses a feature, a view, a provider or a column: found in views files, manifests of data sets, and what was served.

Everything is read from declarations as plain data, so that a views file of today, a data set of last year and a vector that
was served yesterday are looked through in the same way.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

import alignment as al
import ingestion
from alignment.dataset_writing import MANIFEST
from alignment.definitions import describe_label, describe_observations, describe_view
from alignment.errors import AlignmentError
from alignment.heartbeats import provider_of
from alignment.labels import label_source
from alignment.location import Location
from alignment.service_binding import BoundService, bind
from serving.rebuilding import is_there, read_manifest

if TYPE_CHECKING:
    from serving.declarations import Declarations

_TIMES = ("event_time", "arrival_time", "issue_time", "is_retraction", "log_sequence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One thing that uses what was asked for.

    Attributes:
        what: `feature`, `label`, `service`, `fallback`, `variant`, `data set` or `served`.
        name: Its name; of a data set its manifest.
        how: How it uses it.
        where: The file that says so; of what was served the root of the logs.
        features: Full names of its features that are hit.
        last_served: When one of these was last served; None if never.
    """

    what: str
    name: str
    how: str
    where: str
    features: tuple[str, ...] = ()
    last_served: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """The use as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Who uses something.

    Attributes:
        asked: The name that was asked for.
        is_a: What goes by it: `feature`, `view`, `provider`, `column`; empty if nothing does.
        uses: Who uses it.
        unread: Registered manifests that are not there any more.
        names: Where nothing uses it, all names that there are: features, views, providers and columns.
    """

    asked: str
    is_a: tuple[str, ...]
    uses: tuple[Use, ...]
    unread: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether there is anything of that name, used or not."""
        return bool(self.uses) or _full(self.asked) in self.names

    def to_dict(self) -> dict[str, Any]:
        """The lineage as plain values."""
        return {
            "asked": self.asked,
            "is_a": list(self.is_a),
            "uses": [use.to_dict() for use in self.uses],
            "unread": list(self.unread),
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for: a name, and of a column perhaps whose, and what it was or is called besides.

    Attributes:
        name: As given.
        former: By provider, the former names of columns and what they are called now.
    """

    name: str
    former: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def is_column(self, column: str, provider: str) -> bool:
        """Whether a view's column is the one."""
        owner, _, bare = self.name.rpartition(".")
        if owner and owner != provider:
            return False
        now = self.former.get(provider, {})
        return now.get(column, column) == now.get(bare, bare)


@dataclass(frozen=True, slots=True)
class DeclaredView:
    """A declared view as plain data, and whose rows it reads.

    Attributes:
        described: What `describe_view` said of it.
        provider: Whose rows they are.
    """

    described: Mapping[str, Any]
    provider: str

    @classmethod
    def of(cls, view: al.FeatureView) -> DeclaredView:
        """A view."""
        return cls(describe_view(view), provider_of(view))

    def hit(self, asked: Asked) -> dict[str, tuple[str, str]]:
        """Its features that use what was asked for: full name to what it is, and how it is used."""
        name, found = self.described["name"], {}
        read = _columns_read(self.described["observations"])
        for feature in self.described["features"]:
            full = f"{name}__{feature['name']}"
            column = feature.get("column")
            told = f"{feature['feature']} of {column or feature.get('of')}, provider {self.provider}"
            if _full(asked.name) in (full, feature["name"]):
                found[full] = "feature", told
            elif asked.name == self.provider:
                found[full] = "provider", told
            elif asked.name == name:
                found[full] = "view", told
            elif column is not None and asked.is_column(column, self.provider):
                found[full] = "column", told
            elif any(asked.is_column(each, self.provider) for each in read.get(column, ())):
                found[full] = "column", f"{told}, derived from {', '.join(read[column])}"
            elif any(asked.is_column(each, self.provider) for each in read[""]):
                found[full] = "column", f"{told}; its rows are told apart and ordered by it"
        return found

    def names(self) -> set[str]:
        """All that can be asked for: features, the view, the provider and columns."""
        own = [feature["name"] for feature in self.described["features"]]
        full = [f"{self.described['name']}__{name}" for name in own]
        columns = {feature["column"] for feature in self.described["features"] if feature.get("column")}
        columns |= _all_columns(self.described["observations"])
        return {self.described["name"], *own, *full, *_of_provider(self.provider, columns)}


def _full(name: str) -> str:
    """A feature's name as columns have it: `weather:temp` is `weather__temp`."""
    return name.replace(":", "__", 1)


def _all_columns(observations: Mapping[str, Any]) -> set[str]:
    read = _columns_read(observations)
    return {*read, *(name for names in read.values() for name in names)} - {""}


def _of_provider(provider: str, columns: Iterable[str]) -> set[str]:
    """A provider's name and those of its columns, with its own before them and without."""
    if not provider:
        return set(columns)
    return {provider, *columns, *(f"{provider}.{column}" for column in columns)}


def _columns_read(observations: Mapping[str, Any]) -> dict[str, list[str]]:
    """What derived columns are computed from; under the empty name what every feature needs: keys and times."""
    found = {
        name: pl.Expr.deserialize(io.StringIO(text), format="json").meta.root_names()
        for name, text in observations.get("derive", {}).items()
    }
    times = [observations.get(time, time) for time in _TIMES]
    return found | {"": [*observations["entities"], *observations.get("key", []), *times]}


def find_uses(
    name: str,
    files: Iterable[Declarations] = (),
    *,
    root: str | None = None,
    datasets: Sequence[str | Path] = (),
    storage_options: dict[str, str] | None = None,
) -> Lineage:
    """Who uses a feature, a view, a provider or a column.

    Args:
        name: `weather__temp`, `weather:temp`, `weather`, `met`, `temp`, or `met.temp` for one provider's column. A name that is
            several of these is looked for as each.
        files: Views files.
        root: Where the logs are: it knows the data sets that were made of them, and what was served.
        datasets: Folders and addresses with data sets that no log knows of; searched in depth.
        storage_options: Of the root.

    Returns:
        The uses: features and services file by file, then data sets, then what was served and no file declares.
    """
    files = list(files)
    asked = Asked(name, {} if root is None else _former_names(root, storage_options))
    served, tables = ({}, []) if root is None else _served(root, storage_options)
    kinds: dict[str, None] = {}
    uses: list[Use] = []
    for declared in files:
        uses += _in_file(asked, declared, kinds)
    known = ingestion.registered_datasets(root, storage_options=storage_options) if root is not None else []
    manifests = dict.fromkeys([*known, *(path for folder in datasets for path in _manifests(folder))])
    there = [path for path in manifests if is_there(path)]
    uses += [use for path in there for use in _in_manifest(asked, path, kinds)]
    told = {feature for use in uses for feature in use.features if use.what == "feature"}
    for view in tables:
        hit = {full: one for full, one in view.hit(asked).items() if full in served and full not in told}
        kinds.update(dict.fromkeys(kind for kind, _ in hit.values()))
        uses += [
            Use(what="served", name=full, how=how, where=str(root), features=(full,)) for full, (_, how) in hit.items()
        ]
        told |= set(hit)
    return Lineage(
        asked=name,
        is_a=tuple(kinds),
        uses=tuple(_dated(use, served) for use in uses),
        unread=tuple(path for path in manifests if path not in there),
        names=() if uses else tuple(sorted(_names(files, root, there, tables, storage_options))),
    )


def _names(
    files: Iterable[Declarations],
    root: str | None,
    manifests: Iterable[str],
    served: Iterable[DeclaredView],
    options: dict[str, str] | None,
) -> set[str]:
    """All names in views files, logs, manifests, and views that were served."""
    found: set[str] = set()
    for view in (view for declared in files for view in declared.views):
        found |= DeclaredView.of(view).names() | _of_provider(provider_of(view), view.observations.schema)
    for declared in files:
        found |= set() if declared.label is None else {declared.label.column}
    if root is not None:
        for provider in ingestion.list_logs(root, storage_options=options):
            log = ingestion.open_log(root, provider, storage_options=options)
            found |= _of_provider(provider, [*log.columns, *log.former_names()])
    for path in manifests:
        manifest = read_manifest(path)
        whose = {name: entry["source"].get("log", name) for name, entry in manifest["inputs"].items()}
        for view in manifest["definitions"]["views"]:
            found |= DeclaredView(view, whose[view["name"]]).names()
    return found.union(*(view.names() for view in served))


def _dated(use: Use, served: Mapping[str, datetime]) -> Use:
    last = max((served[feature] for feature in use.features if feature in served), default=None)
    return Use(what=use.what, name=use.name, how=use.how, where=use.where, features=use.features, last_served=last)


def _former_names(root: str, options: dict[str, str] | None) -> dict[str, Mapping[str, str]]:
    found: dict[str, Mapping[str, str]] = {}
    for provider in ingestion.list_logs(root, storage_options=options):
        found[provider] = ingestion.open_log(root, provider, storage_options=options).former_names()
    return found


def _served(root: str, options: dict[str, str] | None) -> tuple[dict[str, datetime], list[DeclaredView]]:
    """When each feature was last served, and the views it was served from."""
    from serving.served import last_served
    from serving.served.tables import list_tables

    views = [view for table in list_tables(root, storage_options=options) for view in table.views]
    return last_served(root, storage_options=options), [DeclaredView(view.declaration, view.provider) for view in views]


def _manifests(folder: str | Path) -> list[str]:
    place = Location.of(folder)
    if place.address.endswith(".json"):
        return [place.address]
    return [place.address_of(name) for name in place.files_below() if name.rpartition("/")[2] == MANIFEST]


def _in_file(asked: Asked, declared: Declarations, kinds: dict[str, None]) -> list[Use]:
    """Features, the label, services, their fallbacks and variants of a views file."""
    where = str(declared.path)
    hit: dict[str, tuple[str, str]] = {}
    for view in declared.views:
        hit |= DeclaredView.of(view).hit(asked)
    kinds.update(dict.fromkeys(kind for kind, _ in hit.values()))
    uses = [Use(what="feature", name=name, how=how, where=where, features=(name,)) for name, (_, how) in hit.items()]
    uses += _label_uses(asked, declared, kinds)
    for service in declared.services:
        uses += _service_uses(asked, bind(service, declared.views), list(hit), where)
    return uses


def _label_uses(asked: Asked, declared: Declarations, kinds: dict[str, None]) -> list[Use]:
    label: al.Label | None = declared.label
    if label is None:
        return []
    try:
        rows = label_source(label, declared.views)[0]
    except AlignmentError:  # which view the label is of is not clear, and so not whose column it is
        return []
    provider = rows.source.provider if rows.source is not None else ""
    kind, how = _label_hit(asked, describe_label(label), describe_observations(rows), provider)
    kinds.update({kind: None} if how else {})
    return [Use(what="label", name=label.name, how=how, where=str(declared.path))] if how else []


def _service_uses(asked: Asked, bound: BoundService, hit: Sequence[str], where: str) -> list[Use]:
    """A service, its fallbacks and its variants, as far as they use what was asked for."""
    name = bound.service.name
    given = tuple(feature for feature in bound.sources if feature in hit)
    uses = [Use(what="service", name=name, how=_gives(given), where=where, features=given)] if given else []
    for feature, chain in bound.sources.items():
        others = [source.name for source in chain[1:] if source.name in hit]
        uses += [
            Use(
                what="fallback",
                name=f"{name}/{feature}",
                how=f"{other} stands in for it",
                where=where,
                features=(other,),
            )
            for other in others
        ]
    for variant in bound.variants if bound.service.variants else ():
        own = tuple(feature for feature in variant.features if feature in hit)
        how = "; ".join([f"needs {asked.name}"] * (asked.name in variant.needs) + ([_gives(own)] if own else []))
        if how:
            uses.append(Use(what="variant", name=f"{name}/{variant.name}", how=how, where=where, features=own))
    return uses


def _gives(features: Sequence[str]) -> str:
    return "gives " + ", ".join(features)


def _label_hit(
    asked: Asked, label: Mapping[str, Any], observations: Mapping[str, Any], provider: str
) -> tuple[str, str]:
    """What it is that a label uses of what was asked for, and how; empty if it does not."""
    column = label["column"]
    read = [column, *_columns_read(observations).get(column, []), *_columns_read(observations)[""]]
    if asked.name == provider or any(asked.is_column(each, provider) for each in read):
        kind = "provider" if asked.name == provider else "column"
        return kind, f"{column} after {label['horizon']}" + (f", provider {provider}" if provider else "")
    return "", ""


def _in_manifest(asked: Asked, path: str, kinds: dict[str, None]) -> list[Use]:
    """A data set, if one of its features, fallbacks or its label uses what was asked for."""
    manifest = read_manifest(path)
    definitions, inputs = manifest["definitions"], manifest["inputs"]
    whose = {name: entry["source"].get("log", name) for name, entry in inputs.items()}
    described = {view["name"]: view for view in definitions["views"]}
    hit: dict[str, tuple[str, str]] = {}
    for name, view in described.items():
        hit |= DeclaredView(view, whose[name]).hit(asked)
    service = definitions.get("service", {})
    standing_in = [one.get("feature") for chain in service.get("fallbacks", {}).values() for one in chain]
    own = [name for name in manifest["features"] if name in hit]
    others = [name for name in dict.fromkeys(standing_in) if name in hit and name not in own]
    told = [", ".join(own)] if own else []
    told += [f"fallback {name}" for name in others]
    label = definitions.get("label")
    if label is not None:
        home = label.get("view")
        rows = described[home]["observations"] if home else label["observations"]
        kind, how = _label_hit(asked, label, rows, whose[home or "@label"])
        told += [f"label {how}"] if how else []
        kinds.update({kind: None} if how else {})
    if not told:
        return []
    kinds.update(dict.fromkeys(hit[name][0] for name in (*own, *others)))
    chosen = manifest.get("service")
    if chosen:
        told.append(f"service {chosen['name']}" + (f", variant {chosen['variant']}" if chosen["variant"] else ""))
    return [
        Use(what="data set", name=path, how="; ".join(told), where=path.rpartition("/")[0], features=(*own, *others))
    ]
