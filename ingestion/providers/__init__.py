"""Declarations of providers: who sends what, from where, when, and under which contract."""

__all__: list[str] = []
