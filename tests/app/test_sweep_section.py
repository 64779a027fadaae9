"""The section `sweep` of a configuration: it says what the command's arguments say, and they win."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from fake_members import rows, table

from functrain.app.config.checking import is_surely_sound
from functrain.app.config.loading import load_config, plain
from functrain.app.config.resolving import resolve_stages
from functrain.app.sweeps.asked import Arguments, asked
from functrain.app.sweeps.halving import Halving
from functrain.app.sweeps.plan import Criterion
from functrain.app.sweeps.planner import requested
from functrain.app.sweeps.sweep import _points

AXES = "axes:\n  optimizer.lr: [1e-2, 3e-3]\n  model.width: [4, 8]\n"


def section(text):
    """`tiny.yaml` with this section."""
    lines = "".join(f"  {line}\n" for line in text.strip().splitlines())
    Path("s.yaml").write_text(Path("tiny.yaml").read_text() + f"name: tiny\nsweep:\n{lines}")
    return Path("s.yaml")


def by_section(text, *overrides, **arguments):
    return dataclasses.replace(asked(Arguments(section(text), overrides, **arguments)), config=Path("tiny.yaml"))


def by_arguments(*overrides, **arguments):
    return asked(Arguments(Path("tiny.yaml"), overrides, **arguments))


LR, WIDTH = "optimizer.lr=1e-2,3e-3", "model.width=4,8"
SAME = [
    (AXES, (LR, WIDTH), {}),
    (AXES + "jobs: 3\nfail_fast: true", (LR, WIDTH), {"jobs": 3, "fail_fast": True}),
    ("axes:\n  model.width: 4,8\n  optimizer.lr: choice(1, 2)", (WIDTH, "optimizer.lr=1,2"), {}),
    (
        "axes:\n  optimizer.lr: log(1e-4, 1e-1)\nsampler: random\ncount: 9\nsearch_seed: 4",
        ("optimizer.lr=log(1e-4, 1e-1)",),
        {"random": 9, "search_seed": 4},
    ),
    ("axes:\n  model.width: int(1, 9)\nsampler: optuna\ncount: 9", ("model.width=int(1, 9)",), {"optuna": 9}),
    (AXES + "asha: true", (LR, WIDTH), {"asha": True}),
    (AXES + "asha: {min_epochs: 2, factor: 4}", (LR, WIDTH), {"asha": True, "min_epochs": 2, "factor": 4}),
    (
        AXES + "metric: eval_accuracy\nmode: max",
        (LR, WIDTH),
        {"metric": "eval_accuracy", "mode": "max"},
    ),
    (AXES + "stage: one", (LR, WIDTH), {"stage": "one"}),
    (AXES + "all_stages: true", (LR, WIDTH), {"all_stages": True}),
    (
        "axes:\n  model: ['{name: a, width: 3}', {name: b}]",
        ("model='{name: a, width: 3}',{name: b}",),
        {},
    ),
]


@pytest.mark.parametrize(("text", "overrides", "arguments"), SAME)
def test_the_section_is_equal_to_the_arguments(project, text, overrides, arguments):
    assert by_section(text) == by_arguments(*overrides, **arguments)


def test_listed_members_are_those_of_a_list_file(project):
    Path("m.yaml").write_text("- {optimizer.lr: 0.01, model.width: 8}\n- {optimizer.lr: 0.003}\n")
    in_section = by_section(
        "members:\n- {optimizer.lr: 0.01, model.width: 8}\n- {optimizer.lr: 0.003}\naxes: {seed: [0, 1]}"
    )
    in_file = by_arguments("seed=0,1", list_file=Path("m.yaml"))
    assert _points(in_section) == _points(in_file)
    assert len(_points(in_file)) == 4


def test_arguments_win(project):
    full = AXES + "sampler: random\ncount: 9\njobs: 3\nasha: {min_epochs: 2}\nmetric: eval_accuracy\nmode: max\n"
    assert by_section(full, jobs=1).jobs == 1
    assert by_section(full, optuna=4).optuna == 4
    assert by_section(full, optuna=4).random is None
    assert by_section(full, asha=False).halving is None
    assert by_section(full, factor=4).halving == Halving(2, 4)
    assert by_section(full, metric="eval_loss", mode="min").criterion == Criterion("eval_loss", False)
    assert by_section(full, "sweep.jobs=7").jobs == 7
    axes = {axis.name: axis.texts for axis in by_section(full, "optimizer.lr=5,6", "seed=0,1").space.keys}
    assert axes == {"optimizer.lr": ("5", "6"), "model.width": ("4", "8"), "seed": ("0", "1")}
    fixed = by_section(full, "model.width=2").space
    assert ([axis.name for axis in fixed.keys], fixed.fixed) == (["optimizer.lr"], ("model.width=2",))
    assert [axis.name for axis in by_section(AXES, "sweep.axes={seed: [1, 2]}").space.keys] == [
        "optimizer.lr",
        "model.width",
        "seed",
    ]


MISTAKES = [
    ("jbos: 2", "s.yaml:11:3: unknown key 'jbos' in sweep; did you mean 'jobs'?"),
    ("jobs: many", "s.yaml:11:3: sweep.jobs must be a whole number; got 'many'"),
    ("axes: [1]", "s.yaml:11:3: sweep.axes must be"),
    ("axes:\n  optimzer.lr: [1, 2]", "'optimzer.lr' is no key of a configuration; did you mean 'optimizer'? keys: "),
    ("axes:\n  training.epocs: [1, 2]", "did you mean 'epochs'? keys of training: "),
    ("axes:\n  sweep.jobs: [1, 2]", "'sweep.jobs' is no key that members can differ in"),
    ("axes:\n  seed: 3", "s.yaml:12:5: sweep.axes.seed must be a list of values, or a range such as"),
    ("axes:\n  seed: []", "sweep.axes.seed must be a list of values"),
    ("axes:\n  seed: int(5, 1)", "sweep.axes.seed: write int(low, high), such as int(1, 8); low must be below high"),
    ("members:\n- {sed: 1}", "s.yaml:12:6: sweep.members.0: 'sed' is no key of a configuration; did you mean 'seed'?"),
    ("sampler: random", "s.yaml:11:3: sweep.sampler random needs count, the number of members"),
    ("count: 3", "sweep.count is the number of members that a sampler draws: set sampler to random or optuna"),
    ("sampler: random\ncount: 3\nmembers: [{seed: 1}]", "sweep.members lists the members, and sampler random draws"),
    ("metric: eval_accuracy", "sweep.metric 'eval_accuracy' needs mode: min or max"),
    ("mode: max", "sweep.mode belongs to metric"),
    ("asha: {factor: 1}", "sweep.asha.factor must be greater than or equal to 2; got 1"),
    ("sampler: optuna\ncount: 3\nasha: true", "sweep.asha cannot be combined with sampler optuna"),
    ("stage: one\nall_stages: true", "sweep.stage trains one stage, and all_stages all of them"),
]


@pytest.mark.parametrize(("text", "said"), MISTAKES)
def test_mistakes_are_told_with_their_place_by_every_command(functrain, fakes, text, said):
    section(text)
    for command in (["config", "s.yaml"], ["sweep", "s.yaml", "seed=1,2"]):
        code, _, err = functrain(*command)
        assert (code, said in err, err.count("\n")) == (2, True, 1), err
    assert not fakes.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep.axes.seed=1,2"], "sweep.axes.seed is no key of a member"),
        (["--metric", "eval_accuracy"], "--metric and --mode belong together"),
        (
            ["--metric", "accuracy", "--mode", "max"],
            "is one of the log: train_..., eval_... or ema_...; got 'accuracy'",
        ),
        (["--all-stages"], "--all-stages: s.yaml has no stages"),
        (["--stage", "one"], "--stage one: s.yaml has no stages"),
        (["--stage", "one", "--all-stages"], "--stage trains one stage, --all-stages trains all of them"),
    ],
)
def test_arguments_that_make_no_sense_are_one_message(functrain, fakes, arguments, said):
    section(AXES)
    code, _, err = functrain("sweep", "s.yaml", *arguments)
    assert (code, said in err, err.count("\n")) == (2, True, 1), err
    assert not fakes.exists()


def test_a_parameter_that_the_function_does_not_have_is_told_before_anything_starts(functrain, fakes):
    section("axes:\n  optimizer.rl: [1, 2]\n  model.widht: [1, 2]")
    code, _, err = functrain("sweep", "s.yaml")
    assert (code, "unknown key 'rl' in optimizer (adamw); did you mean 'lr'?" in err) == (2, True), err
    assert "unknown key 'widht' in model (tiny_project:net); did you mean 'width'?" in err
    assert not fakes.exists()


def test_a_member_is_the_same_with_and_without_the_section(project):
    section(AXES + "jobs: 2")
    one, other = (requested(config, [], [("optimizer.lr=1e-2",)], 1, False) for config in ("s.yaml", "tiny.yaml"))
    assert one == other
    assert "sweep" not in plain(load_config("s.yaml"))


def test_a_run_does_not_record_the_section(functrain, project):
    section(AXES)
    assert functrain("train", "s.yaml", "--quiet", "training.epochs=1")[0] == 0
    assert "sweep" not in yaml.safe_load(Path("runs/tiny/config.yaml").read_text())


def test_config_shows_the_section_and_what_it_shows_is_a_configuration(functrain, project):
    section(AXES + "asha: true\njobs: 2")
    assert is_surely_sound(resolve_stages(Path("s.yaml"))[""])  # so that the command imports no torch
    code, out, err = functrain("config", "s.yaml", "sweep.jobs=3")
    assert (code, err) == (0, "")
    found = {" ".join(line.split()) for line in out.splitlines()}
    assert {"min_epochs: 1 # default", "jobs: 3 # override 'sweep.jobs=3'"} <= found
    Path("again.yaml").write_text(out)
    again, shown = (
        json.loads(functrain("config", each, "sweep.jobs=3", "--json")[1]) for each in ("again.yaml", "s.yaml")
    )
    assert again["config"]["sweep"] == shown["config"]["sweep"]
    assert again["config"]["sweep"]["axes"] == {"optimizer.lr": [0.01, 0.003], "model.width": [4, 8]}


def test_a_file_that_extends_another_changes_its_axes(project):
    section(AXES + "jobs: 2")
    Path("more.yaml").write_text("extends: s.yaml\nsweep:\n  axes: {optimizer.lr: null, seed: [0, 1]}\n")
    found = asked(Arguments(Path("more.yaml"), ()))
    assert ([axis.name for axis in found.space.keys], found.jobs) == (["model.width", "seed"], 2)


def test_a_sweep_of_the_section_is_that_of_the_command_line(functrain, fakes):
    section("axes:\n  model.width: [8, 0x4]\n  seed: [1, 2]\njobs: 2\nmetric: eval_accuracy\nmode: max")
    code, out, err = functrain("sweep", "s.yaml")
    assert (code, err) == (0, "")
    assert "4 members, 2 at once" in out
    assert "best: model.width=8 seed=1 (eval_accuracy 8.0000 at epoch 1)" in out
    assert [row["best"] for row in rows(fakes)] == ["8", "8", "4", "4"]
    before = table(fakes)
    arguments = ["model.width=8,4", "seed=1,2", "--metric", "eval_accuracy", "--mode", "max"]
    code, out, _ = functrain("sweep", "tiny.yaml", *arguments)
    assert (code, "4 members, 4 of them finished" in out, table(fakes)) == (0, True, before)


def test_successive_halving_goes_by_the_metric_of_the_sweep(functrain, fakes):
    arguments = ["model.width=1,2,3", "training.epochs=4", "--asha", "--metric", "eval_accuracy", "--mode", "max"]
    assert functrain("sweep", "tiny.yaml", *arguments)[0] == 0
    assert [row["status"] for row in rows(fakes)] == ["pruned", "pruned", "finished"]


def test_a_metric_that_no_member_has_ends_the_sweep_with_the_nearest(functrain, fakes):
    code, _, err = functrain("sweep", "tiny.yaml", "seed=1,2,3", "--metric", "eval_acuracy", "--mode", "max")
    assert code == 2
    assert "members cannot be compared by 'eval_acuracy': member " in err
    assert "has no such metric; did you mean 'eval_accuracy'? metrics: eval_loss, eval_accuracy" in err
    assert [row["status"] for row in rows(fakes)] == ["finished", "waiting", "waiting"]
    assert functrain("sweep", "tiny.yaml", "seed=1,2,3", "--metric", "eval_accuracy", "--mode", "max")[0] == 0


def test_optuna_searches_for_the_metric_of_the_sweep(functrain, fakes):
    pytest.importorskip("optuna")
    command = ["sweep", "tiny.yaml", "model.width=int(1, 1000)", "--optuna", "2", "--metric", "eval_accuracy", "--mode"]
    assert functrain(*command, "max")[0] == 0
    code, _, err = functrain(*command, "min")
    assert (code, "for the highest eval_accuracy with --search-seed 0); now it is" in err) == (2, True)
