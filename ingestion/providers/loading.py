"""Declarations read from a file: YAML, or Python with a list `providers`."""

from __future__ import annotations

import os
import re
import runpy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ingestion.errors import IngestionError, ProviderError, nearest
from ingestion.providers.explaining import explained, part_named
from ingestion.providers.presets import PRESETS, merged, preset_fields
from ingestion.providers.provider import Provider

_TOP = ("root", "providers", "settings")


@dataclass(frozen=True, slots=True)
class Declared:
    """What a file declares.

    Attributes:
        root: The folder or address that holds the logs, a relative folder seen from the file's own; `None` if it does not say.
        providers: By name, in the order of the file.
        settings: Of the jobs, as they stand there.
    """

    root: str | None
    providers: dict[str, Provider]
    settings: dict[str, Any] = field(default_factory=dict)

    def select(self, names: Iterable[str] = ()) -> list[Provider]:
        """Some of the providers by name; all of them if none is named.

        Raises:
            ProviderError: If there is none of a name.
        """
        wanted = list(names)
        for name in wanted:
            if name not in self.providers:
                raise ProviderError(f"provider {name!r}", "it is not declared", nearest(name, self.providers))
        return [self.providers[name] for name in wanted] if wanted else list(self.providers.values())


def load_providers(path: str | os.PathLike[str]) -> Declared:
    """The declarations in a file.

    Args:
        path: A file that ends in `.yaml`, `.yml` or `.json`: a mapping with `providers` (name to declaration) and
            optionally `root` and `settings`. Or one that ends in `.py`, which is run: a list `providers` and optionally
            `root` and `settings`.

    Returns:
        Root, providers and settings.

    Raises:
        ProviderError: If the file cannot be read, or a declaration means nothing; one error, that names file, provider,
            field, value and what to write instead.
    """
    file = Path(path)
    if file.suffix not in {".yaml", ".yml", ".json", ".py"}:
        raise ProviderError(str(file), f"{file.suffix or 'no suffix'!r} is no known kind of file", "use .yaml or .py.")
    if not file.is_file():
        raise ProviderError(
            str(file), "there is no such file", "write one; the page on declaring a provider shows how."
        )
    top = _run(file) if file.suffix == ".py" else _parse(file)
    root = top.get("root")
    if root is not None and not isinstance(root, str | os.PathLike):
        raise ProviderError(f"{file}: root", f"{root!r} is not text", "write the folder that holds the logs.")
    settings = top.get("settings") or {}
    if not isinstance(settings, Mapping):
        raise ProviderError(f"{file}: settings", f"{settings!r} is not a mapping", "write settings by name.")
    declared = _from_list(file, top) if file.suffix == ".py" else _from_mapping(file, top)
    return Declared(_seen_from(file, root), declared, dict(settings))


def _seen_from(file: Path, root: str | os.PathLike[str] | None) -> str | None:
    if root is None or "://" in os.fspath(root):
        return os.fspath(root) if root is not None else None
    return str(file.parent / Path(root).expanduser())


def _run(file: Path) -> dict[str, Any]:
    """What a Python file defines.

    Raises:
        ProviderError: If it cannot be run.
    """
    try:
        return runpy.run_path(str(file))
    except ProviderError as error:
        raise ProviderError(*_placed(file, error)) from error
    except ValidationError as error:
        raise ProviderError(*explained(error, part_named(error.title, Provider), f"{file}: {error.title}")) from error
    except Exception as error:
        line = _line_of(error, file)
        raise ProviderError(
            f"{file}{line}", f"{type(error).__name__}: {error}", "run it with Python to see where it fails."
        ) from error


def _line_of(error: BaseException, file: Path) -> str:
    if isinstance(error, SyntaxError):
        return f":{error.lineno}"
    found, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            found = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _from_list(file: Path, top: Mapping[str, Any]) -> dict[str, Provider]:
    """The providers of a Python file.

    Raises:
        ProviderError: If there is no list of them, or two have one name.
    """
    listed = top.get("providers")
    if not isinstance(listed, list | tuple):
        raise ProviderError(str(file), "it has no list 'providers'", "write providers = [Provider(...)].")
    found: dict[str, Provider] = {}
    for number, provider in enumerate(listed):
        if not isinstance(provider, Provider):
            raise ProviderError(
                f"{file}: providers[{number}]",
                f"it is {type(provider).__name__}, not a Provider",
                "write Provider(...).",
            )
        if provider.name in found:
            raise ProviderError(f"{file}: provider {provider.name!r}", "it is declared twice", "give one another name.")
        found[provider.name] = provider
    return found


def _parse(file: Path) -> dict[str, Any]:
    """What a YAML file says.

    Raises:
        ProviderError: If it is no YAML, or no mapping of the known fields.
    """
    try:
        top = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader below
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise ProviderError(
            f"{file}:{mark.line + 1}" if mark else str(file), str(error.problem), "write one `name: value` a line."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProviderError(str(file), f"it cannot be read: {error}", "save it as YAML in UTF-8.") from error
    if not isinstance(top, dict):
        raise ProviderError(str(file), "it is no mapping", "begin with `providers:`.")
    for name in top:
        if name not in _TOP:
            raise ProviderError(str(file), f"there is no field {name!r}", nearest(str(name), _TOP))
    return top


def _from_mapping(file: Path, top: Mapping[str, Any]) -> dict[str, Provider]:
    """The providers of a YAML file.

    Raises:
        ProviderError: If a declaration means nothing.
    """
    mapping = top.get("providers")
    if not isinstance(mapping, Mapping):
        raise ProviderError(f"{file}: providers", "it is no mapping of names", "write providers: {name: {...}}.")
    return {str(name): _provider(file, name, fields) for name, fields in mapping.items()}


def _provider(file: Path, name: object, declared: object) -> Provider:
    """One provider.

    Raises:
        ProviderError: If its declaration means nothing.
    """
    place = f"{file}: provider {name!r}"
    given = {} if declared is None else declared
    if not isinstance(name, str) or not isinstance(given, Mapping):
        raise ProviderError(place, f"{given!r} is not a mapping of fields", f"write {name}: and its fields below it.")
    if unnamed := [key for key in given if not isinstance(key, str)]:
        raise ProviderError(place, f"the field {unnamed[0]!r} is not text", "put it in quotes.")
    if given.get("name", name) != name:
        raise ProviderError(
            place, f"it names itself {given['name']!r}", "leave out `name`: the key above it is the name."
        )
    fields = {**_with_preset(place, given), "name": name}
    try:
        return Provider(**fields)
    except IngestionError as error:
        raise ProviderError(*_placed(file, error)) from error


def _with_preset(place: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with those of the preset that they take.

    Raises:
        ProviderError: If there is no such preset.
    """
    fields = dict(given)
    taken = fields.pop("preset", None)
    if taken is None:
        return fields
    if taken not in PRESETS:
        raise ProviderError(f"{place}: preset", f"{taken!r} is unknown", nearest(str(taken), PRESETS))
    return merged(preset_fields(taken), fields)


def _placed(file: Path, error: IngestionError) -> tuple[str, str, str]:
    """Place, problem and hint of an error, the file before its place."""
    if not isinstance(error, ProviderError):
        return str(file), error.problem, error.hint
    return f"{file}: {error.place}", error.problem.removeprefix(f"{error.place}: "), error.hint


class _Loader(yaml.SafeLoader):
    """YAML as version 1.2 reads it: `16:00`, `no` and `2026-03-01` are text; a name that comes twice is an error."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    """A mapping.

    Raises:
        ConstructorError: If a name comes twice.
    """
    seen = set()
    for key, _ in node.value:
        if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
            raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} comes twice", key.start_mark)
        seen.add(key.value)
    loader.flatten_mapping(node)
    return yaml.constructor.SafeConstructor.construct_mapping(loader, node, deep=True)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$", "-+0123456789."),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("merge", r"^(?:<<)$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
