"""The model card of a run: `README.md` in its directory."""

from collections.abc import Iterator, Mapping, Sequence

from functrain.app.config.loading import plain
from functrain.app.config.schema import Config
from functrain.app.config.yaml_text import dump
from functrain.app.runs import surroundings
from functrain.app.runs.ancestry import ancestry_of
from functrain.app.runs.directory import RunDirectory, write_text
from functrain.app.runs.parts import Parts
from functrain.foundation.paths import shown_path
from functrain.loop.output.progress_line import counted, exact
from functrain.step import TrainState

FILE = "README.md"
# The first line. A card without it is somebody's own, and stays.
MARK = "<!-- functrain writes this file after each training. Remove this line to keep your own text. -->"
SECTIONS = ("model", "data", "objective", "optimizer", "training")
BEGINNING = ("init_from", "freeze")  # that most runs have not
SPLITS = {"train": "training", "val": "validation", "test": "test"}


def write_card(
    run: RunDirectory,
    config: Config,
    parts: Parts,
    state: TrainState,
    metrics: Mapping[str, Mapping[str, float]],
    checkpoint: str | None,
) -> bool:
    """Write the card.

    Args:
        run: the run's directory.
        config: the run's.
        parts: what was trained.
        state: the result.
        metrics: by the name of the split, as the command prints them.
        checkpoint: that holds the result.

    Returns:
        Whether it was written; not if somebody has made the card their own.

    Raises:
        FunctrainError: it cannot be written.
    """
    path = run.path / FILE
    if path.is_file() and not path.read_text(encoding="utf-8", errors="replace").startswith(MARK):
        return False
    lines = [
        MARK,
        "",
        f"# {config.name}" + ("" if config.stage is None else f", stage {config.stage}"),
        "",
        *_model(config, state),
        *_beginning(run),
        *_data(run, parts),
        *_hyperparameters(config),
        *_metrics(state, metrics, checkpoint),
        *_limits(run, parts, state),
        *_loading(run),
    ]
    write_text(path, "\n".join(lines) + "\n")
    return True


def _model(config: Config, state: TrainState) -> Iterator[str]:
    count = 1 if state.members is None else len(state.members)
    parameters = sum(leaf.numel() for leaf in state.params.values()) // count
    frozen = sum(state.params[name].numel() for name in state.recipe.network.frozen) // count
    if state.members is not None:
        seeds = f"{config.seed} to {config.seed + count - 1}"
        yield f"An ensemble of {count} members, with seeds {seeds}, whose predictions are averaged. Each member is"
    yield f"`{config.model.name}` ({state.recipe.network.name}) with {counted(parameters, 'parameter')}" + (
        f", {frozen:,} of them frozen." if frozen else "."
    )


def _beginning(run: RunDirectory) -> Iterator[str]:
    ancestry = ancestry_of(run.path)
    if ancestry is not None:
        yield f"It {'branched off' if ancestry.is_branch else 'began with'} {ancestry}."


def _data(run: RunDirectory, parts: Parts) -> Iterator[str]:
    starts = surroundings.read(run.path)
    digests = starts[-1].data if starts else {}
    yield from ("", "## Data", "", "| split | examples | digest of the contents |", "|---|---:|---|")
    for split, loader in parts.loaders.by_split().items():
        if loader is not None:
            yield f"| {SPLITS[split]} | {len(loader.dataset):,} | {digests.get(split) or 'unknown'} |"


def _hyperparameters(config: Config) -> Iterator[str]:
    values = plain(config)
    yield from ("", "## Hyperparameters", "", f"Seed {config.seed}. `config.yaml` has all keys.", "", "```yaml")
    yield dump({name: values[name] for name in (*SECTIONS, *(each for each in BEGINNING if values[each]))}).rstrip("\n")
    yield "```"


def _metrics(state: TrainState, metrics: Mapping[str, Mapping[str, float]], checkpoint: str | None) -> Iterator[str]:
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    yield from ("", "## Metrics", "")
    yield f"After {counted(state.epoch, 'epoch')} and {counted(state.step, 'update')}; checkpoint `{checkpoint}`."
    yield "The row of training holds means over the last epoch, while the parameters changed."
    if state.members is not None:
        yield "The rows of training and validation are means over the members; the test is of their mean prediction."
    yield from ("", f"| split | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}")
    for split, values in metrics.items():
        yield f"| {split} | {' | '.join(exact(values[name]) if name in values else '' for name in names)} |"


def _limits(run: RunDirectory, parts: Parts, state: TrainState) -> Iterator[str]:
    starts = surroundings.read(run.path)
    yield from ("", "## Limits", "")
    yield f"- The metrics are of {_tested(parts)} of this data set. They say nothing about data of another origin."
    seeds = "It is one run with one seed; another seed gives" if state.members is None else "Other seeds give"
    yield f"- {seeds} other metrics. Precision: {state.recipe.precision}."
    if starts:
        torch, device = (starts[-1].environment.get(name, "unknown") for name in ("torch", "device"))
        yield f"- Trained with torch {torch} on {device}; other versions and devices round differently."
        code = starts[-1].code
        if code is not None:
            patch = f", with the changes in `{code['patch']}`" if code["patch"] else ""
            yield f"- The code is that of commit {code['commit']}{patch}."


def _tested(parts: Parts) -> str:
    loaders = parts.loaders
    tested = loaders.test or loaders.val
    return "no other examples than the training's" if tested is None else counted(len(tested.dataset), "example")


def _loading(run: RunDirectory) -> Sequence[str]:
    name, archive = shown_path(run.path), f"{run.path.name}.zip"
    return (
        "",
        "## Load it",
        "",
        "```",
        f"functrain evaluate {name}",
        f"functrain export {name} {run.path.name}.safetensors",
        f"functrain export {name} {archive}",
        f"functrain reproduce {name}",
        "```",
        "",
        f"The archive `{archive}` holds the weights, the configuration, this card, metrics, curves, results on the",
        "test split, and the traced model. Python predicts with it where the model's source is not at hand:",
        "",
        "```python",
        "import functrain as ft",
        "",
        f'model = ft.load_archive("{archive}")',
        "outputs = ft.predict(model, loader)",
        "```",
    )
