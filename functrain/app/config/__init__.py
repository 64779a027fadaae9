"""Configurations: the schema, YAML files and overrides, the registry of names, and the objects that they describe."""
