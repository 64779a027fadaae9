"""What can be wrong with a checkpoint on disk, and how causes are told."""

import errno
import os
import re
from pathlib import Path

from functrain.foundation.errors import CheckpointError
from functrain.foundation.errors import CheckpointWarning as CheckpointWarning
from functrain.foundation.errors import RunLockedError as RunLockedError
from functrain.foundation.errors import RunLostError as RunLostError
from functrain.foundation.regular_files import IrregularFileError


class DamagedCheckpointError(CheckpointError):
    """A committed checkpoint whose bytes are not those that were written.

    It is a class of its own because damage is answered by falling back to another checkpoint,
    whereas a checkpoint that does not fit the state at hand must never be passed over.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"checkpoint {path} is damaged: {reason}")
        self.path = path
        self.reason = reason


class MismatchError(CheckpointError):
    """A checkpoint of another model or optimizer than the state's.

    Attributes:
        differences: a line for each leaf.
    """

    def __init__(self, message: str, differences: list[str]) -> None:
        super().__init__(message)
        self.differences = differences


def reading_error(directory: Path, error: OSError) -> CheckpointError:
    """What a system's error while reading a checkpoint is: damage if the bytes are not there.

    Example:
        >>> type(reading_error(Path("x"), OSError(5, "Input/output error"))).__name__
        'DamagedCheckpointError'
        >>> reading_error(Path("x"), OSError(24, "Too many open files"))
        CheckpointError('cannot read checkpoint x: [Errno 24] Too many open files')
    """
    if isinstance(error, IrregularFileError):
        return DamagedCheckpointError(directory, f"its file {os.path.basename(error.filename)}: {error.strerror}")
    if error.errno in _OF_MISSING_BYTES:
        return DamagedCheckpointError(directory, f"it cannot be read ({error})")
    return CheckpointError(f"cannot read checkpoint {directory}: {error}")


# tensorstore raises ValueError whatever is wrong, and tells the system's error number in the text only.
_SYSTEM_ERROR = re.compile(r"\[os_error_code='(\d+)'\]")
# Its words for what may be otherwise the next time. What is wrong with the bytes is DATA_LOSS, or has no such word.
_PASSING = re.compile(r"\A(UNAVAILABLE|CANCELLED|ABORTED|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|PERMISSION_DENIED)\b")
# What reading wrong bytes ends with, in orbax, json and tensorstore. Everything else is not known to be damage.
_OF_WRONG_BYTES = (ValueError, LookupError, EOFError)
# The file is not there, or the disk cannot give its bytes back.
_OF_MISSING_BYTES = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO})


def causes(error: BaseException) -> list[BaseException]:
    """The error, its cause, the cause of that, ...; the last one is where it began."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def is_damage(error: BaseException) -> bool:
    """Whether an error proves that a checkpoint's bytes are wrong or not there, which takes more than an error.

    Example:
        >>> is_damage(ValueError("DATA_LOSS: CRC-32C checksum verification failed"))
        True
        >>> is_damage(ValueError("cannot open [os_error_code='24']")), is_damage(RuntimeError("can't start new thread"))
        (False, False)
    """
    number = system_errno(error)
    if number is not None:
        return number in _OF_MISSING_BYTES
    known = all(isinstance(link, _OF_WRONG_BYTES) for link in causes(error))
    return known and not any(_PASSING.match(str(link)) for link in causes(error))


def passing(error: BaseException) -> BaseException | None:
    """The interruption, cancellation or lack of memory behind an error, which libraries turn into errors of theirs.

    Example:
        >>> error = ValueError("no entry")
        >>> error.__context__ = KeyboardInterrupt()
        >>> passing(error), passing(ValueError("no entry"))
        (KeyboardInterrupt(), None)
    """
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or any(link is other for other in seen):
            continue
        if isinstance(link, MemoryError) or not isinstance(link, Exception):
            return link
        seen.append(link)
        waiting += [link.__cause__, link.__context__]
    return None


def system_errno(error: BaseException) -> int | None:
    """The operating system's error number, if that is what is behind an error.

    Example:
        >>> system_errno(OSError(28, "No space left on device")), system_errno(ValueError("no"))
        (28, None)
    """
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause.errno
        match = _SYSTEM_ERROR.search(str(cause))
        if match:
            return int(match[1])
    return None


def describe(error: BaseException) -> str:
    """One line that says what went wrong: the system's words if it is a system error."""
    root = causes(error)[-1]
    number = system_errno(error)
    if isinstance(root, OSError):
        return str(root)
    if number is not None:
        return f"[Errno {number}] {os.strerror(number)}"
    return f"{type(root).__name__}: {str(root).strip()}".splitlines()[0][:300]
