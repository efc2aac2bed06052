"""Feature services and what else is declared, as routes need them."""

from __future__ import annotations

import difflib
from datetime import UTC
from typing import TYPE_CHECKING, Any

from serving.http.refusals import RefusalError, shown

if TYPE_CHECKING:
    import alignment as al
    from serving.http.definitions import Held


def named(held: Held, name: str) -> al.FeatureService:
    """A feature service.

    Raises:
        RefusalError: If there is none of that name.
    """
    found = held.services.get(name)
    if found is None:
        close = difflib.get_close_matches(name[:100], list(held.services), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "GET /features lists what there is."
        raise RefusalError(404, f"there is no feature service {shown(name)}", hint)
    return found


def check_variant(service: al.FeatureService, variant: str | None) -> None:
    """Refuse a variant that a service has not.

    Raises:
        RefusalError: If it has not.
    """
    names = [each.name for each in service.variants] or [service.name]
    if variant is not None and variant not in names:
        problem = f"service {service.name!r} has no variant {shown(variant)}"
        raise RefusalError(404, problem, f"it has {', '.join(map(repr, names))}.")


def catalogue(held: Held) -> dict[str, Any]:
    """What is served: views with their features and types, and services."""
    server = held.server
    return {
        "definition": held.definition,
        "views": [
            {
                "name": name,
                "definition": server.definitions[name],
                "provider": _provider(view),
                "kind": view.kind,
                "entities": view.spine_entities,
                "features": [
                    {
                        "name": feature.name,
                        "reference": f"{name}:{feature.name}",
                        "column": view.column_name(feature),
                        "dtype": str(view.column_type(feature)),
                    }
                    for feature in view.features
                ],
            }
            for name, view in server.views.items()
        ],
        "services": [
            {
                "name": name,
                "features": server.names(service.features),
                "variants": [variant.name for variant in service.variants],
            }
            for name, service in held.services.items()
        ],
    }


def arrival_ages(held: Held) -> dict[str, float]:
    """Seconds since the newest row of each view arrived; views without any are left out."""
    now = held.server.clock()
    found: dict[str, float] = {}
    for name, view in held.server.views.items():
        newest = None if view.observations.source is None else view.observations.source.observed_through()
        if newest is not None:
            found[name] = max(0.0, (now - newest.astimezone(UTC)).total_seconds())
    return found


def _provider(view: Any) -> str | None:
    source = view.observations.source
    return None if source is None else source.provider
