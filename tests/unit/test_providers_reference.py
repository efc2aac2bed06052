"""The page on declaring providers names every field of every part of a declaration, with its default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ingestion.providers import PRESETS, Provider, load_providers

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "providers.md"


def parts(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A model and all that its fields may hold."""
    found = [model]
    for part in found:
        todo: list[Any] = [field.annotation for field in part.model_fields.values()]
        for annotation in todo:
            todo += get_args(annotation)
            is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
            if is_model and annotation not in found:
                found.append(annotation)
    return found


def default(field: FieldInfo) -> str:
    """A default as YAML writes it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)  # type: ignore[call-arg]
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None or isinstance(value, bool):
        return f"`{({None: 'null', True: 'true', False: 'false'})[value]}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


@pytest.mark.parametrize("part", parts(Provider), ids=lambda part: part.__name__)
def test_every_field_is_in_the_table_of_its_part(part: type[BaseModel]) -> None:
    sections = re.split(r"^#+ ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = [text for text in sections if text.startswith(f"`{part.__name__}`\n")]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", section, flags=re.MULTILINE))
    assert rows == {name: default(field) for name, field in part.model_fields.items()}


def test_every_preset_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in PRESETS if f"| `{name}` |" not in page] == []
    assert "load_providers" in page
    assert load_providers.__doc__ is not None
