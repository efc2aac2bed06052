"""Questions as they come: Feast's `POST /get-online-features` with a few fields more, read strictly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from serving.http.refusals import RefusalError, shown
from serving.http.settings import HttpLimits

Scalar = int | float | str | bool | None
ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"
_GREATEST = 2**63


class FeaturesRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is asked for. `entities`, `features`, `feature_service` and the two about names and versions are Feast's.

    A field that there is not is refused, not passed over: a misspelt `as_of` would otherwise be answered with now.

    Attributes:
        entities: Entity columns, name to values, all of one length.
        features: `view:feature`, `view__feature`, or `view` for all of it.
        feature_service: A declared service, instead of naming features.
        variant: One of its variants: the features of that alone.
        sources: Add `<feature>__source` after each feature of the service that has fallbacks: which of them answered.
        full_feature_names: Answer with `view__feature` for names, not with `feature`.
        include_feature_view_version_metadata: Taken, for Feast's clients send it.
        as_of: An instant in the past, ISO 8601 with a zone.
        status: Add which of five statuses each value has.
        ages: Add how old the row behind each value is, in seconds.
        format: `json` or `arrow`; the latter also by `Accept`.
        definition: The hash of definitions that are to be asked, other than those served now.
    """

    entities: dict[str, list[Scalar]]
    features: list[str] = []
    feature_service: str | None = None
    variant: str | None = None
    sources: bool = False
    full_feature_names: bool = False
    include_feature_view_version_metadata: bool = False
    as_of: str | None = None
    status: bool = False
    ages: bool = False
    format: Literal["json", "arrow"] = "json"
    definition: str | None = None


class ResolveRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which variant of a feature service can be answered.

    Attributes:
        feature_service: Its name.
        as_of: An instant in the past.
        definition: As above.
    """

    feature_service: str
    as_of: str | None = None
    definition: str | None = None


class SwitchRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which definitions are served from now on.

    Attributes:
        definition: Their hash.
    """

    definition: str


_features = msgspec.json.Decoder(FeaturesRequest).decode
_resolve = msgspec.json.Decoder(ResolveRequest).decode
_switch = msgspec.json.Decoder(SwitchRequest).decode


def read_question(body: bytes, limits: HttpLimits) -> FeaturesRequest:
    """The question in a body.

    Raises:
        RefusalError: If there is none in it, or it asks for too much.
    """
    try:
        asked = _features(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RefusalError(
            400, *_malformed(error, '{"features": ["view:feature"], "entities": {"station": ["a"]}}')
        ) from error
    if asked.feature_service is not None and asked.features:
        raise RefusalError(400, "both features and a feature_service are named", "leave one of them out.")
    if asked.feature_service is None and not asked.features:
        raise RefusalError(
            400,
            "name either features or a feature_service",
            'e.g. {"features": ["view:feature"], "entities": {"station": ["a"]}}; GET /features lists them.',
        )
    if asked.feature_service is None and (asked.variant is not None or asked.sources):
        raise RefusalError(400, "variant and sources are about a feature_service", "name one, or leave them out.")
    _check_rows(asked.entities, len(asked.features), limits)
    return asked


def read_resolve(body: bytes) -> ResolveRequest:
    """The question for a variant in a body.

    Raises:
        RefusalError: If there is none in it.
    """
    try:
        return _resolve(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RefusalError(400, *_malformed(error, '{"feature_service": "name"}')) from error


def read_switch(body: bytes) -> str:
    """The hash in a body.

    Raises:
        RefusalError: If there is none in it.
    """
    try:
        return _switch(body).definition
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RefusalError(
            400, *_malformed(error, '{"definition": "..."}; GET /admin/definitions lists them')
        ) from error


def read_instant(text: str | None) -> datetime | None:
    """An instant with a zone, in UTC.

    Raises:
        RefusalError: If it is none, or has no zone.
    """
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is not None:
            return instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise RefusalError(400, f"as_of={shown(text)} is not an instant", "write 2026-01-01T00:00:00Z.") from None
    raise RefusalError(400, f"as_of={shown(text)} has no zone", "write 2026-01-01T00:00:00Z.")


def _malformed(error: Exception, example: str) -> tuple[str, str]:
    said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return f"the body is not the question that it should be: {said[:300]}", f"e.g. {example}."


def _check_rows(entities: Mapping[str, Sequence[Scalar]], features: int, limits: HttpLimits) -> None:
    """Refuse what is out of shape or too much, before anything is computed.

    Raises:
        RefusalError: If it is.
    """
    height = -1
    for name, values in entities.items():
        if height not in (-1, len(values)):
            first = next(iter(entities))
            raise RefusalError(
                400,
                f"entities[{shown(first)}] has {height:,} values, entities[{shown(name)}] has {len(values):,}",
                "give every entity column as many values.",
            )
        height = len(values)
        if height > limits.entities:
            raise RefusalError(413, f"{height:,} rows are asked for, {limits.entities:,} may be", "send them in parts.")
        for place, value in enumerate(values):
            if value.__class__ is int and not -_GREATEST <= value < _GREATEST:
                raise RefusalError(
                    400, f"entities[{shown(name)}][{place}] has more than 64 bits", "send what the log has as its key."
                )
    if features > limits.features:
        raise RefusalError(
            413, f"{features:,} features are asked for, {limits.features:,} may be", "ask for them in parts."
        )
    if features * height > limits.values:
        raise RefusalError(
            413,
            f"{features:,} features of {height:,} rows are asked for, {limits.values:,} values may be",
            "send the rows in parts.",
        )
