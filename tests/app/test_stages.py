"""Configurations with stages: how they are read and checked, and what their runs leave behind."""

import json
import shutil
import signal

import pytest
import torch

from functrain.app.config.files import STAGES_FILE
from functrain.app.config.loading import load_config, load_stages, plain
from functrain.checkpoint import read_info
from functrain.checkpoint.reader import read_arrays
from functrain.foundation.errors import ConfigError
from functrain.loop.output.log_files import read_records

REST = """\
model: {name: "tiny_project:net", width: 8}
data: {name: "tiny_project:points", batch_size: 8}
objective: {name: classification}
optimizer: {name: adamw, lr: 1e-2, weight_decay: 0.1}
training: {epochs: 2, clip_norm: 1.0}
compile: false
"""
STAGES = """\
stages:
  one:
    training: {epochs: 3, clip_norm: null}
  two:
    init_from: {stage: one, which: best}
    freeze: ["0.*"]
    optimizer: {lr: 1e-3}
  three:
    model: {width: 4}
    seed: 7
    init_from: {stage: two, new: ["*"]}
"""


@pytest.fixture
def staged(project):
    (project / "staged.yaml").write_text(REST + STAGES)
    return "staged.yaml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder that is filled once with the run of all stages."""
    return tmp_path_factory.mktemp("finished")


@pytest.fixture
def run(functrain, staged, project, finished):
    """The run of all stages, in the folder `runs/staged` of the current directory."""
    if not (finished / "staged").exists():
        assert functrain("train", staged, "--all-stages", "--no-progress")[0] == 0
        shutil.copytree(project / "runs/staged", finished / "staged", symlinks=True)
    else:
        shutil.copytree(finished / "staged", project / "runs/staged", symlinks=True)
    return project / "runs" / "staged"


def left_by(run):
    """All that a stage leaves behind that must not depend on interruptions."""
    return {
        "last": bits(run / "checkpoints" / "last"),
        "best": bits(run / "checkpoints" / "best") if (run / "checkpoints" / "best").exists() else None,
        "log": (run / "metrics.jsonl").read_text(),
        "ancestry": (run / "ancestry.json").read_text() if (run / "ancestry.json").exists() else None,
    }


def bits(checkpoint):
    return {
        (group, path): leaf.numpy().tobytes() if isinstance(leaf, torch.Tensor) else leaf
        for group, leaves in read_arrays(checkpoint).items()
        for path, leaf in leaves.items()
    }


# -- reading ---------------------------------------------------------------------------------------------


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


# -- running ---------------------------------------------------------------------------------------------


def test_each_stage_is_a_run_that_names_what_it_began_with(functrain, run):
    assert sorted(path.name for path in run.iterdir()) == ["one", STAGES_FILE, "three", "two"]
    best, last = ((run / each).resolve() for each in ("one/checkpoints/best", "two/checkpoints/last"))
    digests = {
        (name, record["step"]): record["digest"]
        for name in ("one", "two")
        for record in read_records(run / name / "metrics.jsonl")
        if record["kind"] == "epoch"
    }
    for stage, other, source in (("two", "one", best), ("three", "two", last)):
        ancestry = json.loads((run / stage / "ancestry.json").read_text())
        assert ancestry["run"].endswith(f"runs/staged/{other}")
        assert (ancestry["checkpoint"], ancestry["takes"]) == (source.name, "parameters")
        assert ancestry["digest"] == digests[other, ancestry["step"]]
        assert read_info(run / stage / "checkpoints/last").metadata["ancestry"] == ancestry
        assert read_info(run / stage / "checkpoints/last").metadata["config"]["stage"] == stage
        said = f"the parameters of {ancestry['run']}, {source.name} (digest {ancestry['digest']})"
        assert f"It began with {said}." in (run / stage / "README.md").read_text()
        assert said in functrain("show", run / stage)[1]
        assert bits(run / stage / "start/checkpoints" / source.name) == bits(source)
    assert [stage.config.model_dump(exclude={"code"}) for stage in load_stages(run / STAGES_FILE)] == [
        stage.config.model_dump(exclude={"code"}) for stage in load_stages("staged.yaml", ["name=staged"])
    ]


def test_finished_stages_are_not_repeated(functrain, run, staged):
    before = {name: left_by(run / name) for name in ("one", "two", "three")}
    times = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    for command in (["train", staged, "--all-stages"], ["train", "--resume", "runs/staged"]):
        code, out, err = functrain(*command)
        assert (code, err) == (0, "")
        assert out.count("already finished (step ") == 3
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == times
    assert {name: left_by(run / name) for name in before} == before


def test_an_interrupted_stage_goes_on_and_ends_with_the_same_bits(functrain, run, project, monkeypatch):
    from functrain.app.runs import running

    expected = {name: left_by(run / name) for name in ("one", "two", "three")}
    shutil.rmtree(run)
    usual, places = running.fit, [("two", 1), ("two", 4), ("three", 5)]

    def fit(state, loader, **options):
        from functrain import on

        @on("after_step")
        def interrupt(event):
            if places and options["run_dir"].name == places[0][0] and event.state.step == places[0][1]:
                places.pop(0)
                signal.raise_signal(signal.SIGTERM)

        return usual(state, loader, **{**options, "callbacks": [*options["callbacks"], interrupt]})

    monkeypatch.setattr(running, "fit", fit)
    command = ["train", "staged.yaml", "--all-stages"]
    for _ in range(3):
        code, _, err = functrain(*command, "--no-progress")
        assert code == 143
        assert "To continue: functrain train " in err
        assert ("--all-stages" in err) == (command[1] != "--resume")
        command = ["train", "--resume", "runs/staged"]  # which needs no configuration
        code, _, err = functrain("evaluate", "runs/staged")
        assert (code, "runs/staged holds the runs of stages: give one of them: runs/staged/one" in err) == (2, True)
    code, out, _ = functrain(*command, "--no-progress")
    assert (code, places) == (0, [])
    assert out.count("already finished") == 2
    found = {name: left_by(run / name) for name in expected}
    for name, parts in expected.items():
        for part, value in parts.items():
            assert found[name][part] == value, (name, part)


def test_resume_needs_no_other_argument(functrain, project, run):
    settings = ["--no-progress", "--run-dir", "short"]
    assert functrain("train", "tiny.yaml", "training.epochs=3", "--max-time", "0.0001", *settings)[0] == 75
    code, out, err = functrain("train", "--resume", "short", "--no-progress", "checkpoint.keep=9")
    assert (code, err, "resumed from step " in out) == (0, "", True)
    assert functrain("train", "tiny.yaml", "training.epochs=3", *settings[:1], "--run-dir", "whole")[0] == 0
    assert bits(project / "short/checkpoints/last") == bits(project / "whole/checkpoints/last")
    middle = sorted(path for path in (project / "short/checkpoints").glob("step-*"))[-2]
    code, out, _ = functrain("train", "--resume", middle, "--no-progress")
    assert (code, f"resumed from step {int(middle.name[5:])}," in out) == (0, True)
    assert bits(project / "short/checkpoints/last") == bits(project / "whole/checkpoints/last")
    code, out, err = functrain("train", "--resume", "runs/staged/two", "training.epochs=3", "--no-progress")
    assert (code, err, "training.epochs: 2 -> 3" in out) == (0, "", True)


def test_a_stage_is_reproduced_and_rebuilt_from_its_own_directory(functrain, run, project):
    shutil.copytree(run / "two", project / "alone", symlinks=True)
    shutil.rmtree(run / "one")
    code, out, err = functrain("reproduce", "alone", "--no-progress")
    assert (code, err, "alone: reproduced bit for bit: 2 digests equal" in out) == (0, "", True)
    shutil.rmtree(project / "alone/checkpoints")
    assert functrain("at", "alone", "3", "--no-progress")[0] == 0
    assert bits(project / "alone/states/step-00000003") == bits(run / "two/checkpoints/step-00000003")
    code, _, err = functrain("branch", "alone@3", "--no-progress")
    assert (code, err) == (0, "")
    assert functrain("diff", "two-at-3", "runs/staged/two")[0] == 0


def test_a_run_that_began_with_a_file_is_reproduced_only_with_that_file(functrain, project):
    assert functrain("train", "tiny.yaml", "--no-progress", "--run-dir", "a")[0] == 0
    assert functrain("export", "a", "a.pt")[0] == 0
    assert functrain("train", "tiny.yaml", "--no-progress", "--init-from", "a.pt", "--run-dir", "b")[0] == 0
    code, out, _ = functrain("reproduce", "b", "--no-progress")
    assert (code, "reproduced bit for bit" in out) == (0, True)
    assert functrain("export", "b", "a.pt")[0] == 0
    code, _, err = functrain("reproduce", "b", "--no-progress")
    assert (code, "b cannot be trained again: its first state had the digest " in err) == (2, True)


def test_a_stage_whose_source_has_changed_says_so(functrain, run, staged):
    more = ["--no-progress", "stages.one.training.epochs=4"]
    assert functrain("train", staged, "--stage", "one", *more)[0] == 0
    code, out, _ = functrain("train", staged, "--all-stages", *more)
    assert code == 0
    before = json.loads((run / "two/ancestry.json").read_text())
    assert f"this run began with the parameters of {before['run']}, {before['checkpoint']}" in out
    code, out, _ = functrain("train", staged, "--stage", "two", "--resume", "never", *more)
    assert (code, "this run began with" in out) == (0, False)
    assert (run / "two/previous-1").is_dir()
    after = json.loads((run / "two/ancestry.json").read_text())
    assert after["checkpoint"] == (run / "one/checkpoints/best").resolve().name


def test_a_stage_may_begin_with_one_that_has_not_ended_and_says_so(functrain, staged):
    assert functrain("train", staged, "--stage", "one", "--no-progress", "--max-time", "0.0001")[0] == 75
    which = "stages.two.init_from.which=last"
    code, out, _ = functrain("train", staged, "--stage", "two", "--no-progress", which)
    assert (code, "note: the stage one, which two begins with, has not ended\n" in out) == (0, True)


def test_the_time_limit_is_that_of_all_stages(functrain, staged, monkeypatch):
    from functrain.app.runs import running, stages

    usual, limits, times = running.fit, [], iter([0.0, 1.0, 600.0, 2000.0])

    def fit(state, loader, **options):
        limits.append(options["max_time"])
        return usual(state, loader, **options)

    monkeypatch.setattr(running, "fit", fit)
    monkeypatch.setattr(stages, "monotonic", lambda: next(times))
    code, _, err = functrain("train", staged, "--all-stages", "--no-progress", "--max-time", "1000")
    assert (code, limits) == (75, [999.0, 400.0, 0.001])
    assert "To continue: functrain train staged.yaml --all-stages --max-time 1000\n" in err


def test_a_refused_stage_leaves_nothing_behind(functrain, staged, project):
    (project / "refusing.py").write_text(
        "import functrain\n@functrain.on('before_epoch')\ndef refuse(event):\n"
        "    assert __import__('os').path.isfile('runs/staged/stages.yaml')\n"
        "    raise functrain.errors.ConfigError('not today')\n"
    )
    before = sorted(project.iterdir())
    refused = ["train", staged, "--all-stages", "--no-progress", "callbacks=[{name: 'refusing:refuse'}]"]
    assert functrain(*refused)[::2] == (2, "functrain: error: not today\n")
    assert [path for path in sorted(project.iterdir()) if path.name != "__pycache__"] == before


def test_a_stage_that_a_callback_ended_has_ended(functrain, staged, project):
    (project / "stopping.py").write_text(
        "import functrain\n@functrain.on('after_step')\ndef stop(event):\n"
        "    return functrain.Stop() if event.state.step == 2 else None\n"
    )
    stops = "stages.one.callbacks=[{name: 'stopping:stop'}]"
    assert functrain("train", staged, "--stage", "one", "--no-progress", stops)[0] == 0
    expected = left_by(project / "runs/staged/one")
    status = project / "runs/staged/one/status.json"
    for concluded in (True, False):  # as after a kill before the results were written
        status.write_text(json.dumps({**json.loads(status.read_text()), "concluded": concluded}))
        code, out, _ = functrain("train", staged, "--stage", "one", "--no-progress", stops)
        assert (code, "already finished (step 2" in out) == (0, True)
    assert left_by(project / "runs/staged/one") == expected


def test_the_threads_of_a_stage_are_not_the_next_ones(functrain, staged, project):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert functrain("train", staged, "--all-stages", "--no-progress", "stages.one.training.threads=1")[0] == 0
        starts = [
            json.loads((project / "runs/staged" / name / "environment.json").read_text())["starts"][-1]
            for name in ("one", "two")
        ]
        assert [start["environment"]["threads"] for start in starts] == [1, 2]
    finally:
        torch.set_num_threads(before)


def test_stages_of_somebody_else_are_not_run(functrain, run, project, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(project / "another user"))
    for path in ("runs/staged", "runs/staged/two", "runs/staged/two/checkpoints/last"):
        code, _, err = functrain("train", "--resume", path)
        assert (code, "names functions that are not functrain's own" in err) == (2, True), err


# -- parameters that are not trained ---------------------------------------------------------------------


def test_frozen_parameters_keep_every_bit_and_have_no_state(functrain, run):
    first, last = (read_arrays(run / each) for each in ("one/checkpoints/best", "two/checkpoints/last"))
    names = {name for name in last["params"] if name.startswith("0.")}
    assert names == {"0.weight", "0.bias"}
    for name, value in last["params"].items():
        assert torch.equal(value, first["params"][name]) == (name in names)
    assert not any(name.rpartition("/")[2].startswith("0.") for name in last["opt_state"])
    assert any(name.rpartition("/")[2].startswith("3.") for name in last["opt_state"])
    assert "67 parameters, 24 of them frozen" in (run / "two/README.md").read_text()


def test_patterns_that_fit_nothing_name_the_nearest(functrain, project):
    code, _, err = functrain("train", "tiny.yaml", "freeze=['0.weigth']")
    assert (code, err) == (
        2,
        "functrain: error: freeze: the pattern '0.weigth' fits no parameter; did you mean '0.weight'? The parameters "
        "are 0.weight, 0.bias, 1.weight, 1.bias, 3.weight, 3.bias\n",
    )
    code, _, err = functrain("train", "tiny.yaml", "freeze=['*']")
    assert (code, "has no trainable parameter" in err) == (2, True)
    assert functrain("train", "tiny.yaml", "--no-progress", "--run-dir", "a")[0] == 0
    begin = ["train", "tiny.yaml", "--run-dir", "b", "model.width=4", "--init-from", "a"]
    code, _, err = functrain(*begin)
    assert code == 2
    assert "0.weight: float32 (8, 2) in the file, float32 (4, 2) in the state" in err
    for key in ("new", "dropped"):
        code, _, err = functrain(*begin, f"init_from.{key}=[0.wieght]")
        assert (code, f"init_from.{key} names '0.wieght', which fits nothing; there are " in err) == (2, True)
        assert "; did you mean '0.weight'?" in err
    # What is dropped is not taken over even where it fits.
    both = [f"init_from.{key}=['3.*', '0.*', '1.*']" for key in ("new", "dropped")]
    code, _, err = functrain(*begin, *both, "model.width=8", "--run-dir", "c", "--no-progress")
    assert code == 0, err
    assert functrain("train", "tiny.yaml", "--run-dir", "d", "--no-progress")[0] == 0
    assert bits("c/checkpoints/last") == bits("d/checkpoints/last")
    code, _, err = functrain(*begin[:-1], "a/checkpoints/last", "init_from.which=best")
    assert (code, "a/checkpoints/last is a checkpoint itself, so leave out which=best" in err) == (2, True)


def test_a_caching_models_parameters_are_free_again(functrain, project):
    from functrain.step.freezing import frozen

    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    net[1].bias.requires_grad_(False)
    with frozen(net, ["0.*", "1.bias"]):
        assert [p.requires_grad for p in net.parameters()] == [False, False, True, False]
    assert [p.requires_grad for p in net.parameters()] == [True, True, True, False]
    net[1].weight = net[0].weight
    with frozen(net, ["1.weight"]):
        assert not net[0].weight.requires_grad
    with pytest.raises(ConfigError):
        load_config("tiny.yaml", ["freeze=3"])
