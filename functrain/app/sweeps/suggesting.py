"""Members that Optuna's sampler suggests, in batches.

A batch is a function of the seed and of the results of the batches before it. So a sweep that was killed goes on with
the suggestions that it would have had.
"""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from functrain.app.config.ranges import Axis
from functrain.app.sweeps.plan import Member
from functrain.app.sweeps.points import Point
from functrain.app.sweeps.results import Result
from functrain.app.sweeps.space import Space, override_text, settings_of
from functrain.foundation.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

NO_OPTUNA = (
    "--optuna needs the package optuna, which is not installed: pip install 'functrain[optuna]'. --random N draws "
    "members without it"
)


def check_optuna(space: Space) -> None:
    """Refuse a search that cannot be begun.

    Raises:
        ConfigError: Optuna is not installed, or nothing is searched.
    """
    if not space.keys:
        raise ConfigError("--optuna needs keys to search, such as optimizer.lr='log(1e-4, 1e-2)' or model.width=32,64")
    try:
        import_module("optuna")
    except ModuleNotFoundError:
        raise ConfigError(NO_OPTUNA) from None


def suggested(
    space: Space, count: int, batch: int, seed: int, before: Sequence[Member], results: Mapping[str, Result]
) -> list[Point]:
    """The points of the next batch.

    Args:
        space: what is searched.
        count: of points.
        batch: number of the batch.
        seed: of the search.
        before: the members of earlier batches, in their order.
        results: of these, by name.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=_seed(seed, batch))
    maximizes = bool(before) and before[0].maximizes
    study = optuna.create_study(direction="maximize" if maximizes else "minimize", sampler=sampler)
    distributions = {key.dotted: _distribution(key) for key in space.keys}
    for member in before:
        study.add_trial(_trial(member, results[member.name], space, distributions))
    points = []
    for _ in range(count):
        trial = study.ask(distributions)
        points.append(tuple(_override(key, trial.params[key.dotted]) for key in space.keys))
    return points


def _seed(seed: int, batch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{batch}".encode()).digest()[:4])


def _distribution(key: Axis) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if key.range is None:
        return CategoricalDistribution(key.texts)
    if key.range.kind == "int":
        return IntDistribution(int(key.range.low), int(key.range.high))
    return FloatDistribution(key.range.low, key.range.high, log=key.range.kind == "log")


def _override(key: Axis, value: Any) -> str:
    return f"{key.name}={value}" if key.range is None else override_text(key.name, key.range.rounded(value))


def _trial(
    member: Member, result: Result, space: Space, distributions: "Mapping[str, BaseDistribution]"
) -> "FrozenTrial":
    """A member as Optuna's record of a trial."""
    import optuna

    texts = dict(_pair(text) for text in member.point)
    values = settings_of(member.point)
    params = {key.dotted: texts[key.dotted] if key.range is None else values[key.dotted] for key in space.keys}
    state = optuna.trial.TrialState.FAIL if result.best is None else optuna.trial.TrialState.COMPLETE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of choices that are no numbers
        return optuna.trial.create_trial(
            params=params, distributions=dict(distributions), value=result.best, state=state
        )


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.removeprefix("+"), value
