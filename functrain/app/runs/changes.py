"""The changes in a run's configuration since its last start."""

from collections.abc import Sequence
from contextlib import suppress

from functrain.app.config.files import read_source
from functrain.app.config.keys import keys_in
from functrain.app.config.loading import changes, plain, read_config
from functrain.app.config.schema import Config
from functrain.app.runs.directory import RunDirectory
from functrain.foundation.errors import ConfigError
from functrain.loop import ResumeRefusedError

SHOWS_IN_NO_BIT = frozenset(each.dotted for each in keys_in(Config) if not each.bits)


def changes_since(run: RunDirectory, config: Config) -> list[str]:
    """The changes since the run's last start, a line for each value."""
    try:
        before = read_source(run.config_file, recorded=True).values
    except ConfigError:
        return []  # a run without a readable configuration has nothing to compare with
    if not isinstance(before, dict):
        return []
    # What this release has added was at its default.
    with suppress(ConfigError):
        before = plain(read_config(run.config_file, recorded=True)[0])
    return changes(before, plain(config))


def is_as_it_was(run: RunDirectory, config: Config) -> bool:
    """Whether no key has changed since the run's last start on which its bits depend."""
    return all(change.partition(":")[0] in SHOWS_IN_NO_BIT for change in changes_since(run, config))


def refuse(changed: Sequence[str], config: Config) -> None:
    """Refuse the changes that may change bits, as --strict-resume asks for."""
    # Without a schedule a longer run begins as the shorter one did.
    lengths = () if config.optimizer.schedule is not None else ("training.epochs", "training.steps")
    spared = (*SHOWS_IN_NO_BIT, *lengths, "compile.enabled")  # `fit` compares how steps ran, which "auto" leaves open
    matters = [change for change in changed if change.partition(":")[0] not in spared]
    if matters:
        raise ResumeRefusedError(
            "\n  ".join(["--strict-resume: the configuration has changed since this run was last started:", *matters])
            + "\nPut that back as it was, or go on without --strict-resume"
        )
