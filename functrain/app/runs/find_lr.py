"""`functrain find-lr`: the learning-rate range test."""

from pathlib import Path

from rich.console import Console

from functrain.app.config.build import build_state, build_training_loader, set_threads
from functrain.app.config.schema import Config
from functrain.app.tables import print_facts, print_lines, print_table
from functrain.diagnostics import LRRange
from functrain.diagnostics import find_lr as sweep
from functrain.evaluation.figures import check_figure

ROWS = 16  # of the table, at most


def find_lr(config: Config, steps: int, compiled: bool, figure: Path | None, console: Console) -> None:
    """The command: sweep, print the curve, the suggestion and how to use it; draw if asked to.

    Args:
        config: the configuration.
        steps: updates of the sweep.
        compiled: compile the step.
        figure: the image to write.
        console: what to print on.
    """
    if figure is not None:
        check_figure(figure)
    set_threads(config)
    loader = build_training_loader(config)
    found = sweep(build_state(config, None), loader, steps=steps, compile=compiled)
    print_table(console, ["learning rate", "loss", "smoothed", ""], _rows(found), left=0)
    if found.diverged:
        print_lines(console, [f"the loss has run away at {found.lr[-1]:.2g}: the sweep ended there"])
    facts = [("smallest loss", f"at {found.minimum:.2g} (the edge of divergence; a tenth of it is a usual choice)")]
    if found.suggestion is None:
        facts.append(("suggestion", "none: the loss falls nowhere. More steps (--steps), or look at the data"))
    else:
        facts.append(("suggestion", f"optimizer.lr={found.suggestion:.2g} (steepest descent)"))
    if figure is not None:
        facts.append(("figure", str(found.plot(figure))))
    print_facts(console, f"{config.name}: {config.optimizer.name}, batches of {config.data.batch_size}", facts)


def _rows(found: LRRange) -> list[list[str]]:
    """Some of the updates, the marked ones among them."""
    every = -(-len(found.lr) // ROWS)
    marks = {found.minimum: "smallest"}
    if found.suggestion is not None:
        marks[found.suggestion] = "steepest"
    return [
        [f"{lr:.2e}", f"{loss:.4g}", f"{smoothed:.4g}", marks.get(lr, "")]
        for index, (lr, loss, smoothed) in enumerate(zip(found.lr, found.loss, found.smoothed))
        if index % every == 0 or lr in marks
    ]
