"""What a configuration describes, built: loaders, length and first state of a run."""

from dataclasses import dataclass

from functrain.app.config.build import Length, build_loader, build_training_loader, run_length
from functrain.app.config.schema import Config
from functrain.app.members.configs import build_states
from functrain.app.runs.beginning import Origin
from functrain.compiler.request import check as check_backend
from functrain.data import Loader
from functrain.loop.choosing import Choice
from functrain.step import TrainState


@dataclass(frozen=True)
class Loaders:
    """The loaders of the splits; None where there is none."""

    train: Loader
    val: Loader | None
    test: Loader | None

    def by_split(self) -> dict[str, Loader | None]:
        """The loaders by the name of their split."""
        return {"train": self.train, "val": self.val, "test": self.test}


@dataclass(frozen=True)
class Parts:
    """What a configuration describes, built.

    Attributes:
        loaders: of the splits.
        length: of the run.
        state: a fresh one.
        choice: whether its steps are compiled; None leaves that to `fit`.
        origin: whose parameters the fresh state has; None for its own.
    """

    loaders: Loaders
    length: Length
    state: TrainState
    choice: Choice | None = None
    origin: Origin | None = None


def build(config: Config) -> Parts:
    """Build what a configuration describes; with `training.members`, a stack of them.

    Raises:
        FunctrainError, ValueError, TypeError: for what cannot be built.
    """
    if config.compile.enabled:
        check_backend(config.compile.backend, config.compile.mode, config.compile.engine)
    loaders = Loaders(build_training_loader(config), build_loader(config, "val"), build_loader(config, "test"))
    length = run_length(config, loaders.train)
    return Parts(loaders, length, build_states(config, length))
