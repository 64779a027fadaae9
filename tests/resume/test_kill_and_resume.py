"""Real processes, killed by real signals: the bits of the end must not tell.

The short form of what `make kill-table` does, and the proof that its comparison finds what it is to find.
"""

import functools
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from covering import all_pairs, pairs_of
from faults import FAULTS
from killing import (
    CODES,
    Fresh,
    Kill,
    LostRunError,
    Parent,
    differing,
    kill,
    outcome,
    random_kill,
    to_the_end,
)
from settings import COMPILED, FRESH, NOT_COMPILED, fresh_settings, moments_of, name_of, options_of, settings

from functrain.checkpoint import read_info

SHORT = {
    "eager, windows of 3, 2 workers, indexed tables on 2 threads": {
        "accumulate": 3, "workers": 2, "epochs": 2, "network": "tables", "threads": 2,
    },
    "traced and donated, fp16 with overflows, own state_dict": {
        "run": "traced donated", "precision": "fp16", "loader": "stateful", "accumulate": 3, "epochs": 2,
    },
}  # fmt: skip
SHORT_KILLS = [
    Kill(signal.SIGINT, "inside an accumulation window", 2, group=True),
    Kill(signal.SIGTERM, "evaluating", 2),
    Kill(signal.SIGUSR1, "checkpoint written, not renamed", 1),
    Kill(signal.SIGKILL, "while a checkpoint is written", 1),
]
BREAKABLE = {"precision": "fp16", "accumulate": 3, "rules": True, "save_every": 0, "epochs": 2}
SHOWN_BY = {"stream": {"loader": "stateful"}, "sums": {"network": "tables", "threads": 2}}  # the other faults: by any


@pytest.fixture(scope="module")
def parents() -> Iterator[list[Parent]]:
    with Parent(1) as one, Parent(2) as other:
        yield [one, other]


def assert_kills_do_not_tell(options: dict[str, object], kills: list[Kill], parents: list[Parent], where: Path) -> int:
    to_the_end(parents[0].start(where / "whole", options))
    landed = sum(kill(parents[number % 2], where / "killed", options, how) for number, how in enumerate(kills))
    to_the_end(parents[1].start(where / "killed", options))
    assert differing(outcome(where / "whole"), outcome(where / "killed")) == []
    return landed


@pytest.mark.parametrize("setting", SHORT)
def test_a_killed_run_ends_with_the_bits_of_an_uninterrupted_one(
    setting: str, parents: list[Parent], tmp_path: Path
) -> None:
    assert assert_kills_do_not_tell(SHORT[setting], SHORT_KILLS, parents, tmp_path) == len(SHORT_KILLS)


def test_a_fresh_interpreter_ends_with_the_bits_of_a_forked_one(parents: list[Parent], tmp_path: Path) -> None:
    # Forked ones have imported all; what a fresh one imports behind the training would show in NumPy's draws.
    options = {"epochs": 1, "draws": "numpy", "save_every": 1}
    to_the_end(parents[0].start(tmp_path / "forked", options))
    assert kill(Fresh(3), tmp_path / "fresh", options, Kill(signal.SIGKILL, "between two micro-batches", 7))
    to_the_end(Fresh(4).start(tmp_path / "fresh", options))
    assert differing(outcome(tmp_path / "forked"), outcome(tmp_path / "fresh")) == []


@pytest.mark.slow
@pytest.mark.parametrize("setting", [row for row in settings() if row["run"] in NOT_COMPILED["run"]], ids=name_of)
def test_every_setting_of_the_table_survives_kills(
    setting: dict[str, str], parents: list[Parent], tmp_path: Path
) -> None:
    options, dice = options_of(setting), random.Random(name_of(setting))
    moments = dice.choices(["", *moments_of(options)], k=4)
    kills = [random_kill(dice, number, moment, 2.0, group=False) for number, moment in zip(CODES, moments)]
    assert_kills_do_not_tell(options, kills, parents, tmp_path)


def test_another_signal_ends_at_once_and_leaves_a_valid_checkpoint(parents: list[Parent], tmp_path: Path) -> None:
    how = Kill(signal.SIGTERM, "between two micro-batches", 8, twice=True)
    assert kill(parents[0], tmp_path / "run", {"save_every": 1}, how)
    info = read_info(tmp_path / "run" / "checkpoints" / "last")
    assert (info.status, info.step >= 1) == ("COMPLETE", True)
    to_the_end(parents[0].start(tmp_path / "run", {"epochs": 1}))


@pytest.fixture(scope="module")
def interrupted(parents: list[Parent], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """For a fault, the place of a run that shows it, killed in a window of its second epoch, next to a whole one."""

    @functools.cache
    def make(fault: str) -> Path:
        where = tmp_path_factory.mktemp(fault or "any")
        options = BREAKABLE | SHOWN_BY.get(fault, {})
        to_the_end(parents[0].start(where / "whole", options))
        assert kill(parents[0], where / "killed", options, Kill(signal.SIGTERM, "inside an accumulation window", 13))
        assert read_info(where / "killed" / "checkpoints" / "last").micro_step == 2
        return where

    return make


_MANY = [pytest.param(fault, marks=pytest.mark.slow) for fault in FAULTS if fault not in ("key", "accumulator")]


@pytest.mark.parametrize("fault", ["", "key", "accumulator", *_MANY])
def test_the_comparison_finds_a_resume_that_forgets_something(
    fault: str, interrupted: Callable[[str], Path], parents: list[Parent], tmp_path: Path
) -> None:
    options = BREAKABLE | SHOWN_BY.get(fault, {})
    runs = interrupted(fault if fault in SHOWN_BY else "")
    shutil.copytree(runs / "killed", tmp_path / "killed", symlinks=True)
    whole = outcome(runs / "whole")
    try:
        to_the_end(parents[1].start(tmp_path / "killed", {**options, "fault": fault}))
        found = differing(whole, outcome(tmp_path / "killed"))
    except LostRunError:
        found = ["an error"]
    assert bool(found) == bool(fault), found


@pytest.mark.parametrize("group", [COMPILED, NOT_COMPILED, FRESH], ids=["compiled", "not compiled", "fresh"])
def test_in_the_settings_of_the_table_all_pairs_of_levels_meet(group: dict[str, dict[str, object]]) -> None:
    factors = {factor: list(levels) for factor, levels in group.items()}
    rows = [row for row in settings() + fresh_settings() if set(row) == set(factors)]
    assert set().union(*map(pairs_of, rows)) == all_pairs(factors)
    assert len(rows) < 40
