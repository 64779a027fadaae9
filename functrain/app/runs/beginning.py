"""A run that begins with another's parameters."""

import json
from pathlib import Path

from functrain.app.config.schema import InitFromConfig
from functrain.checkpoint import init_from
from functrain.foundation.errors import CheckpointError, ConfigError
from functrain.step import TrainState


def begin_override(path: Path | None, resume: str) -> list[str]:
    """What `--init-from` comes to among the overrides of the configuration.

    Raises:
        ConfigError: if `--resume` names a checkpoint, too.

    Example:
        >>> begin_override(Path("/models/a.pt"), "auto"), begin_override(None, "auto")
        (['init_from.path="/models/a.pt"'], [])
    """
    if path is None:
        return []
    if resume not in ("auto", "never"):
        raise ConfigError(
            f"--init-from begins a run with {path}, --resume continues the one of {resume}: give one of them"
        )
    return [f"init_from.path={json.dumps(str(path.absolute()))}"]  # JSON is YAML, whatever is in the name


def begin(state: TrainState, source: InitFromConfig) -> TrainState:
    """A fresh state with the parameters and buffers of a file, of a checkpoint, or of a run's last checkpoint.

    Raises:
        CheckpointError: it cannot be read, or does not fit; the message names the leaves.
        ConfigError: a pattern fits nothing.
    """
    path = Path(source.path)
    last = path / "checkpoints" / "last"
    try:
        return init_from(
            state,
            last if last.is_dir() else path,
            allow_new=source.new,
            allow_dropped=source.dropped,
            prefix=source.prefix,
        )
    except CheckpointError as error:
        if "does not fit the model" not in str(error):
            raise
        raise CheckpointError(
            f"{error}\nIn a configuration: init_from.new=[...] (allow_new), init_from.dropped=[...] (allow_dropped), "
            "init_from.prefix=..."
        ) from error
    except ValueError as error:
        renamed = str(error).replace("allow_new", "init_from.new").replace("allow_dropped", "init_from.dropped")
        raise ConfigError(renamed) from error
