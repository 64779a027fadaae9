"""The releases of torch that compiled steps were tested with, and the warning on any other."""

import functools
import re
import warnings

import torch

TESTED = ((2, 11), (2, 15))
"""The first and the last; docs/versions.md says what was run on which."""


class ReleaseWarning(UserWarning):
    """Compiled steps were not tested with this release of torch."""


def is_tested(version: str) -> bool:
    """Whether compiled steps were tested with a release.

    Example:
        >>> is_tested("2.13.0+cpu"), is_tested("3.0.0")
        (True, False)
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is not None and TESTED[0] <= (int(found[1]), int(found[2])) <= TESTED[1]


@functools.cache
def warn_if_untested(version: str = torch.__version__) -> None:
    """Warn, once, if a release of torch is not among the tested ones: compiling uses parts of torch that may change.

    Example:
        >>> warn_if_untested("2.13.0+cpu")
    """
    if is_tested(version):
        return
    first, last = (".".join(map(str, release)) for release in TESTED)
    warnings.warn(
        f"compiled steps were tested with torch {first} to {last}, and this is torch {version}. If a step fails to "
        "compile, install a tested release, or run without compiling (compile=False; in a config compile: "
        "false)",
        ReleaseWarning,
        stacklevel=2,
    )
