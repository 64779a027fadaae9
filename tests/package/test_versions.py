"""pyproject.toml, the environments, the code and the docs promise the same versions."""

import re
import tomllib
import warnings
from pathlib import Path

import pytest

from functrain.compiler.releases import TESTED, ReleaseWarning, warn_if_untested

ROOT = Path(__file__).parents[2]


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "tests" / "versions" / f"{name}.txt").read_text().splitlines()
    return {normal(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line and line[0] != "#"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def declared() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = [entry for group in groups for entry in group]
    return {normal(name): low for name, _, low in (entry.partition(">=") for entry in wanted) if low}


def test_the_lowest_environment_has_the_lowest_declared_versions() -> None:
    lowest = pins("lowest")
    for name, bound in declared().items():
        # A bound of 2.11 is met by 2.11.0.
        length = len(parts(bound))
        assert parts(lowest[name])[:length] == parts(bound), name
        assert not any(parts(lowest[name])[length:]), name


def test_the_tested_releases_are_those_of_the_environments_and_of_the_page() -> None:
    first, last = (".".join(map(str, release)) for release in TESTED)
    assert pins("lowest")["torch"].startswith(f"{first}.")
    assert pins("newest")["torch"].startswith(f"{last}.")
    page = (ROOT / "docs" / "versions.md").read_text()
    assert f"A release outside of {first} to {last} gives one warning" in page
    for name in ("lowest", "newest"):
        assert f"| {name} | {pins(name)['torch']} |" in page


@pytest.mark.parametrize("version", ["2.10.1", "2.16.0+cu140", "3.0.0", "a fork"])
def test_a_release_that_was_not_tested_gives_one_warning(version: str) -> None:
    warn_if_untested.cache_clear()
    with pytest.warns(ReleaseWarning, match="tested with torch 2.11 to 2.15, and this is torch"):
        warn_if_untested(version)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_untested(version)


@pytest.mark.parametrize("version", ["2.11.0", "2.13.0+cpu", "2.15.3", "2.15.0a0+git1"])
def test_a_tested_release_gives_none(version: str) -> None:
    warn_if_untested.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_untested(version)


def test_the_warning_comes_with_the_first_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    import functrain as ft
    from functrain.compiler import releases

    monkeypatch.setattr(releases, "warn_if_untested", lambda: warn_if_untested("9.9.9"))
    warn_if_untested.cache_clear()
    state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
    step = ft.compile(ft.train_step, backend="eager")
    with pytest.warns(ReleaseWarning):
        step(state, (torch.ones(2, 2), torch.zeros(2, 1)))
    step(state, (torch.ones(3, 2), torch.zeros(3, 1)))  # a second warning would be an error
