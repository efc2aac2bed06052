"""Rows that were pushed: durable before the answer, in the log about a second later."""

__all__: list[str] = []
