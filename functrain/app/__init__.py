"""The command line and what is behind it: configuration, registry, commands. Imported by nothing.

Nothing is re-exported here, so that `functrain --help` does not wait for torch.
"""
