"""Sweeps of a configuration with stages: a member trains all of them, or one."""

import io
import os
import shutil
from pathlib import Path

import pytest
from fake_members import rows, starts
from rich.console import Console
from staged_runs import left_by

from functrain.app.config.loading import load_stages, plain_stages
from functrain.app.sweeps.board import Board
from functrain.app.sweeps.planner import requested
from functrain.app.sweeps.results import RUNNING, latest, result
from functrain.app.sweeps.workers import Task
from functrain.checkpoint import RunLock
from functrain.foundation.errors import ConfigError

LR = "stages.two.optimizer.lr=1e-3,1e-2"


def planned(*overrides, point=(), **given):
    (found,) = requested("staged.yaml", overrides, [point], 1, False, **given)
    return found


@pytest.fixture
def swept(functrain, fakes, staged):
    """A sweep of fakes that train all stages."""
    code, out, err = functrain("sweep", staged, "stages.three.model.width=4,8", "--all-stages", "--jobs", "2")
    assert (code, err) == (0, "")
    assert "best: stages.three.model.width=4 (eval_loss 1.0000 at epoch 4)" in out
    return fakes.parent / "staged-sweep"


def test_each_member_trains_all_stages_and_counts_by_the_last(functrain, swept):
    assert [(row["best"], row["epochs"], row["status"]) for row in rows(swept)] == [
        ("1.0", "4", "finished"),
        ("2.0", "4", "finished"),
    ]
    assert starts(swept) == dict.fromkeys((4, 8), "one0-4 two0-4 three0-4 ")
    before = {path: path.stat().st_mtime_ns for path in swept.glob("*=*/*")}
    assert functrain("sweep", "staged.yaml", "stages.three.model.width=8,4", "--all-stages")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in swept.glob("*=*/*")} == before


def test_the_configuration_of_a_member_trains_as_the_stages_do(functrain, swept, staged_run, project):
    member = rows(swept)[0]["member"]
    arguments = ["--all-stages", "--run-dir", "again", "--no-progress"]
    assert functrain("train", swept / "configs" / f"{member}.yaml", *arguments)[0] == 0
    for stage in ("one", "two", "three"):
        found, expected = left_by(project / "again" / stage), left_by(staged_run / stage)
        found.pop("ancestry"), expected.pop("ancestry")  # which names the directories
        assert found == expected, stage


def test_the_identity_is_that_of_all_stages(staged, project, runs):
    before = planned(point=("stages.two.optimizer.lr=1e-3",), all_stages=True)
    assert before.parts.config["stages.two.optimizer.lr"] == 1e-3
    assert {"stages.one.train", "stages.three.val"} <= before.parts.data.keys()
    assert before.parts.init is None
    assert before.config == plain_stages(load_stages(staged, ["training.threads=1"]))
    assert planned(all_stages=True).parts.identity == before.parts.identity  # the file says the same
    assert planned("checkpoint.keep=1", "name=x", all_stages=True).parts.identity == before.parts.identity
    for changed in ("stages.one.seed=5", "stages.three.model.width=5", "training.threads=2"):
        assert planned(changed, all_stages=True).parts.identity != before.parts.identity, changed
    set_by_one = planned("stages.one.training.threads=2", all_stages=True).config["stages"]
    assert [stage["training"]["threads"] for stage in set_by_one.values()] == [2, 1, 1]
    begins = ("stages.one.init_from={path: runs/tiny, which: last, new: ['*'], dropped: ['*']}",)
    assert planned(*begins, all_stages=True).parts.init is not None


def test_one_stage_is_a_run_that_begins_with_the_run_of_another(functrain, fakes, staged_run):
    code, out, err = functrain("sweep", "staged.yaml", LR, "--stage", "two")
    assert (code, err, "sweep in runs/staged-two-sweep: 2 members" in out) == (0, "", True)
    found = planned(stage="two")
    assert found.config["init_from"]["path"] == os.fspath(staged_run / "one")
    assert (found.config["init_from"]["stage"], found.config["stage"]) == (None, "two")
    best = staged_run / "one" / "checkpoints" / "best"
    assert found.parts.init is not None
    os.unlink(best)
    best.symlink_to(sorted(staged_run.glob("one/checkpoints/step-*"))[0])
    assert planned(stage="two").parts.init != found.parts.init  # the best checkpoint, not the last one, is another
    member = rows(fakes.parent / "staged-two-sweep")[0]["member"]
    config = fakes.parent / "staged-two-sweep" / "configs" / f"{member}.yaml"
    assert functrain("train", config, "--run-dir", "alone", "--no-progress")[0] == 0
    shutil.rmtree(staged_run / "one")
    with pytest.raises(ConfigError, match=r"the stage 'one' has no checkpoint yet.*--stage one or --all-stages"):
        planned(stage="two")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([LR], "staged.yaml has the stages one, two, three: give --all-stages to let each member train them in this"),
        ([LR, "--stage", "tow"], "staged.yaml has no stage 'tow'; did you mean 'two'?"),
        ([LR, "--all-stages", "--asha"], "--asha compares members after so many epochs of one run"),
        (["stages.tow.seed=1,2", "--all-stages"], "there is no stage 'tow'; did you mean 'two'?"),
        ([LR, "--all-stages", "--sweep-dir", "runs/staged"], "runs/staged is the directory of a run"),
    ],
)
def test_what_makes_no_sense_is_one_message(functrain, fakes, staged_run, arguments, said):
    code, _, err = functrain("sweep", "staged.yaml", *arguments)
    assert (code, said in err, "Traceback" in err) == (2, True, False), err
    assert [path.name for path in fakes.parent.iterdir()] == ["staged"]


def test_stages_of_the_section_are_those_of_the_command(functrain, fakes, staged):
    with Path(staged).open("a") as file:
        file.write("sweep:\n  all_stages: true\n  axes:\n    stages.two.optimizer.lr: [1e-3, 1e-2]\n    seed: [0]\n")
    code, out, err = functrain("sweep", staged)
    assert (code, err) == (0, "")
    assert "2 members" in out
    code, out, _ = functrain("config", staged)
    assert (code, "  all_stages: true" in out, out.index("sweep:") < out.index("stages:\n  one")) == (0, True, True)


def test_the_board_shows_the_stage_at_work(swept, staged):
    from functrain.app.sweeps.plan import read_plan

    member = read_plan(swept).members[0]
    statuses = {member.name: RUNNING}
    shutil.rmtree(swept / member.name / "three")
    assert (latest(member, swept).stage, latest(member, swept).last) == ("two", None)
    assert result(member, swept).epochs == 0
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    board = Board(console, swept, [member], statuses, {})
    board.started(Task(member))
    console.print(board._table())
    assert "two 4/2" in console.file.getvalue()


def test_a_member_whose_stage_somebody_trains_has_to_wait(swept):
    from functrain.app.sweeps.plan import read_plan
    from functrain.app.sweeps.workers import Task, Workers

    task = Task(read_plan(swept).members[0])
    workers = Workers(swept, 1, False, lambda: None)
    with RunLock(swept / task.member.name / "two"):
        assert not workers._is_free(task)
    assert workers._is_free(task)
