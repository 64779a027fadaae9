"""A run that is trained again, from one of its checkpoints or from the beginning."""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from functrain.app.config.build import build_rules, micro_batches, set_threads
from functrain.app.config.schema import Config
from functrain.app.config.trust import trust_run
from functrain.app.runs.ancestry import START, Ancestry, ancestry_of
from functrain.app.runs.beginning import begun_again
from functrain.app.runs.digests import Moment, digests
from functrain.app.runs.directory import RunDirectory, existing_run, refuse_ensemble, trusted_run
from functrain.app.runs.from_checkpoint import config_of
from functrain.app.runs.parts import Parts, build
from functrain.app.runs.running import run_config
from functrain.app.runs.sharing import shared_again
from functrain.checkpoint import CheckpointInfo, read_checkpoint
from functrain.diagnostics.reproduction import recorded_options
from functrain.diagnostics.time_travel import Rebuilt, check_step, reached, rebuild
from functrain.foundation.errors import ConfigError
from functrain.foundation.paths import absolute, shown_path
from functrain.loop import FitResult, Interrupted
from functrain.loop.resume.metadata import metadata_of
from functrain.step import TrainState


@dataclass(frozen=True)
class Past:
    """A run of the command line.

    Attributes:
        run: its directory.
        trust: the user vouches for a run that somebody else wrote.
        progress: of `fit`.
    """

    run: RunDirectory
    trust: bool
    progress: bool | None = None

    @property
    def ancestry(self) -> Ancestry | None:
        """What the run began with."""
        return ancestry_of(self.run.path)

    def check(self, step: int) -> None:
        """Refuse an update that the run has not reached, or that its ancestor made.

        Raises:
            ValueError, ConfigError: likewise.
        """
        check_step(step, reached(self.run.path), self.run.path)
        if self.ancestry is not None and step < self.ancestry.first_step:
            raise ConfigError(
                f"{shown_path(self.run.path)} begins at step {self.ancestry.step} of {self.ancestry.run}: give that "
                f"run for step {step}"
            )

    def config_at(self, step: int) -> Config:
        """The configuration that made an update: it may have changed where the run was started again.

        Raises:
            ConfigError: as `config_of`.
        """
        later = [info for info in self.run.checkpoints() if info.step >= step and metadata_of(info).config is not None]
        if later:
            return config_of(later[0].path, self.trust)[1]
        return trusted_run(self.run.path, self.trust)[1]

    def rebuilt(
        self, step: int, scratch: Path, *, since: int | None = None, digest_every: int | None = None
    ) -> tuple[Rebuilt, TrainState]:
        """Train to an update in an empty directory.

        Args:
            step: the update.
            scratch: the directory.
            since: begin no later than at this update; default: at the nearest checkpoint.
            digest_every: of `fit`.

        Returns:
            Where the checkpoint is, and its state.
        """
        config = self.config_at(step)
        set_threads(config)
        parts = self.built(config)
        settings: dict[str, Any] = {} if digest_every is None else {"digest_every": digest_every}
        infos = self.run.checkpoints()
        if infos:
            settings |= recorded_options(infos[-1])._asdict()
        train = again(config, parts, self.progress, settings)
        per_epoch = micro_batches(config, parts.loaders.train)
        found = rebuild(train, self.folders, step, scratch, parts.state, per_epoch, since=since)
        return found, read_checkpoint(found.path, parts.state).tree

    @property
    def folders(self) -> Sequence[Path]:
        """That hold checkpoints of the run, and that which a branch began with."""
        branch = self.ancestry is not None and self.ancestry.is_branch
        return [*([self.run.path / START / "checkpoints"] if branch else []), self.run.checkpoint_folder]

    def built(self, config: Config) -> Parts:
        """What a configuration of the run describes, with the state that the run began with.

        Raises:
            ConfigError: as of `shared_again`.
        """
        parts = build(config)
        state = begun_again(parts.state, config, self.run.path)
        infos = self.run.checkpoints()
        return dataclasses.replace(parts, state=shared_again(state, config, infos[-1] if infos else None))


def past_run(path: Path, trust: bool, progress: bool | None) -> tuple[Past, Config]:
    """A run whose code may be run, and its last configuration.

    Args:
        path: its directory.
        trust, progress: of `Past`.

    Raises:
        ConfigError: there is no such run; or it names functions, and it is not this user's.
    """
    run, config = existing_run(path)
    refuse_ensemble(config, run.path)
    return Past(RunDirectory(absolute(path)), trust, progress), trust_run(config, run.path, trust)


def again(config: Config, parts: Parts, progress: bool | None, settings: dict[str, Any]) -> Callable[..., FitResult]:
    """What trains a configuration in a directory: a function of `run_dir`, `resume` and `callbacks`."""
    rule = build_rules(config).early_stopping
    if rule is not None:
        settings = {**settings, "early_stopping": dataclasses.replace(rule, restore_best=False)}

    def train(run_dir: Path, **arguments: Any) -> FitResult:
        options = {**settings, "on_signal": "exit", "progress": progress, **arguments}
        return run_config(config, RunDirectory(run_dir), parts=parts, **options)

    return train


@contextmanager
def nothing_left_behind(what: str) -> Iterator[None]:
    """Say what an interruption leaves: nothing, since all of it was in a scratch directory."""
    try:
        yield
    except Interrupted:
        print(f"functrain: interrupted; {what}", file=sys.stderr)
        raise


def moment_of(state: TrainState) -> Moment:
    """The moment of a state that a run has saved."""
    return Moment(state.step, state.step > 0 and state.batch_idx == 0)


def confirmed(past: Past, scratch: Path, start: CheckpointInfo | None, moment: Moment, digest: str) -> Moment | None:
    """Up to which moment a rebuilt state is the run's, by the digests in its log; None if there are none.

    Args:
        past: the run.
        scratch: where it was trained again; the log there begins with a copy of the run's.
        start: the checkpoint that training began at; None for the beginning.
        moment, digest: of the state.

    Raises:
        ConfigError: a digest on the way, or its own, is another one.
    """
    written = digests(past.run.path)
    trained = {each: text for each, text in digests(scratch).items() if start is None or each.step > start.step}
    found = {**trained, moment: digest}
    compared = sorted(each for each in written.keys() & found.keys() if each <= moment)
    for each in compared:
        if written[each] != found[each]:
            raise ConfigError(
                f"{shown_path(past.run.path)} cannot be rebuilt here: at {each} the log has the digest "
                f"{written[each]}, and training again gives {found[each]}. 'functrain reproduce' says what differs "
                "from the run's environment"
            )
    return compared[-1] if compared else None
