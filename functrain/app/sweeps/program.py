"""Train the members of a sweep's program in one step, and write each as the run that it would be alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from functrain.app.config.build import (
    build_callbacks,
    build_loader,
    build_rules,
    build_training_loader,
    fit_settings,
    run_length,
    set_threads,
)
from functrain.app.config.loading import load_config
from functrain.app.config.schema import Config
from functrain.app.members.configs import stacked
from functrain.app.members.unstacking import MemberRun, write_members
from functrain.app.runs import outcome, surroundings
from functrain.app.runs.directory import RunDirectory
from functrain.app.runs.evaluated import evaluate_split, write_evaluation
from functrain.app.sweeps.grouping import data_section
from functrain.app.sweeps.programs import FOLDER, program_id
from functrain.app.sweeps.workers import CONFIGS
from functrain.data import Loader, LoaderOfEach, per_member
from functrain.data.contents import content_digest
from functrain.loop import Event, FitResult, fit, on
from functrain.step import TrainState, unstack


@dataclass(frozen=True)
class _Data:
    """What a configuration says of data, built."""

    train: Loader
    val: Loader | None
    test: Loader | None

    def digests(self) -> dict[str, str | None]:
        """Of the contents of each split."""
        by_split = {"train": self.train, "val": self.val, "test": self.test}
        return {
            split: content_digest(loader.dataset, reads=loader.num_workers == 0)
            for split, loader in by_split.items()
            if loader is not None
        }


def train_program(folder: Path, names: Sequence[str], trust: bool) -> None:
    """Train the members, or go on with them, and write their runs.

    Args:
        folder: the sweep's.
        names: of the members' directories.
        trust: the user vouches for code that the configurations name.

    Raises:
        FunctrainError: for everything that a user can put right.
        Interrupted: after a signal, when the state of all members is saved.
    """
    configs = [load_config(folder / CONFIGS / f"{name}.yaml", trust=trust) for name in names]
    set_threads(configs[0])
    known = {data_section(config): config for config in configs}
    built = {section: _data(config) for section, config in known.items()}
    data = [built[data_section(config)] for config in configs]
    lengths = [run_length(config, each.train) for config, each in zip(configs, data)]
    fresh = stacked(configs, lengths, configs[0].training.vectorize)
    run = RunDirectory(folder / FOLDER / program_id(names))
    result = _fit(run, fresh, configs[0], data, names)
    print(f"trained {len(names)} members to step {result.state.step}, {_form(result.state)}")
    digests = {section: each.digests() for section, each in built.items()} if len(built) > 1 else {}
    members = [
        MemberRun(config, folder / name, each.train, each.val, digests.get(data_section(config)))
        for name, config, each in zip(names, configs, data)
    ]
    write_members(run, fresh, members, print)
    for member, state, each in zip(members, unstack(result.state), data):
        _conclude(RunDirectory(member.path), state, each)


def _form(state: TrainState) -> str:
    """How the members were computed, in words."""
    stacked = state.recipe.stacked
    return "vectorised" if stacked is not None and stacked.form == "vmap" else "one after the other in one graph"


def _data(config: Config) -> _Data:
    return _Data(build_training_loader(config), build_loader(config, "val"), build_loader(config, "test"))


def _fit(
    run: RunDirectory, fresh: TrainState, config: Config, data: Sequence[_Data], names: Sequence[str]
) -> FitResult:
    """Train them with the settings that all of them have."""
    rules = build_rules(config)

    @on("before_loop")
    def note(event: Event) -> None:
        loaders = {"train": data[0].train, "val": data[0].val, "test": data[0].test}
        surroundings.record(run.path, surroundings.surroundings(config, loaders, event.state))

    return fit(
        fresh,
        _of_each([each.train for each in data]),
        eval_loader=None if data[0].val is None else _of_each([each.val for each in data]),
        run_dir=run.path,
        plateau=rules.plateau,
        early_stopping=rules.early_stopping,
        metadata={"program": list(names)},
        callbacks=[note, *build_callbacks(config)],
        on_signal="exit",
        progress=False,
        **fit_settings(config),
    )


def _of_each(loaders: Sequence[Loader | None]) -> Loader | LoaderOfEach | None:
    """One loader, if all members have that."""
    return loaders[0] if all(each is loaders[0] for each in loaders) else per_member(loaders)


def _conclude(run: RunDirectory, state: TrainState, data: _Data) -> None:
    """Write the results of the test, as `functrain train` does at the end of a run."""
    if outcome.read_outcome(run.path).get("concluded"):
        return
    if data.test is not None and outcome.read_outcome(run.path).get("status") == outcome.FINISHED:
        write_evaluation(run, evaluate_split(state, data.test, "test", tuning=data.val), run.name_of("last"))
    outcome.conclude_outcome(run.path)
