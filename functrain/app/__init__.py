"""The command line: its commands, configurations and runs. No other layer imports it.

This module re-exports nothing, so that `functrain --help` does not import torch.
"""
