"""The online state and what is asked of it."""

from serving.online.answers import Answer, AnsweredColumn
from serving.online.errors import (
    AsOfError,
    EntityError,
    NotReadyError,
    OnlineError,
    UnknownFeatureError,
    UnservableViewError,
)
from serving.online.redis_backend import RedisBackend
from serving.online.redis_connection import RedisSettings
from serving.online.server import FeatureServer, Readiness
from serving.online.services import ProviderState, Resolution, VariantState, read_service, resolve
from serving.online.settings import OnlineSettings

__all__ = [
    "Answer",
    "AnsweredColumn",
    "AsOfError",
    "EntityError",
    "FeatureServer",
    "NotReadyError",
    "OnlineError",
    "OnlineSettings",
    "ProviderState",
    "Readiness",
    "RedisBackend",
    "RedisSettings",
    "Resolution",
    "UnknownFeatureError",
    "UnservableViewError",
    "VariantState",
    "read_service",
    "resolve",
]
