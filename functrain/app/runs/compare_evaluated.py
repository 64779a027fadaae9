"""`functrain compare --evaluate`: runs evaluated on the same examples, with paired tests."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from functrain.app.config.build import build_state
from functrain.app.config.schema import Config
from functrain.app.runs.compare import names_of
from functrain.app.runs.directory import RunDirectory, trusted_run
from functrain.app.runs.evaluation import load_state, split_loader
from functrain.data import Loader
from functrain.data.contents import content_digest
from functrain.evaluation import evaluation_report, write_comparison
from functrain.evaluation.comparing import Comparison, compare_reports, comparison_values, write_tables
from functrain.foundation.errors import ConfigError

FOLDER = Path("comparison")


class Asked(NamedTuple):
    """The options.

    Attributes:
        split: of the data.
        checkpoint: of each run: "last", "best" or a name.
        ema: compare averaged parameters; None: of each run that keeps some.
        metrics: to compare; None: all of the report.
        same_examples: the user says that the runs' data sets hold the same examples, prepared in several ways.
        out: the folder for the files.
        trust: the user vouches for runs that somebody else wrote.
    """

    split: str
    checkpoint: str
    ema: bool | None
    metrics: Sequence[str] | None
    same_examples: bool
    out: Path
    trust: bool


class Evaluated(NamedTuple):
    """Runs that were compared.

    Attributes:
        comparison: what was found.
        about: what was compared, for people.
        written: the files, or why there are no figures.
    """

    comparison: Comparison
    about: Mapping[str, str]
    written: Sequence[str]

    def lines(self) -> Iterator[str]:
        """For people."""
        yield from (f"{name}: {value}" for name, value in self.about.items())
        yield from str(self.comparison).splitlines()
        yield from self.written

    def values(self) -> dict[str, Any]:
        """For programs."""
        return {**self.about, **comparison_values(self.comparison)}


def compare_evaluated(folders: Sequence[Path], asked: Asked) -> Evaluated:
    """Evaluate runs, compare them, and write the files.

    Raises:
        ConfigError: there is no such run, its data set has no such split, it keeps no averages, or the runs' data sets
            hold unlike examples.
        CheckpointError: a run has no such checkpoint.
        ValueError: as of `compare_reports`.
        DataError: likewise.
    """
    found = [trusted_run(folder, asked.trust) for folder in folders]
    names = _distinct(names_of(folders))
    loaders = [split_loader(config, asked.split) for _, config in found]
    if not asked.same_examples:
        _refuse_other_examples(names, [config for _, config in found], loaders, asked.split)
    reports, about = {}, {"split": asked.split}
    for name, (run, config), loader in zip(names, found, loaders, strict=True):
        state, about[name], ema = _state(run, config, asked)
        reports[name] = evaluation_report(state, loader, ema=ema)
    comparison = compare_reports(reports, asked.metrics)
    return Evaluated(comparison, about, list(_written(comparison, asked, about)))


def _state(run: RunDirectory, config: Config, asked: Asked) -> tuple[Any, str, bool]:
    """The state to evaluate, where it stands, and whether its averages are meant."""
    state, checkpoint, where = load_state(run, build_state(config, length=None), asked.checkpoint)
    averaged = state.ema is not None
    if asked.ema and not averaged:
        raise ConfigError(
            f"{run.path} keeps no averaged parameters (training.ema_decay is null); leave --ema out to compare the "
            "averages of the runs that keep some"
        )
    ema = averaged if asked.ema is None else asked.ema
    return state, f"{run.path}, checkpoint {checkpoint} ({where}){', averaged parameters' if ema else ''}", ema


def _written(comparison: Comparison, asked: Asked, about: Mapping[str, str]) -> Iterator[str]:
    try:
        files = write_comparison(comparison, asked.out, about, title=f"Models on the split {asked.split}")
    except ModuleNotFoundError as error:
        yield f"no figures: {error}"
        files = write_tables(comparison, asked.out, about)
    yield from (f"written: {file}" for file in files if file.parent.name != "figures")


def _refuse_other_examples(
    names: Sequence[str], configs: Sequence[Config], loaders: Sequence[Loader], split: str
) -> None:
    """Refuse data sets whose contents differ from the first one's.

    A data set that cannot be read ahead is judged by its name and parameters.
    """
    digests = [content_digest(loader.dataset) for loader in loaders]
    for i in range(1, len(names)):
        ours, theirs = _data(configs[0]), _data(configs[i])
        same = ours == theirs if None in (digests[0], digests[i]) else digests[0] == digests[i]
        if not same:
            keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
            unlike = "; ".join(f"data.{key} is {ours.get(key)!r} and {theirs.get(key)!r}" for key in keys)
            raise ConfigError(
                f"paired tests need the same examples, but those of the split {split!r} of {names[0]} and {names[i]} "
                f"differ ({unlike or 'the same configuration now gives others'}). If they are the same ones, prepared "
                "in two ways, give --same-examples"
            )


def _data(config: Config) -> dict[str, Any]:
    return {"name": config.data.name, **config.data.parameters}


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, numbered where one occurs again: a run can be compared with itself."""
    return [name if name not in names[:i] else f"{name} ({names[:i].count(name) + 1})" for i, name in enumerate(names)]
