"""Pytrees, random keys, dtypes and errors: what every other layer stands on."""
