"""Configurations with stages: how they are read and checked."""

import json

import pytest
from staged_runs import REST, STAGES

from functrain.app.config.loading import load_config, load_stages, plain


def test_a_stage_changes_the_rest_and_overrides_win_the_later_the_more(staged):
    first, second, third = (stage.config for stage in load_stages(staged))
    assert (first.name, first.stage, second.stage) == ("staged", "one", "two")
    assert [each.training.epochs for each in (first, second, third)] == [3, 2, 2]
    assert [each.training.clip_norm for each in (first, second, third)] == [None, 1.0, 1.0]
    assert [each.optimizer.lr for each in (first, second, third)] == [1e-2, 1e-3, 1e-2]
    assert (third.model.parameters, third.seed, first.seed) == ({"width": 4}, 7, 0)
    texts = ["training.epochs=9", "stages.two.training.epochs=4", "stages.two={seed: 5, compile: true}"]
    changed = [stage.config for stage in load_stages(staged, texts)]
    assert [each.training.epochs for each in changed] == [9, 4, 9]
    assert [each.seed for each in changed] == [0, 5, 7]
    assert changed[1].compile.enabled is True
    assert load_config(staged, ["stages.two.training.epochs=4", "training.epochs=9"], stage="two").training.epochs == 9
    assert load_config(staged, ["stages=null"]).stage is None
    assert [stage.name for stage in load_stages(staged, ["stages.three="])] == ["one", "two"]


def test_a_list_of_stages_is_the_mapping_of_their_names(staged, write):
    listed = STAGES.replace("  one:\n", "  - name: one\n").replace("  two:\n", "  - name: two\n")
    listed = listed.replace("  three:\n", "  - name: three\n")
    write(REST + listed, "list.yaml")
    mapping, found = (
        [plain(stage.config) for stage in load_stages(each, ["name=x"])] for each in (staged, "list.yaml")
    )
    assert mapping == found
    write("extends: list.yaml\nstages: {two: {optimizer: {lr: 5}}, four: {init_from: {path: w.pt}}}", "more.yaml")
    more = load_stages("more.yaml")
    assert [stage.name for stage in more] == ["one", "two", "three", "four"]
    assert (more[1].config.optimizer.lr, more[1].config.freeze) == (5, ["0.*"])
    assert more[3].config.init_from.path == str((write(REST) and more[3].config.code_paths[0]) / "w.pt")


MISTAKES = [
    ("stages: one", "c.yaml:7:1: stages must be a mapping of names to sections, or a list"),
    ("stages: {one: 3}", "c.yaml:7:10: a stage is a section of changes to the rest; got 3"),
    ("stages: {a.b: {}}", "c.yaml:7:10: the name of a stage is made of letters, digits, _ and -"),
    ("stages: {checkpoints: {}}", "and not checkpoints"),
    ("stages: [{training: {epochs: 1}}]", "c.yaml:7:10: stages.0 needs a name"),
    ("stages: [{name: a}, {name: a}]", "c.yaml:7:21: a second stage is called 'a'"),
    ("stages: {one: {name: x}}", "c.yaml:7:16: stages.one.name: the key of a stage is its name"),
    ("stages: {one: {extends: x}}", "stages.one.extends: a stage has no extends of its own"),
    ("stages: {one: {init_from: {stage: one}}}", "which is this stage itself; earlier stages: none"),
    (
        "stages: {one: {}, two: {init_from: {stage: onee}}}",
        "init_from.stage of two is 'onee'; did you mean 'one'? earlier stages: one",
    ),
    ("stages: {one: {init_from: {stage: two}}, two: {}}", "which comes after one; earlier stages: none"),
    ("stages: {one: {init_from: {which: best}}}", "init_from begins with a path (a file, checkpoint or run) or with"),
    ("stages: {one: {training: {epocs: 1}}}", "c.yaml:7:27: unknown key 'epocs' in training; did you mean 'epochs'?"),
    ("stages: {one: {model: {name: digits_cnn}}}", "to remove what stage one inherits, set it to null there"),
    ("stage: x\nstages: {one: {}}", "c.yaml:7:1: stage is set by `stages`; leave it out"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_mistakes_in_stages_are_told_with_their_place(functrain, write, text, message):
    write(REST + text)
    for command in (["config"], ["train", "--all-stages"]):
        code, _, err = functrain(command[0], "c.yaml", *command[1:])
        assert (code, message in err) == (2, True), err


def test_all_problems_of_all_stages_come_at_once_and_the_common_ones_once(functrain, write):
    text = REST.replace("epochs: 2", "epocs: 2") + "stages: {one: {seed: x}, two: {data: {batch_size: 0}}}"
    write(text.replace("width: 8", "widht: 8"))
    code, _, err = functrain("train", "c.yaml", "--stage", "one", "optimizer.rl=1", "stages.tow.seed=1")
    assert code == 2
    for problem in (
        "override 'optimizer.rl=1': unknown key 'rl' in optimizer",
        "override 'stages.tow.seed=1': there is no stage 'tow'; did you mean 'two'? stages: one, two",
        "c.yaml:5:12: unknown key 'epocs' in training",
    ):
        assert err.count(problem) == 1
        assert "(stage" not in next(line for line in err.splitlines() if problem in line)
    assert "c.yaml:7:16: seed must be a whole number; got 'x' (stage one)" in err
    assert "(stage two)" in next(line for line in err.splitlines() if "data.batch_size must be" in line)
    write(text.replace("epocs", "epochs").replace("seed: x", "seed: 1").replace("batch_size: 0", "count: many"))
    code, _, err = functrain("train", "c.yaml", "--all-stages")
    assert "data.count must be a whole number; got 'many' (stage two)" in err


def test_what_config_shows_of_stages_is_a_configuration(functrain, staged, write):
    code, out, err = functrain("config", staged, "--stage", "two", "stages.two.seed=3")
    assert (code, err) == (0, "")
    found = {" ".join(line.split()) for line in out.splitlines()}
    assert {
        "stage: two # stages",
        "lr: 0.001 # staged.yaml:13:17",
        "epochs: 2 # staged.yaml:5:12",
        "seed: 3 # override 'stages.two.seed=3'",
    } <= found
    code, out, err = functrain("config", staged)
    write(out, "again.yaml")
    again, shown = (json.loads(functrain("config", each, "--json")[1]) for each in ("again.yaml", staged))
    assert again["config"] == shown["config"]
    assert shown["config"]["stages"]["three"]["seed"] == 7
    assert shown["origins"]["stages.three.seed"]["origin"] == "staged.yaml:16:5"


CHOICES = [
    (
        ["train", "staged.yaml"],
        "staged.yaml has the stages one, two, three: give --all-stages to train them in this or",
    ),
    (
        ["train", "staged.yaml", "--stage", "tow"],
        "staged.yaml has no stage 'tow'; did you mean 'two'? stages: one, two",
    ),
    (["train", "staged.yaml", "--stage", "one", "--all-stages"], "--stage trains one stage, --all-stages trains all"),
    (["train", "tiny.yaml", "--stage", "one"], "--stage one: tiny.yaml has no stages"),
    (["train", "tiny.yaml", "--all-stages"], "--all-stages: tiny.yaml has no stages"),
    (["train", "staged.yaml", "--all-stages", "--init-from", "x"], "--init-from would begin each stage with the same"),
    (["train", "staged.yaml", "--all-stages", "--resume", "x"], "--resume x continues one run: give --stage NAME"),
    (
        ["train", "staged.yaml", "--stage", "two"],
        "init_from: the stage 'one' has no checkpoint yet: there is no runs/s",
    ),
    (["find-lr", "staged.yaml"], "staged.yaml has the stages one, two, three: choose one with --stage NAME"),
    (["train", "--resume", "nope"], "--resume "),
]


@pytest.mark.parametrize(("arguments", "message"), CHOICES)
def test_a_choice_that_makes_no_sense_is_one_message(functrain, staged, project, arguments, message):
    before = sorted(project.rglob("*"))
    code, _, err = functrain(*arguments)
    assert (code, err.count("\n"), err.startswith(f"functrain: error: {message}")) == (2, 1, True), err
    assert [path for path in sorted(project.rglob("*")) if "__pycache__" not in path.parts] == before
