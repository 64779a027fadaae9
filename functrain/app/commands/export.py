"""`functrain export`: write a checkpoint's model to a file that other libraries read."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Write the model of a checkpoint to a file that other libraries read. The suffix chooses the format: .safetensors, or
.pt and .pth for torch.save. A .pt file holds model_state_dict, epoch and step, and loads with weights_only=True.

Given a run, the command exports its last checkpoint. It does not need the run's data. An existing file is replaced
when the new one is complete.

  functrain export runs/digits digits.safetensors
  functrain export runs/digits/checkpoints/best digits.pt --ema
  functrain export runs/digits digits.pt --optimizer
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("path", type=path, metavar="RUN|CHECKPOINT", help="the directory of a run or of a checkpoint")
    parser.add_argument("out", type=path, metavar="OUT", help="the file: .safetensors, .pt or .pth")
    parser.add_argument("--ema", action="store_true", help="write the averaged parameters")
    parser.add_argument(
        "--optimizer",
        action="store_true",
        help="also write the optimizer's state, for torch.optim's Adam, AdamW or SGD (.pt and .pth only)",
    )


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.export import export

    export(arguments.path, arguments.out, arguments.ema, arguments.optimizer, arguments.trust, console)
    return 0


COMMAND = Command(
    name="export",
    summary="write a checkpoint's model for torch or safetensors",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
