"""`functrain export`: write a checkpoint's model to a file that other libraries read."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Write the model of a checkpoint to a file. The suffix chooses the format: .safetensors, or .pt and .pth for torch.save;
or .zip for an archive. A .pt file holds model_state_dict, epoch and step, and loads with weights_only=True.

An archive holds the weights, the configuration, the model card, the metrics, the curves and the traced model. In
Python functrain.load_archive(OUT) opens it, and functrain.predict computes outputs without the model's source. To
trace the model, the command reads a batch of the run's data. Another format does not need the data.

Given a run, the command exports its last checkpoint. An existing file is replaced when the new one is complete.

  functrain export runs/digits digits.safetensors
  functrain export runs/digits/checkpoints/best digits.pt --ema
  functrain export runs/digits digits.pt --optimizer
  functrain export runs/digits/checkpoints/best digits.zip
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("path", type=path, metavar="RUN|CHECKPOINT", help="the directory of a run or of a checkpoint")
    parser.add_argument("out", type=path, metavar="OUT", help="the file: .safetensors, .pt, .pth or .zip")
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
    summary="write a checkpoint's model for torch, as safetensors, or with all of the run in an archive",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
