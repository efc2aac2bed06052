"""The jobs that fill the logs: polling, running, watching, alerting."""

__all__: list[str] = []
