"""Where a run branched off another one: `ancestry.json` in its directory, and the state that it began with."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from functrain.foundation.errors import ConfigError

FILE = "ancestry.json"
START = "start"  # the folder with the first state and the log up to it


@dataclass(frozen=True)
class Ancestry:
    """Where a run branched off.

    Attributes:
        run: the directory of the other run.
        step: the update after which it begins.
        digest: of the state there.
        changes: to the configuration, as they were typed.
        checkpoint: of that state, in the folder `START`.
    """

    run: str
    step: int
    digest: str
    changes: Sequence[str]
    checkpoint: str

    def __str__(self) -> str:
        """For people.

        Example:
            >>> str(Ancestry("runs/a", 40, "0f", ["optimizer.lr=1e-4"], "step-00000040"))
            'runs/a at step 40, with optimizer.lr=1e-4'
        """
        return f"{self.run} at step {self.step}" + (f", with {' '.join(self.changes)}" if self.changes else "")

    def to_json(self) -> dict[str, object]:
        """What JSON can hold."""
        return {**asdict(self), "changes": list(self.changes)}


def start_of(run: Path, ancestry: Ancestry) -> Path:
    """The checkpoint that a branch begins with."""
    return run / START / "checkpoints" / ancestry.checkpoint


def begins_branch(resume: str) -> bool:
    """Whether `resume` names the state that a branch begins with: its configuration differs, as was asked for.

    Example:
        >>> begins_branch("auto"), begins_branch("runs/a/checkpoints/step-00000040")
        (False, False)
    """
    folder = Path(resume).parent.parent
    return folder.name == START and (folder.parent / FILE).is_file()


def ancestry_of(run: Path) -> Ancestry | None:
    """The ancestry of the run in a directory; None if it is no branch.

    Raises:
        ConfigError: the file is damaged.
    """
    path = run / FILE
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Ancestry(
            run=str(values["run"]),
            step=int(values["step"]),
            digest=str(values["digest"]),
            changes=[str(change) for change in values["changes"]],
            checkpoint=str(values["checkpoint"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({error}): put back the file as it was") from None
