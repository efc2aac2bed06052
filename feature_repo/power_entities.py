"""Whose power is forecast."""

from feast import Entity, ValueType

site = Entity(name="site", value_type=ValueType.STRING, description="A solar plant of the simulated fleet.")
