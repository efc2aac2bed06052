"""What the API is, as OpenAPI 3.1: the same for every server, so that it names no feature and needs no token."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec

from serving.http.contract import ARROW, JSON
from serving.http.metrics import CONTENT_TYPE

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_NUMBERS: Schema = {"type": "array", "items": {"type": ["number", "null"]}}
_SCALAR: Schema = {
    "anyOf": [
        {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
        {"type": ["string", "number", "boolean", "null"]},
    ]
}
_ENTITIES: Schema = {
    "type": "object",
    "additionalProperties": {"type": "array", "items": _SCALAR},
    "description": "Entity columns, name to values; all of one length.",
}
_INSTANT: Schema = {"type": "string", "format": "date-time"}
_AS_OF: Schema = {
    "anyOf": [_INSTANT, {"type": "null"}],
    "description": "An instant in the past, with a zone: what would have been answered then.",
}
_OPTIONAL: Schema = {"type": ["string", "null"]}
_POSITIONS: Schema = {"type": "object", "additionalProperties": {"type": "integer"}}


def _object(required: list[str] | None = None, **properties: Schema) -> Schema:
    found: Schema = {"type": "object", "properties": properties}
    return found | ({"required": required} if required else {})


def _strict(required: list[str] | None = None, **properties: Schema) -> Schema:
    return {**_object(required, **properties), "additionalProperties": False}


_SCHEMAS: dict[str, Schema] = {
    "Error": _object(["error"], error=_TEXT, hint=_TEXT),
    "FeaturesRequest": {
        **_strict(
            ["entities"],
            entities=_ENTITIES,
            features={**_TEXTS, "description": "`view:feature`, `view__feature`, or `view` for all of it."},
            feature_service={**_OPTIONAL, "description": "A declared service, instead of naming features."},
            variant={**_OPTIONAL, "description": "Of the service: the features of this variant alone."},
            sources={"type": "boolean", "default": False, "description": "Of the service: which fallback answered."},
            full_feature_names={"type": "boolean", "default": False},
            include_feature_view_version_metadata={"type": "boolean", "default": False},
            as_of=_AS_OF,
            status={"type": "boolean", "default": False, "description": "Add which of five statuses each value has."},
            ages={"type": "boolean", "default": False, "description": "Add the ages of the rows, in seconds."},
            format={"enum": ["json", "arrow"], "default": "json"},
            definition={**_OPTIONAL, "description": "Hash of definitions that are held, other than those served."},
        ),
        "description": "The contract of Feast's feature server, and more.",
    },
    "FeaturesAnswer": _object(
        ["metadata", "results"],
        metadata=_object(
            ["feature_names", "t", "positions", "definition"],
            feature_names={**_TEXTS, "description": "Entity columns, then features."},
            t={**_INSTANT, "description": "The instant that the answer holds at."},
            positions={**_POSITIONS, "description": "The position in the log of each provider that was read."},
            definition={**_TEXT, "description": "Hash of the definitions that were evaluated."},
        ),
        results={
            "type": "array",
            "description": "One per name, each with one value per row.",
            "items": _object(
                ["values", "statuses", "event_timestamps"],
                values={"type": "array", "items": {}},
                statuses={
                    "type": "array",
                    "items": {"enum": ["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"]},
                },
                event_timestamps={"type": "array", "items": _INSTANT},
                status={
                    "type": "array",
                    "items": {"enum": ["present", "null", "expired", "retracted", "missing"]},
                },
                event_age=_NUMBERS,
                arrival_age=_NUMBERS,
            ),
        },
    ),
    "ResolveRequest": _strict(["feature_service"], feature_service=_TEXT, as_of=_AS_OF, definition=_OPTIONAL),
    "ResolveAnswer": _object(
        ["service", "variant", "features", "t", "positions", "variants", "providers", "definition"],
        service=_TEXT,
        variant={**_OPTIONAL, "description": "The first that fits; null if none does."},
        features=_TEXTS,
        t=_INSTANT,
        positions=_POSITIONS,
        variants={
            "type": "array",
            "items": _object(["variant", "fits", "reason"], variant=_TEXT, fits={"type": "boolean"}, reason=_TEXT),
        },
        providers={
            "type": "array",
            "items": _object(
                ["provider", "last_heartbeat", "down", "down_after"],
                provider=_TEXT,
                last_heartbeat={"anyOf": [_INSTANT, {"type": "null"}]},
                down={"type": "boolean"},
                down_after=_OPTIONAL,
            ),
        },
        definition=_TEXT,
    ),
    "SwitchRequest": _strict(["definition"], definition=_TEXT),
    "Any": {"type": "object"},
    "Rows": {
        "oneOf": [{"type": "array", "items": {"type": "object"}}, {"type": "object"}],
        "description": "Rows of the provider, by the names of its columns; or as its layout says.",
    },
    "Accepted": _object(
        ["accepted", "batch", "received_time"], accepted={"type": "integer"}, batch=_TEXT, received_time=_INSTANT
    ),
}
_REFUSED = {
    "400": "The question is malformed, or cannot be asked so.",
    "401": "No token, or an unknown one.",
    "403": "A token of another scope; or none is set, and the client is not on this machine.",
    "404": "There is no such thing.",
    "405": "Another method is wanted.",
    "408": "The body did not come in time.",
    "409": "It cannot be done now.",
    "413": "More than may be asked at a time.",
    "415": "The body is of a type, or compressed in a way, that is not taken.",
    "422": "The idempotency key was used for other rows.",
    "429": "As much waits for the log as may wait.",
    "431": "The head of the request is too long.",
    "503": "Not ready.",
}
_READ = ("400", "401", "403", "404", "408", "413", "415", "503")
_OPEN = ("400", "503")


def paths() -> dict[str, str]:
    """Each path to what it is for."""
    return {path: next(iter(methods.values()))["summary"] for path, methods in _paths().items()}


@cache
def document() -> bytes:
    """The document."""
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "asknown",
                "version": version("asknown"),
                "description": "Features as they were known at an instant; every answer says at which, and at which position of the logs.",
            },
            "paths": _paths(),
            "components": {
                "schemas": _SCHEMAS,
                "securitySchemes": {
                    name: {"type": "http", "scheme": "bearer", "description": f"The token of the scope {name!r}."}
                    for name in ("read", "push", "admin")
                },
            },
        }
    )


def _paths() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {
        "/get-online-features": {
            "post": _operation("Features of entities, now or as of an instant", "read", _READ, "FeaturesRequest", "FeaturesAnswer")
        },
        "/resolve": {
            "post": _operation("The best variant of a feature service that can be answered, and why", "read", _READ, "ResolveRequest", "ResolveAnswer")
        },
        "/features": {"get": _operation("What is served", "read", ("401", "403", "503"), None, "Any")},
        "/observations/{provider}": {"post": _pushing()},
        "/metrics": {"get": _operation("Numbers for Prometheus", "read", ("401", "403", "503"), None, None)},
        "/healthz": {"get": _operation("Whether the process is alive", None, _OPEN, None, "Any")},
        "/readyz": {"get": _operation("Whether questions are answered", None, _OPEN, None, "Any")},
        "/openapi.json": {"get": _operation("This document", None, _OPEN, None, "Any")},
        "/admin/definitions": {
            "get": _operation("Which definitions are held, and which are served", "admin", ("401", "403", "503"), None, "Any")
        },
        "/admin/reload": {
            "post": _operation("Read the views file again and hold it beside what is served", "admin", ("400", "401", "403", "408", "409", "413", "415", "503"), None, "Any")
        },
        "/admin/switch": {
            "post": _operation("Serve definitions that are held", "admin", (*_READ, "409"), "SwitchRequest", "Any")
        },
    }  # fmt: skip
    found["/get-online-features"]["post"]["responses"]["200"]["content"][ARROW] = {
        "schema": {"type": "string", "contentEncoding": "binary", "description": "One row per entity."}
    }
    found["/metrics"]["get"]["responses"]["200"]["content"] = {CONTENT_TYPE: {"schema": _TEXT}}
    return found


def _operation(
    summary: str, scope: str | None, refused: tuple[str, ...], asked: str | None, answered: str | None
) -> Schema:
    operation: Schema = {
        "summary": summary,
        "responses": {
            "200": {"description": "Done.", "content": {JSON: {"schema": _reference(answered or "Any")}}},
            **{status: _refused(status) for status in ("405", "431", *refused)},
        },
    }
    if scope is not None:
        operation["security"] = [{scope: []}]
    if asked is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": _reference(asked)}}}
    return operation


def _pushing() -> Schema:
    operation = _operation(
        "Rows of a provider, answered when they are durable", "push", (*_READ, "422", "429"), None, None
    )
    operation["responses"]["202"] = {
        "description": "The rows are durable.",
        "content": {JSON: {"schema": _reference("Accepted")}},
    }
    del operation["responses"]["200"]
    operation["parameters"] = [
        {"name": "provider", "in": "path", "required": True, "schema": _TEXT},
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
        },
    ]
    operation["requestBody"] = {
        "required": True,
        "content": {
            JSON: {"schema": _reference("Rows")},
            "application/x-ndjson": {"schema": _TEXT},
            ARROW: {"schema": {"type": "string", "contentEncoding": "binary"}},
        },
    }
    return operation


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _refused(status: str) -> Schema:
    return {"description": _REFUSED[status], "content": {JSON: {"schema": _reference("Error")}}}
