"""`functrain predict`: a run's predictions for inputs in files."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, count, name, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Predict with a run's checkpoint, for inputs in a file or folder: images, .npy, .npz, .csv or .parquet. A run of a table
or a folder of images prepares raw rows and images as it did for training. Other inputs must be as the run's data set
gives them to the model: of the same shape, scaled alike.

A classifier's classes and probabilities, and a regression's values, go to predictions.csv; classes of pixels go to
masks/*.png, and anything else to arrays/*.npy. One batch at a time is in memory. Of an ensemble it is the members' mean
prediction, and the table also has how far they are apart.

  functrain predict runs/digits images.npy
  functrain predict digits.zip images.npy
  functrain predict runs/digits table.csv --columns age,height --out predicted
  functrain predict runs/segments photos --after open:1 fill-holes min-size:20
"""

STEPS = "open:R, close:R, dilate:R, erode:R, fill-holes, min-size:N, largest; one after another"
FLIPS = "none, and mirrored ones: horizontal, vertical, both (default: none)"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument(
        "run",
        type=path,
        metavar="RUN|CHECKPOINT|ARCHIVE",
        help="the directory of a run or of a checkpoint, or an archive of 'functrain export'",
    )
    parser.add_argument("inputs", type=path, metavar="INPUTS", help="a file, or a folder of images")
    parser.add_argument(
        "--out",
        type=path,
        metavar="DIR",
        help="the folder for the files (default: RUN/predictions; of an archive: predictions)",
    )
    parser.add_argument("--ema", action="store_true", help="use the averaged parameters")
    parser.add_argument("--key", type=name, metavar="NAME", help="the array of a .npz file")
    parser.add_argument("--columns", type=name, metavar="A,B", help="the columns of a table (default: all)")
    parser.add_argument("--threshold", type=float, default=0.5, metavar="P", help="of yes or no (default: 0.5)")
    parser.add_argument("--after", nargs="+", default=[], metavar="STEP", help=f"post-processing of masks: {STEPS}")
    parser.add_argument("--flips", nargs="+", default=["none"], metavar="FLIP", help=f"average over images: {FLIPS}")
    parser.add_argument(
        "--rows", type=count, default=32, metavar="N", help="inputs that the model gets at once (default: 32)"
    )


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.predict import Asked, predict_files

    asked = Asked(
        ema=arguments.ema,
        key=arguments.key or arguments.columns,
        threshold=arguments.threshold,
        after=tuple(arguments.after),
        flips=tuple(arguments.flips),
        rows=arguments.rows,
    )
    predict_files(arguments.run, arguments.inputs, arguments.out, asked, arguments.trust, console)
    return 0


COMMAND = Command(
    name="predict",
    summary="predict for images, arrays or tables in files",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
