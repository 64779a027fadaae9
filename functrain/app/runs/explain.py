"""`functrain explain`: attributions, embeddings and attention of a run's model."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from functrain.app.config.build import build_loader, build_state
from functrain.app.runs.directory import trusted_run
from functrain.app.runs.evaluation import load_state, split_loader
from functrain.app.screen import busy
from functrain.app.tables import print_lines, print_table
from functrain.attribution.integrated import TOLERANCES
from functrain.data import Loader, batch_length
from functrain.data.preprocessing import class_names
from functrain.evaluation import Explanation, explain, observe, write_explanation, write_observed
from functrain.evaluation.explaining.observing import spread_examples
from functrain.evaluation.explaining.projections import check_tsne
from functrain.evaluation.figures import check_figure
from functrain.evaluation.prediction import inputs_of
from functrain.foundation.errors import ConfigError, FunctrainError
from functrain.foundation.trees import tree_map
from functrain.loop.output.progress_line import counted
from functrain.objectives.tasks import task_of
from functrain.step import TrainState

REFERENCES = 100  # of the training data, for gradient SHAP
OBSERVED = 2000  # examples of which embeddings are drawn


class Asked(NamedTuple):
    """The options of the command, as `functrain explain --help` describes them."""

    split: str
    checkpoint: str
    ema: bool
    method: str
    target: int | None
    examples: int
    samples: int | None
    gradients: int | None
    seed: int | None
    precision: str
    layout: str | None
    features: Sequence[str] | None
    labels: Sequence[str] | None
    layer: str | None
    tsne: bool
    ending: str


def explain_run(path: Path, out: Path | None, asked: Asked, trust: bool, console: Console) -> None:
    """The command: explain, print, write.

    Args:
        path: the run's directory.
        out: the folder for the files; None: `explain` in the run.
        asked: the options.
        trust: the user vouches for a run that somebody else wrote.
        console: what to print on.

    Raises:
        ConfigError: if it is no run, its data set has no such split, or it keeps no averages.
        CheckpointError: if there is no such checkpoint.
        ValueError: for options that do not fit the model.
        FunctrainError: if a file cannot be written.
    """
    run, config = trusted_run(path, trust)
    folder = out or run.path / "explain"
    loader = split_loader(config, asked.split)
    state, name, where = load_state(run, build_state(config, length=None), asked.checkpoint)
    if asked.ema and state.ema is None:
        raise ConfigError("this run keeps no averaged parameters (training.ema_decay is null); leave --ema out")
    _check_drawing(folder, asked)
    baseline = None
    if asked.method == "gradient_shap":
        references = build_loader(config, "train") or loader
        baseline = _joined(map(inputs_of, _spread(references, REFERENCES)))
    inputs = _joined(map(inputs_of, _spread(loader, asked.examples)))
    with busy(console, f"{asked.method} of split {asked.split}") as say:
        found = (
            _explained_each(state, inputs, asked, say)
            if _takes_long(asked)
            else _explained(state, inputs, baseline, asked)
        )
    if asked.labels is None:
        asked = asked._replace(labels=_known_labels(state, loader, found))
    title = f"{run.path.resolve().name}, {asked.split}: {asked.method.replace('_', ' ')}"
    about = {"run": str(run.path), "checkpoint": name, "split": asked.split, "precision": asked.precision}
    try:
        files = write_explanation(
            found,
            folder,
            names=asked.features,
            labels=asked.labels,
            layout=asked.layout,
            about=about,
            title=title,
            ending=asked.ending,
        )
        files += _observed(state, loader, folder, asked, f"{run.path.resolve().name}, {asked.split}")
    except OSError as error:
        raise FunctrainError(f"{folder} cannot be written to: {error.strerror}") from error
    examples = counted(len(found.scores), "example")
    what = f"{asked.method} of {examples} of split {asked.split}"
    print_lines(console, [f"{what}, {run.path}, checkpoint {name} ({where})"])
    _print(console, found)
    print_lines(console, [f"written: {file}" for file in files if file.parent.name != "figures"])


def _known_labels(state: TrainState, loader: Loader, found: Explanation) -> Sequence[str] | None:
    """The names that the data set has for the classes, if they are what is explained."""
    known = class_names(loader)
    of_classes = task_of(state.recipe.objective) in ("classification", "segmentation")
    return known if of_classes and known and int(found.target.max()) < len(known) else None


def _takes_long(asked: Asked) -> bool:
    """Whether an example takes thousands of gradients."""
    return asked.method == "integrated_gradients"


def _explained_each(state: TrainState, inputs: Any, asked: Asked, say: Callable[[str], None]) -> Explanation:
    """One example after another, which has the bits of all together; it says how many are done."""
    found, examples = [], batch_length(inputs)
    for number in range(examples):
        say(f"{asked.method} of split {asked.split}: {number} of {counted(examples, 'example')}")
        one = tree_map(lambda leaf, at=number: leaf[at : at + 1] if isinstance(leaf, Tensor) else leaf, inputs)
        found.append(_explained(state, one, None, asked))
    fields = (None if column[0] is None else _joined(iter(column)) for column in zip(*found))
    return Explanation._make(fields)


def _explained(state: TrainState, inputs: Any, baseline: Any, asked: Asked) -> Explanation:
    try:
        return explain(
            state,
            (inputs, None),
            method=asked.method,
            target=asked.target,
            baseline=baseline,
            samples=asked.samples,
            max_evaluations=asked.gradients,
            seed=asked.seed,
            precision=asked.precision,
            ema=asked.ema,
        )
    except RuntimeError as error:
        if asked.precision == "fp64" and "double" in str(error).lower():  # the model makes float32 tensors of its own
            reason = str(error).partition("\n")[0]
            raise ConfigError(f"the model cannot compute in fp64 ({reason}); give --precision fp32") from error
        raise


def _observed(state: TrainState, loader: Loader, folder: Path, asked: Asked, title: str) -> list[Path]:
    found = observe(state, _spread(loader, OBSERVED), layer=asked.layer, ema=asked.ema)
    return write_observed(
        found,
        folder,
        names=asked.features,
        labels=asked.labels,
        with_tsne=asked.tsne,
        seed=asked.seed or 0,
        title=title,
        ending=asked.ending,
    )


def _print(console: Console, found: Explanation) -> None:
    """The sum of the attributions of each input, how well they add up, and whether integrals ended early."""
    rows = [
        [name, "x".join(map(str, value.shape[1:])), f"{value.double().abs().flatten(1).sum(1).mean():.4g}"]
        for name, (_, value) in found.named().items()
    ]
    print_table(console, ["input", "shape", "mean sum of |attributions|"], rows, left=2)
    if found.completeness is not None:
        print_lines(
            console,
            [
                f"completeness: attributions add up to the difference of the scores within "
                f"{float(found.completeness.max()):.2g}, with {counted(int(found.evaluations.sum()), 'gradient')}"
            ],
        )
    if found.error is not None and (unfinished := int((found.error > TOLERANCES[found.scores.dtype]).sum())):
        examples = f"{unfinished:,} of {counted(len(found.error), 'example')}"
        print_lines(
            console,
            [
                f"the integral of {examples} ended before it was exact, with an estimated error of up to "
                f"{float(found.error.max()):.2g}; more --gradients make it smaller"
            ],
        )


def _check_drawing(folder: Path, asked: Asked) -> None:
    """Refuse what could not be drawn before it is computed."""
    place = folder
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise ConfigError(f"{folder} cannot be a folder: {place} is a file; choose another one with --out")
    check_figure(place / f"figure{asked.ending}")
    if asked.tsne:
        check_tsne()


def _spread(loader: Loader, count: int) -> Iterator[Any]:
    return spread_examples(loader, len(loader.dataset), count)


def _joined(batches: Iterator[Any]) -> Any:
    """The inputs of several batches as those of one."""
    parts = list(batches)
    return tree_map(lambda *leaves: torch.cat(leaves) if isinstance(leaves[0], Tensor) else leaves[0], *parts)
