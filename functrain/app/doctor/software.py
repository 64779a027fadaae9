"""Checks of Python, torch and the other packages."""

import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import NamedTuple

from functrain.app.doctor.finding import Finding

_REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)\s*>=\s*([0-9.]+)\s*(?:;.*\bextra\s*==\s*['\"]([\w-]+)['\"])?")
_OF_DEVELOPERS = ("dev", "all")


class Requirement(NamedTuple):
    """A package that functrain takes from a version on; `extra` names the option that it is for."""

    package: str
    least: str
    extra: str | None


def parsed(text: str) -> Requirement | None:
    """A line of the package's metadata.

    Example:
        >>> parsed('matplotlib>=3.8; extra == "plots"')
        Requirement(package='matplotlib', least='3.8', extra='plots')
    """
    match = _REQUIREMENT.match(text)
    return None if match is None else Requirement(match[1], match[2], match[3])


def is_older(installed: str, least: str) -> bool:
    """Whether a version comes before another one, by the numbers in them.

    Example:
        >>> is_older("2.9.1", "2.11"), is_older("2.11.0+cpu", "2.11"), is_older("3.0rc1", "3")
        (True, False, False)
    """
    first, second = (tuple(map(int, re.findall(r"\d+", re.match(r"[\d.]*", text)[0]))) for text in (installed, least))  # type: ignore[index]
    length = max(len(first), len(second))
    return first + (0,) * (length - len(first)) < second + (0,) * (length - len(second))


def check_python() -> Iterator[Finding]:
    """The version of Python."""
    least = (metadata("functrain")["Requires-Python"] or "").removeprefix(">=")
    found = platform.python_version()
    old = bool(least) and is_older(found, least)
    yield Finding("Python", "broken" if old else "ok", found, f"install Python {least} or newer" if old else "")


def check_packages() -> Iterator[Finding]:
    """The packages that functrain needs, and those that it can use."""
    wanted = [each for text in requires("functrain") or () if (each := parsed(text)) is not None]
    wanted = [each for each in wanted if each.extra not in _OF_DEVELOPERS]
    bad, good, absent = list[str](), list[str](), list[str]()
    for each in wanted:
        try:
            installed = version(each.package)
        except PackageNotFoundError:
            (absent if each.extra else bad).append(each.package if each.extra else f"{each.package} is not installed")
            continue
        if is_older(installed, each.least):
            bad.append(f"{each.package} {installed} is older than {each.least}")
        else:
            good.append(f"{each.package} {installed}")
    if bad:
        yield Finding("packages", "broken", "; ".join(bad), "pip install --upgrade functrain")
    optional = f"; optional and not installed: {', '.join(absent)}" if absent else ""
    yield Finding("packages", "ok", ", ".join(good) + optional)


def check_torch() -> Iterator[Finding]:
    """Whether torch can be imported, and is a release that functrain was tested with."""
    try:
        import torch
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        yield Finding("torch", "broken", f"cannot be imported: {reason}", "install it again (pytorch.org/get-started)")
        return
    from functrain.compiler.releases import TESTED, is_tested

    first, last = (".".join(map(str, release)) for release in TESTED)
    build = f", CUDA {torch.version.cuda}" if torch.version.cuda else ", without CUDA"
    if is_tested(torch.__version__):
        yield Finding("torch", "ok", f"{torch.__version__}{build}")
    else:
        fix = f"install torch {first} to {last} (docs/versions.md), or train with compile: false"
        yield Finding(
            "torch", "warning", f"{torch.__version__}{build}: functrain was tested with {first} to {last}", fix
        )
