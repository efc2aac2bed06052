"""Engines: the same rules, evaluated in different places."""
