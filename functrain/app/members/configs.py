"""The members of an ensemble: the configuration of each, and their states as one."""

from collections.abc import Sequence

from functrain.app.config.build import Length, build_state
from functrain.app.config.schema import Config
from functrain.foundation.errors import ConfigError
from functrain.step import TrainState, stack


def member_name(number: int, count: int) -> str:
    """The name of a member's directory, so that names are in the members' order.

    Example:
        >>> member_name(7, 10), member_name(7, 2000)
        ('007', '0007')
    """
    return f"{number:0{max(3, len(str(count - 1)))}}"


def member_configs(config: Config) -> list[Config]:
    """The configurations of an ensemble's members, each as a run of its own: member i has the seed `seed` + i."""
    count = config.training.members or 1
    training = config.training.model_copy(update={"members": None, "vectorize": None})
    return [
        config.model_copy(
            update={"name": f"{config.name}-{member_name(i, count)}", "seed": config.seed + i, "training": training}
        )
        for i in range(count)
    ]


def build_states(config: Config, length: Length | None) -> TrainState:
    """As `build_state`; with `training.members`, the stack of the members' states.

    Raises:
        ConfigError: members cannot be stacked in the form that is asked for.
    """
    if config.training.members is None:
        return build_state(config, length)
    return stacked(member_configs(config), [length] * config.training.members, config.training.vectorize)


def stacked(configs: Sequence[Config], lengths: Sequence[Length | None], vectorize: bool | None) -> TrainState:
    """One state of the states that these configurations describe.

    Args:
        configs: of the members.
        lengths: of their runs.
        vectorize: as `functrain.stack` takes it.

    Raises:
        ConfigError: the states do not fit together.
    """
    states = [build_state(config, length) for config, length in zip(configs, lengths, strict=True)]
    try:
        return stack(states, vectorize=vectorize)
    except ValueError as error:
        text = str(error).replace("vectorize=False", "training.vectorize=false")
        raise ConfigError(f"the members cannot be trained in one step: {text}") from error
