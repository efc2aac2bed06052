"""What is wrong with a declaration, in one sentence that names the place, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ingestion.errors import nearest

_FIRST = ("extra_forbidden", "union_tag_invalid", "union_tag_not_found")
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping of names",
    "model_type": "a mapping of fields",
    "model_attributes_type": "a mapping of fields",
}


def explained(error: ValidationError, model: type[BaseModel], place: str) -> tuple[str, str, str]:
    """The most telling of a validation's errors: what a `ProviderError` says of it.

    Args:
        error: What the validation found.
        model: What was validated.
        place: Where that stands: the file and the provider.

    Returns:
        Place, problem and hint; of typos first, for what is missing may just be misspelt.
    """
    found = error.errors(include_url=False)
    order = {kind: number for number, kind in enumerate(_FIRST)}
    first = min(found, key=lambda detail: order.get(detail["type"], len(order)))
    path = _path(first, model)
    problem, hint = _said(first, model)
    return f"{place}: {path}" if path else place, problem, hint


def part_named(name: str, model: type[BaseModel]) -> type[BaseModel]:
    """The part of a declaration that has a name; the whole if there is none."""
    todo, seen = [model], {model}
    while todo:
        part = todo.pop()
        if part.__name__ == name:
            return part
        inner = {found for field in part.model_fields.values() for found in _models_in(field.annotation)} - seen
        todo += inner
        seen |= inner
    return model


def _said(detail: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    kind, value = detail["type"], detail.get("input")
    name = str(detail["loc"][-1]) if detail["loc"] else ""
    context = detail.get("ctx", {})
    if kind == "extra_forbidden":
        fields = {field for known in _models_at(model, detail["loc"][:-1]) for field in known.model_fields}
        return f"there is no field {name!r}", nearest(name, sorted(fields))
    if kind == "missing":
        return f"the field {name!r} is missing", f"say what it is: {name}: ..."
    if kind == "union_tag_not_found":
        return "it does not say its kind", f"write kind: and one of {_kinds(model, detail)}."
    if kind == "union_tag_invalid":
        known = [text.strip(" '") for text in str(context.get("expected_tags", "")).split(",")]
        return f"kind {context.get('tag')!r} is unknown", nearest(str(context.get("tag")), known)
    shown = _short(value) if _may_be_shown(detail) else "the value"
    if kind == "literal_error":
        known = [text.strip(" '") for text in str(context["expected"]).replace(" or ", ", ").split(",")]
        return f"{shown} is not allowed", nearest(str(value), known)
    if kind == "value_error":
        problem, _, hint = str(context.get("error", detail["msg"])).rpartition("; ")
        return (problem, hint) if problem else (hint, "")
    if kind in {"tuple_type", "list_type"} and isinstance(value, str):
        return f"{shown} is not a list", f"write [{value if _may_be_shown(detail) else '...'}]."
    if kind in _EXPECTED:
        return f"{shown} is not {_EXPECTED[kind]}", f"write {_EXPECTED[kind]}."
    return f"{shown}: {detail['msg'].lower()}", "see the page on declaring a provider."


def _may_be_shown(detail: ErrorDetails) -> bool:
    """Whether a wrong value may be repeated; text in a source may be a credential in the wrong place."""
    return "source" not in detail["loc"] or not isinstance(detail.get("input"), str | list | tuple | dict)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kinds(model: type[BaseModel], detail: ErrorDetails) -> str:
    kinds = [
        known.model_fields["kind"].default for known in _models_at(model, detail["loc"]) if "kind" in known.model_fields
    ]
    return ", ".join(map(str, kinds))


def _path(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """The way to the field as the file writes it: without the tags of unions, which are no keys there."""
    parts: list[str] = []
    for depth, step in enumerate(detail["loc"]):
        if isinstance(step, str) and (_is_tag(model, detail["loc"][:depth], step) or step.startswith("function-")):
            continue
        if isinstance(step, int):
            parts[-1:] = [f"{parts[-1] if parts else ''}[{step}]"]
        elif not step.endswith("]"):
            parts.append(str(step))
    return ".".join(parts)


def _is_tag(model: type[BaseModel], before: tuple[int | str, ...], step: str) -> bool:
    found = _models_at(model, before)
    if any(step in known.model_fields for known in found):
        return False
    return any("kind" in known.model_fields and known.model_fields["kind"].default == step for known in found) or any(
        known.__name__ == step for known in found
    )


def _models_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """The models that may stand at a place."""
    here: list[type[BaseModel]] = [model]
    for step in loc:
        tagged = [
            known for known in here if "kind" in known.model_fields and known.model_fields["kind"].default == step
        ]
        if tagged and not any(isinstance(step, str) and step in known.model_fields for known in here):
            here = tagged
            continue
        fields = [known.model_fields[step] for known in here if isinstance(step, str) and step in known.model_fields]
        if fields:
            here = [found for field in fields for found in _models_in(field.annotation)]
    return here


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
