"""A provider's contract against what it sends."""

__all__: list[str] = []
