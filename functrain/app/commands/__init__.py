"""The commands of the command line: one file for each, with its options, its help and its `run`.

These files import the standard library only, so that `functrain --help` is fast. `run` imports the module that does
the work.
"""
