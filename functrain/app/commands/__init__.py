"""The commands of the command line, one file each: its options, its help and what runs it.

These files import the standard library only, so that `functrain --help` waits for nothing. A command's `run` imports
what does the work.
"""
