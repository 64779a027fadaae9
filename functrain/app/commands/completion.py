"""`functrain completion`: print a script with which a shell completes command lines."""

import argparse
from collections.abc import Iterator

from functrain.app.commands.command import Command

SHELLS = ("bash", "zsh", "fish")
DESCRIPTION = """\
Print a script with which a shell completes commands, options, and keys of the configuration. The script is static:
TAB never starts Python. After an update of functrain make it again.

  bash  functrain completion bash > ~/.local/share/bash-completion/completions/functrain
  zsh   functrain completion zsh > ~/.zfunc/_functrain, with fpath+=~/.zfunc before compinit in ~/.zshrc
  fish  functrain completion fish > ~/.config/fish/completions/functrain.fish

  functrain completion bash
  functrain completion zsh
  functrain completion fish
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def lines(arguments: argparse.Namespace) -> Iterator[str]:
    """What the command prints."""
    from functrain.app.completion import script

    yield script(arguments.shell)


COMMAND = Command(
    name="completion",
    summary="print a script for completion in bash, zsh or fish",
    description=DESCRIPTION,
    add_options=add_options,
    lines=lines,
)
