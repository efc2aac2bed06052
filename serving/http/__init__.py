"""Features over HTTP: Feast's contract and ours, pushed rows, health, numbers."""

from serving.http.app import Application
from serving.http.auth import Tokens
from serving.http.definitions import Definitions
from serving.http.run import serve_here
from serving.http.settings import HttpLimits, HttpSettings
from serving.http.workers import serve

__all__ = ["Application", "Definitions", "HttpLimits", "HttpSettings", "Tokens", "serve", "serve_here"]
