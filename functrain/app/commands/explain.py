"""`functrain explain`: why a run's model gives its outputs."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, count, name, natural, path

if TYPE_CHECKING:
    from rich.console import Console

METHODS = ("integrated_gradients", "saliency", "input_x_gradient", "smooth_grad", "gradient_shap")

DESCRIPTION = """\
Explain the outputs of a run's model on examples of its data. The command writes to RUN/explain/:

  explanation.json, attributions.npz, feature_importance.png   how much each input contributes to the output
  pca_analysis.png                                             embeddings of the split in two dimensions
  attention_analysis.png                                       where the model returns attention_weights
  gate_analysis.png                                            where the model returns gates
  figures/*.json                                               what the figures show

  functrain explain runs/digits
  functrain explain runs/digits --method gradient_shap --target 3 --examples 200
  functrain explain runs/patients --features age,height,weight --labels healthy,ill --tsne
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("run", type=path, metavar="RUN", help="a run's directory")
    parser.add_argument(
        "--split", choices=("test", "val", "train"), default="test", help="the split of the data (default: test)"
    )
    parser.add_argument(
        "--checkpoint", type=name, default="last", metavar="best|last|NAME", help="the checkpoint (default: last)"
    )
    parser.add_argument("--ema", action="store_true", help="use the averaged parameters")
    parser.add_argument("--method", choices=METHODS, default=METHODS[0], help=f"default: {METHODS[0]}")
    parser.add_argument(
        "--target", type=natural, metavar="N", help="the class or output to explain (default: the predicted class)"
    )
    parser.add_argument(
        "--examples", type=count, default=8, metavar="N", help="examples of the split, evenly spread (default: 8)"
    )
    parser.add_argument(
        "--samples", type=count, metavar="N", help="gradients of an example, of smooth_grad and gradient_shap (64)"
    )
    parser.add_argument(
        "--gradients",
        type=count,
        metavar="N",
        help="gradients of an example, of integrated_gradients, at most (default: 20000, which is exact for most)",
    )
    parser.add_argument("--seed", type=natural, metavar="N", help="of smooth_grad and gradient_shap (default: 0)")
    parser.add_argument(
        "--precision", choices=("fp32", "fp64"), default="fp64", help="to compute in (default: fp64, which is exact)"
    )
    parser.add_argument(
        "--layout", choices=("table", "spectrum", "image"), help="what the inputs are (default: by their shape)"
    )
    parser.add_argument("--features", type=name, metavar="A,B", help="names of a table's features")
    parser.add_argument("--labels", type=name, metavar="A,B", help="names of the classes (default: those of the data)")
    parser.add_argument(
        "--layer",
        type=name,
        metavar="PATH",
        help="the layer whose output is the embedding (default: the last layer's input)",
    )
    parser.add_argument("--tsne", action="store_true", help="t-SNE of the embeddings, too (needs scikit-learn)")
    parser.add_argument("--out", type=path, metavar="DIR", help="the folder for the files (default: RUN/explain)")
    parser.add_argument("--format", choices=("png", "svg", "pdf"), default="png", help="of the figures (default: png)")


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.explain import Asked, explain_run

    asked = Asked(
        split=arguments.split,
        checkpoint=arguments.checkpoint,
        ema=arguments.ema,
        method=arguments.method,
        target=arguments.target,
        examples=arguments.examples,
        samples=arguments.samples,
        gradients=arguments.gradients,
        seed=arguments.seed,
        precision=arguments.precision,
        layout=arguments.layout,
        features=_names(arguments.features),
        labels=_names(arguments.labels),
        layer=arguments.layer,
        tsne=arguments.tsne,
        ending=f".{arguments.format}",
    )
    explain_run(arguments.run, arguments.out, asked, arguments.trust, console)
    return 0


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]


COMMAND = Command(
    name="explain",
    summary="explain a model's outputs: attributions, embeddings, attention",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
