"""`functrain reproduce`: train a run again from its directory, and compare each digest."""

import sys
from pathlib import Path

import torch
from rich.console import Console

from functrain.app.commands.command import FOUND
from functrain.app.config.build import micro_batches, set_threads
from functrain.app.config.files import read_source
from functrain.app.config.loading import check_parameters
from functrain.app.config.schema import Config
from functrain.app.runs import surroundings
from functrain.app.runs.ancestry import start_of
from functrain.app.runs.code_version import code_version, export
from functrain.app.runs.digests import Moment, Parting, digests, parting
from functrain.app.runs.past import Past, again, nothing_left_behind, past_run
from functrain.app.runs.surroundings import Surroundings, recorded_code
from functrain.app.tables import print_lines
from functrain.diagnostics.reproduction import as_recorded, recorded_options
from functrain.diagnostics.time_travel import reached, stop_at
from functrain.foundation.errors import ConfigError
from functrain.foundation.paths import shown_path
from functrain.foundation.scratch import scratch_folder
from functrain.loop import Event, Stop, on
from functrain.loop.output.progress_line import counted


def reproduce(path: Path, trust: bool, progress: bool | None, console: Console) -> int:
    """The command: train in a scratch directory, and compare with the log's digests.

    Args:
        path: a run's directory.
        trust: the user vouches for a run that somebody else wrote.
        progress: of `fit`.
        console: what to print on.

    Returns:
        The exit code: 1 if a digest differs.

    Raises:
        ConfigError: there is no such run, or its log has no digests.
    """
    past, config = past_run(path, trust, progress)
    ancestry = past.ancestry
    begin = (
        ancestry.step if ancestry is not None and ancestry.is_branch else -1
    )  # up to there the log is a copy of another run's
    expected = {moment: text for moment, text in digests(past.run.path).items() if moment.step > begin}
    if not expected:
        raise ConfigError(
            f"the log in {shown_path(past.run.path)} has no digests: an earlier functrain wrote it, or no epoch has "
            "ended yet"
        )
    with scratch_folder() as scratch, nothing_left_behind("the run is as it was"):
        before = next(iter(surroundings.read(past.run.path)), None)
        if before is None:
            print_lines(console, [f"note: {shown_path(past.run.path)} does not say which environment it was made in"])
        else:
            config = _with_its_code(config, past, before, scratch / "code", console)
        check_parameters(
            config, read_source(past.run.config_file, recorded=True)
        )  # imports the code, and so not sooner
        found, missing = _train(config, past, before, expected, scratch / "run", console)
    return _report(found, missing, past, console)


def _with_its_code(config: Config, past: Past, before: Surroundings, folder: Path, console: Console) -> Config:
    """The configuration with the code that the run had; what differs in that is said."""
    if not config.code_paths or not config.references:
        return config
    recorded = recorded_code(past.run.path, before, past.trust)
    now = code_version(config.code_paths[0])
    if recorded is None:
        print_lines(console, ["note: the run's code was in no git repository: the code of now is used"])
        return config
    for missing in recorded.left_out:
        print_lines(console, [f"note: the run's code was not recorded as a whole: {missing}"])
    if now is not None and (now.commit, now.patch) == (recorded.commit, recorded.patch):
        return config
    folder.mkdir()
    try:
        export(recorded, folder)
    except OSError as error:
        print_lines(console, [f"note: commit {recorded.short} cannot be had ({error}): the code of now is used"])
        return config
    print_lines(console, [f"note: the code has changed since: commit {recorded.short} is used"])
    root = recorded.root.resolve()
    sys.path[:] = [str(_moved(Path(each or "."), root, folder) or each) for each in sys.path]
    return config.with_code([_moved(each, root, folder) or each for each in config.code_folders or ()])


def _moved(path: Path, root: Path, folder: Path) -> Path | None:
    """Where a folder of a repository is in a copy of the repository; None if it is in neither."""
    path = path.resolve()
    moved = folder / path.relative_to(root) if path.is_relative_to(root) else None
    return moved if moved is not None and moved.is_dir() else None


def _train(
    config: Config, past: Past, before: Surroundings | None, expected: dict[Moment, str], run: Path, console: Console
) -> tuple[Parting, list[Moment]]:
    """Train again until a digest differs, or to the run's end; also, the moments that were not reached."""
    set_threads(config)
    with as_recorded({} if before is None else before.environment, torch.device(config.training.device)):
        parts = past.built(config)
        if before is not None:
            now = surroundings.surroundings(config, parts.loaders.by_split(), parts.state).value
            differing = surroundings.what_differs(before, now)
            print_lines(console, [f"note: {each}" for each in differing] or ["the environment is as it was"])

        @on("before_epoch")
        def compare(_: Event) -> Stop | None:
            return None if parting(expected, digests(run)).differs is None else Stop()

        per_epoch = micro_batches(config, parts.loaders.train)
        end = stop_at(reached(past.run.path) + 1, per_epoch)  # a finished run ends by itself
        ancestry = past.ancestry
        start = "auto"
        if ancestry is not None and ancestry.is_branch:
            start = str(start_of(past.run.path, ancestry))
        infos = past.run.checkpoints()
        settings = recorded_options(infos[-1])._asdict() if infos else {}
        again(config, parts, past.progress, settings)(run_dir=run, resume=start, callbacks=[compare, end])
    trained = digests(run)
    return parting(expected, trained), sorted(expected.keys() - trained.keys())


def _report(found: Parting, missing: list[Moment], past: Past, console: Console) -> int:
    name = shown_path(past.run.path)
    if found.differs is None and not missing:
        print_lines(
            console, [f"{name}: reproduced bit for bit: {counted(found.compared, 'digest')} equal, up to {found.equal}"]
        )
        return 0
    equal = f"{counted(found.compared, 'digest')} equal, up to {found.equal}; " if found.equal else ""
    where = f"the first that differs is at {found.differs}" if found.differs else f"{missing[0]} was never reached"
    print_lines(console, [f"{name}: NOT reproduced: {equal}{where}"])
    return FOUND
