"""The errors that users meet.

A message says what was given, what is allowed and what to do. Bad arguments raise the
built-in `ValueError` and `TypeError`; these classes are for what a caller may want to catch by name.
"""

from typing import TYPE_CHECKING

from functrain.foundation.printing import printable

if TYPE_CHECKING:
    from functrain.foundation.lock_owner import LockOwner


class FunctrainError(Exception):
    """Base of functrain's own errors: a known condition with a message for people, never a bug."""

    def __str__(self) -> str:
        # Names from files stand in messages, and these are printed on terminals.
        return printable(super().__str__())


class CheckpointError(FunctrainError):
    """A checkpoint cannot be written, read, trusted or fitted to the state at hand."""


class RunLockedError(CheckpointError):
    """Another run is writing to the directory.

    Attributes:
        owner: a `LockOwner`, or None if it is not known.
    """

    def __init__(self, message: str, owner: "LockOwner | None" = None) -> None:
        super().__init__(message)
        self.owner = owner


class RunLostError(CheckpointError):
    """The directory that a run writes to was deleted, renamed or replaced meanwhile."""


class ConfigError(FunctrainError):
    """A configuration names something that does not exist or holds a value that is not allowed."""


class DataError(FunctrainError):
    """The data cannot be trained on: an empty set, labels out of range, a length that changed."""


class BatchError(DataError, TypeError):
    """A batch is not of the form that the objective takes."""


class DonatedStateError(FunctrainError):
    """A state was used after a step compiled with `donate=True` had taken over its storage."""


class NoLossError(FunctrainError, TypeError):
    """The model, which is to compute its loss itself, returned none; detection models have none in evaluation mode."""


class MetricError(FunctrainError, ValueError):
    """A metric found NaN in the predictions, or a target that is no label."""


class NonFiniteError(FunctrainError):
    """The loss or a gradient became NaN or infinite."""


class OutOfMemoryError(FunctrainError):
    """A step does not fit into memory."""


class TracingError(FunctrainError):
    """The model or objective does something that a static graph cannot hold."""


class CheckpointWarning(UserWarning):
    """A checkpoint was passed over, or a save failed where no error could be raised."""
