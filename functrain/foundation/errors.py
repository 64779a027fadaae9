"""The errors that users meet.

A message says what was given, what is allowed and what to do. Bad arguments raise the
built-in `ValueError` and `TypeError`; these classes are for what a caller may want to catch by name.
"""

from functrain.foundation.printing import printable


class FunctrainError(Exception):
    """Base of functrain's own errors: a known condition with a message for people, never a bug."""

    def __str__(self) -> str:
        # Names from files stand in messages, and these are printed on terminals.
        return printable(super().__str__())


class CheckpointError(FunctrainError):
    """A checkpoint cannot be written, read, trusted or fitted to the state at hand."""


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
