"""Runs of several members in one step: ensembles, and the trials of a sweep that share a program."""
