"""What a run began with: `ancestry.json` in its directory, and the checkpoint of another run in the folder `start`.

A branch began with the state of another run. A run with `init_from` began with the parameters of one, or of a file.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from functrain.foundation.errors import ConfigError

FILE = "ancestry.json"
START = "start"  # the folder with the first state and the log up to it


@dataclass(frozen=True)
class Ancestry:
    """What a run began with.

    Attributes:
        run: the directory of the other run, or a file.
        step: of the state there.
        digest: of the state there; "" if its log has none, and of a file.
        changes: of a branch: to the configuration, as they were typed.
        checkpoint: of that state, in the folder `START`; "" for a file.
        takes: "state" of a branch, "parameters" of a run with `init_from`.
        begins: the digest of the run's own first state; "" if it is that of the state there.
    """

    run: str
    step: int
    digest: str
    changes: Sequence[str]
    checkpoint: str
    takes: str = "state"
    begins: str = ""

    @property
    def is_branch(self) -> bool:
        """Whether the run goes on with another run's state, log and counters."""
        return self.takes == "state"

    @property
    def first_step(self) -> int:
        """The update that the run begins after, as the run counts."""
        return self.step if self.is_branch else 0

    def __str__(self) -> str:
        """For people.

        Example:
            >>> str(Ancestry("runs/a", 40, "0f", ["optimizer.lr=1e-4"], "step-00000040"))
            'runs/a at step 40, with optimizer.lr=1e-4'
            >>> str(Ancestry("runs/a", 40, "0f", [], "step-00000040", takes="parameters"))
            'the parameters of runs/a, step-00000040 (digest 0f)'
        """
        if self.is_branch:
            return f"{self.run} at step {self.step}" + (f", with {' '.join(self.changes)}" if self.changes else "")
        digest = f" (digest {self.digest})" if self.digest else ""
        return f"the parameters of {self.run}" + (f", {self.checkpoint}{digest}" if self.checkpoint else "")

    def to_json(self) -> dict[str, object]:
        """What JSON can hold."""
        return {**asdict(self), "changes": list(self.changes)}


def start_of(run: Path, ancestry: Ancestry) -> Path:
    """The checkpoint that a run began with, in its own directory."""
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
    """The ancestry of the run in a directory; None if it began with parameters of its own.

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
            takes=str(values.get("takes", "state")),
            begins=str(values.get("begins", "")),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({error}): put back the file as it was") from None
