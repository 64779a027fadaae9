"""Errors: one message and exit code 2 for what the user can put right, a traceback for a bug."""

import os
import subprocess
import sys

import pytest

from functrain.app.cli import main
from functrain.foundation.errors import FunctrainError

MISTAKES = [
    (["train", "nope.yaml"], "there is no configuration file nope.yaml"),
    (["train", "tiny.yaml", "training.epochs"], "override 'training.epochs': write key.path=value"),
    (
        ["train", "tiny.yaml", "optimizer.name=adamx"],
        "override 'optimizer.name=adamx': unknown optimizer 'adamx'; did you",
    ),
    (["train", "tiny.yaml", "optimizer.betas=[0.9, 1.5]"], "optimizer (adamw): betas[1] must be in [0, 1), got 1.5"),
    (["train", "tiny.yaml", "model={name: digits_cnn, channels: 0}"], "model (digits_cnn): channels must"),
    (["train", "tiny.yaml", "model={name: tiny_project:no_module}"], "model must be a torch.nn.Module, got str"),
    (["train", "tiny.yaml", "data.name=tiny_project:empty"], "the data set is empty"),
    (
        ["train", "tiny.yaml", "data.name=tiny_project:val_only"],
        "data (tiny_project:val_only): the data set has no split",
    ),
    (
        ["train", "tiny.yaml", "data.drop_last=true", "data.count=4"],
        "the data set (Arrays) has 4 examples, which make no batch",
    ),
    (
        ["train", "tiny.yaml", "data.prefetch_factor=2"],
        "data (tiny_project:points, split 'train'): persistent_workers and",
    ),
    (
        ["train", "tiny.yaml", "data.name=tiny_project:bad_labels"],
        "the loss is nan at step 1 (epoch 1, batch 1). Label 7 at",
    ),
    (["train", "tiny.yaml", "training.device=cuda:9"], "training.device must be one of the devices that torch can use"),
    (
        ["train", "tiny.yaml", "training.device=toaster"],
        "training.device must be one of the devices that torch can use",
    ),
    (["train", "tiny.yaml", "training.device=meta"], "training.device must hold numbers (cpu"),
    (
        ["train", "tiny.yaml", "evaluation.watch=eval_f1"],
        "watch must be one of train_loss, train_accuracy, eval_loss, ",
    ),
    (
        ["train", "tiny.yaml", "evaluation.watch=ema_loss"],
        "watch must be train_loss, eval_loss, or another metric behind such a prefix; got 'ema_loss'; ema_... needs",
    ),
    (["train", "tiny.yaml", "compile.enabled=true", "compile.backend=x"], "backend must be one of "),
    (
        ["train", "tiny.yaml", "--run-dir", "tiny.yaml"],
        "the run directory tiny.yaml cannot be written to: tiny.yaml is a file; choose another one with --run-dir\n",
    ),
    (
        ["train", "tiny.yaml", "--run-dir", "tiny.yaml/x"],
        "the run directory tiny.yaml/x cannot be written to: tiny.yaml is a file; choose another",
    ),
    (["train", "tiny.yaml", "--resume", "nope"], "there is no checkpoint 'nope': it is neither one in "),
    (
        ["train", "tiny.yaml", "optimizer.name=adamW"],
        "override 'optimizer.name=adamW': unknown optimizer 'adamW'; did you mean 'adamw'?",
    ),
    (
        ["train", "tiny.yaml", "data.batch_size=1e8"],
        "override 'data.batch_size=1e8': data.batch_size must be a whole number; got 1e8\n",
    ),
    (
        ["train", "tiny.yaml", "training.epochs=on"],
        "override 'training.epochs=on': training.epochs must be a whole number; got on\n",
    ),
    (
        ["train", "tiny.yaml", "training.epochs=~"],
        "tiny.yaml:6:1: training needs to know how long to train: set epochs, steps",
    ),
    (
        ["train", "tiny.yaml", "model=null"],
        "override 'model=null': model must be a section with keys of its own (name); got null\n",
    ),
    (
        ["train", "tiny.yaml", "training.plateau=true"],
        "override 'training.plateau=true': training.plateau must be a section",
    ),
    (
        ["train", "tiny.yaml", "training.epochs.x=1"],
        "override 'training.epochs.x=1': training.epochs is 2, not a section",
    ),
    (["train", "tiny.yaml", "optimizer.betas=[null]"], "override 'optimizer.betas=[null]': optimizer.betas must be"),
    (
        ["train", "tiny.yaml", "training.epochs={a: 1"],
        "override 'training.epochs={a: 1': this is not valid YAML: a '{' without",
    ),
    (["train", "tiny.yaml", "training.threads=100000"], "training.threads must be a whole number from 1 to "),
    (
        ["train", "tiny.yaml", "data.num_workers=5000"],
        "data (tiny_project:points, split 'train'): num_workers must be ",
    ),
    (
        ["train", "tiny.yaml", "objective.label_smoothing=2"],
        "objective (classification): label_smoothing must be between 0 and 1",
    ),
    (
        ["train", "tiny.yaml", "objective.name=segmentation"],
        "this objective takes a label for each of an example's pixels; got logits [8, 3]",
    ),
    (
        ["train", "tiny.yaml", "objective.name=language_modelling"],
        "this objective takes a label for each of an example's tokens; got",
    ),
    (["train", "tiny.yaml", "objective.name=regression"], "predictions [8, 3] and targets [8] must have one shape"),
    (
        ["train", "tiny.yaml", "objective.class_weights=[1, 2]"],
        "class_weights has 2 numbers, but the logits [8, 3] are of 3 classes",
    ),
    (
        ["train", "tiny.yaml", "objective.loss=hinge"],
        "objective (classification): there is no loss 'hinge' here; known: cross_entropy",
    ),
    (
        ["train", "tiny.yaml", "objective.name=supervised"],
        "tiny.yaml:4:1: missing key 'loss_fn' in objective: supervised has no default",
    ),
    (
        ["train", "tiny.yaml", "optimizer.weight_decay=.nan"],
        "optimizer (adamw): weight_decay must be a finite number >= 0, got nan",
    ),
    (["train", "tiny.yaml", "optimizer.eps=.inf"], "optimizer (adamw): eps must be a finite number >= 0, got inf"),
    (
        ["train", "tiny.yaml", "optimizer.lr=-1"],
        "override 'optimizer.lr=-1': optimizer.lr must be greater than or equal to 0; got -1",
    ),
    (
        ["train", "tiny.yaml", "model.dropout=3"],
        "model (tiny_project:net): dropout probability has to be between 0 and 1",
    ),
    (
        ["train", "tiny.yaml", "model.name=''"],
        "override \"model.name=''\": unknown model ''; known: attention_multimodal, ",
    ),
    (
        ["train", "tiny.yaml", "model=digits_cnn"],
        "override 'model=digits_cnn': model must be a section with keys of its own",
    ),
    (["train", "tiny.yaml", "code=nowhere"], "override 'code=nowhere': code: there is no folder "),
    (["train", "tiny.yaml", "name=a/b"], "override 'name=a/b': name must be usable as a folder's name"),
    (
        ["train", "tiny.yaml", "training.activation_checkpointing=[nope.*]"],
        "activation_checkpointing: the pattern 'nope.*' names no",
    ),
    (
        ["train", "tiny.yaml", "init_from=x.pt"],
        "override 'init_from=x.pt': init_from must be a section with keys of its own (path",
    ),
    (
        ["train", "tiny.yaml", "--init-from", "tiny.yaml"],
        "TMP/tiny.yaml is a text file, not a file of weights: give a .pt, ",
    ),
    (["train", "tiny.yaml", "--init-from", "nope.pt"], "cannot read TMP/nope.pt: "),
    (
        ["train", "tiny.yaml", "compile.mode=fast", "compile.enabled=true"],
        "mode must be one of default, reduce-overhead, ",
    ),
    (
        ["train", "optimizer.lr=3"],
        "there is no configuration file optimizer.lr=3; the first argument is the configuration file",
    ),
    (
        ["train", "tiny.yaml", "optimizer.schedule={name: constant, warmup_steps: 1, warmup_fraction: 0.1}"],
        "override 'optimizer.schedule={name: constant, warmup_steps: 1, warmup_fraction: 0.1}': optimizer.sched",
    ),
    (
        ["train", "tiny.yaml", "training.max_time=3"],
        "override 'training.max_time=3': unknown key 'max_time' in training; give the option --max-time on the command",
    ),
    (
        ["train", "tiny.yaml", "run_dir=x"],
        "override 'run_dir=x': unknown key 'run_dir' at the top level; give the option --run-dir on the command line;",
    ),
    (["find-lr", "tiny.yaml", "--figure", "x.doc"], "a figure's name must end in .png, .pdf or .svg, got 'x.doc'"),
    (
        ["find-lr", "tiny.yaml", "data.batch_size=0"],
        "override 'data.batch_size=0': data.batch_size must be greater than or equal to 1",
    ),
    (
        ["find-batch-size", "tiny.yaml", "training.device=cuda"],
        "training.device must be one of the devices that torch can use here",
    ),
    (["profile", "tiny.yaml", "--out", "tiny.yaml"], "--out tiny.yaml is a file; name a directory"),
    (["export", "nope", "x.pt"], "nope is neither a run with checkpoints nor a checkpoint: there is no such directory"),
    (["export", "nope", "x.npz"], "x.npz: the suffix says the format; use .pt, .pth (torch.save), .safetensors or "),
    (["replay", "nope"], "nope is neither a run with checkpoints nor a checkpoint: there is no such directory"),
    (["hunt", "tiny.yaml"], "tiny.yaml is neither a run with checkpoints nor a checkpoint: it is a file"),
    (["verify", "nope"], "nope is no run directory with checkpoints: there is no nope/checkpoints"),
    (
        ["diff", "nope", "tiny.yaml"],
        "nope is neither a run with checkpoints nor a checkpoint: there is no such directory",
    ),
    (
        ["train", "tiny.yaml", "optimizer.schedule={name: cosine, warmup_steps: 6}"],
        "optimizer.schedule.warmup_steps: 6 updates of warm-up do not fit into a run of 6 (3 an epoch, with",
    ),
    (
        ["train", "tiny.yaml", "optimizer.schedule={name: step, step_size: 2, warmup_steps: 7}"],
        "optimizer.schedule.warmup_steps: 7 updates of warm-up do not fit into a run of 6 (3 an epoch, with",
    ),
    (["evaluate", "nope"], "there is no run directory nope"),
    (["evaluate", "."], ". is no run directory: there is no config.yaml in it"),
    (["show", "nope"], "nope is neither a run directory nor a checkpoint: there is no such directory"),
    (["show", "."], ". is neither a run directory nor a checkpoint: it holds neither config.yaml nor functrain.json"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_of_the_users_is_one_message_and_exit_code_2(functrain, project, arguments, message):
    if arguments[0] == "train":
        arguments = [*arguments, "--no-progress"]
    code, _, err = functrain(*arguments)
    assert code == 2
    assert err.replace(str(project), "TMP").startswith(f"functrain: error: {message}"), err
    assert "Traceback" not in err
    assert not (project / "runs").exists() or "The last good state was saved" in err
    assert "previous-N" not in err  # advice for a directory that holds another run


USAGE = [
    (["trian", "tiny.yaml"], "functrain: error: there is no command 'trian'; did you mean 'train'? commands: train, "),
    ([], "functrain: error: a command is missing; commands: train, sweep, evaluate, "),
    (["--debug"], "functrain: error: a command is missing; commands: train, sweep, evaluate, "),
    (["--nope"], "functrain: error: there is no option --nope without a command; commands: train, sweep, evaluate, "),
    (["train", "tiny.yaml", "--no-progress=1"], "functrain train: error: --no-progress takes no value; got '1'\n"),
    (["train", "tiny.yaml", "--run-dir"], "functrain train: error: --run-dir needs a value\n"),
    (["train", "tiny.yaml", "--resume", ""], "argument --resume: a name or path must not be empty\n"),
    (["evaluate", "r", "--checkpoint", ""], "argument --checkpoint: a name or path must not be empty\n"),
    (["train", "tiny.yaml", "--max-time", "0"], "argument --max-time: '0' is no time above 0: give seconds"),
    (["train"], "functrain train: error: the following arguments are required: CONFIG, or --resume RUN\n"),
    (
        ["train", "tiny.yaml", "--lr", "1e-3"],
        "train has no option --lr; settings of the configuration are written optimizer.lr=1e-3\n",
    ),
    (
        ["train", "tiny.yaml", "--batch-size=8"],
        "train has no option --batch-size; settings of the configuration are written data.batch_size=8\n",
    ),
    (
        ["train", "tiny.yaml", "--Epochs", "3"],
        "train has no option --Epochs; settings of the configuration are written training.epochs=3\n",
    ),
    (
        ["config", "tiny.yaml", "--training.epochs", "3"],
        "config has no option --training.epochs; settings of the configuration are written training.epochs=3\n",
    ),
    (
        ["train", "tiny.yaml", "--run-dri", "x"],
        "train has no option --run-dri; did you mean '--run-dir'? see functrain train --help\n",
    ),
    (["train", "tiny.yaml", "--run-dir", ""], "argument --run-dir: a path must not be empty\n"),
    (
        ["train", "tiny.yaml", "--max-time", "soon"],
        "argument --max-time: 'soon' is no time above 0: give seconds, MM:SS or HH:MM:SS\n",
    ),
    (["show", "a", "b"], "show takes no further argument 'b'\n"),
    (["show", "a", "--trust"], "show has no option --trust; see functrain show --help\n"),
    (["replay", "a", "--steps", "0"], "argument --steps: '0' must be a whole number, 1 or more\n"),
    (["find-lr", "tiny.yaml", "--steps", "ten"], "argument --steps: 'ten' must be a whole number, 1 or more\n"),
    (["find-batch-size", "tiny.yaml", "--limit", "-1"], "argument --limit: '-1' must be a whole number, 1 or more\n"),
    (["evaluate", "a", "--split", "dev"], "argument --split: invalid choice: 'dev' (choose from "),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE, ids=[" ".join(a) for a, _ in USAGE])
def test_a_wrong_command_line_names_what_may_have_been_meant(functrain, arguments, message):
    code, out, err = functrain(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: functrain")
    assert message in err


def test_another_model_in_the_same_run_directory_is_one_line_with_the_way_out(functrain):
    assert functrain("train", "tiny.yaml", "--no-progress", "--run-dir", "r")[0] == 0
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", "--run-dir", "r", "model.width=16")
    assert code == 2
    assert err.startswith(
        "functrain: error: the run in r has another model or optimizer than the configuration (17 leaves differ; "
        "params/0.bias: float32 (8,) in the checkpoint, float32 (16,) in the state). To train something else, choose "
        "another run directory (--run-dir, or name=...)"
    )
    assert err.count("\n") == 1


def test_a_run_is_taken_where_one_of_its_checkpoints_is(functrain, project):
    assert functrain("train", "tiny.yaml", "--no-progress", "--run-dir", "r")[0] == 0
    code, out, _ = functrain("replay", "r")
    assert code == 0
    assert "3 steps from step-00000003 trained again: confirmed bit for bit" in out
    code, out, err = functrain(
        "train", "tiny.yaml", "--no-progress", "--run-dir", "s", "--resume", "r", "training.epochs=3"
    )
    assert code == 0, err
    assert functrain("diff", "r/checkpoints/last", "s/checkpoints/step-00000009")[0] == 1
    functrain("train", "tiny.yaml", "--no-progress", "--run-dir", "one", "training.epochs=1")
    code, _, err = functrain("replay", "one")
    assert code == 2
    assert "one has one checkpoint, and a replay compares with the one after" in err


@pytest.mark.parametrize("command", ["show", "evaluate"])
def test_a_folder_inside_a_run_is_told(functrain, project, command):
    (project / "r" / "checkpoints" / "step-00000001").mkdir(parents=True)
    (project / "r" / "config.yaml").touch()
    for path in ("r/checkpoints", "r/checkpoints/step-00000001"):
        code, _, err = functrain(command, path)
        assert (code, err.endswith("; it is in the run r\n")) == (2, True), err


def test_a_refused_start_removes_no_folder_that_was_there_and_no_run(functrain, project):
    (project / "r").mkdir()
    (project / "r" / "notes.txt").write_text("mine")
    assert functrain("train", "tiny.yaml", "--no-progress", "--run-dir", "r", "evaluation.watch=train_f1")[0] == 2
    assert (project / "r" / "notes.txt").read_text() == "mine"
    assert functrain("train", "tiny.yaml", "--no-progress", "--run-dir", "a/b/c", "evaluation.watch=train_f1")[0] == 2
    assert not (project / "a").exists()
    steep = "optimizer={name: sgd, lr: 1e30}"
    assert "at step 2" in functrain("train", "tiny.yaml", "--no-progress", "--run-dir", "s", steep)[2]
    assert (project / "s" / "checkpoints" / "last").is_dir()


def test_a_terminal_without_unicode_prints_any_path(project):
    run = "l\u00e4ufe/\u4e00"
    done = subprocess.run(
        [sys.executable, "-m", "functrain", "train", "tiny.yaml", "--run-dir", run, "--no-progress"],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert rb"l\xe4ufe/\u4e00" in done.stdout
    assert (project / run / "config.yaml").is_file()


def test_a_loss_that_is_not_finite_names_the_step_and_the_run_can_be_saved(functrain, project):
    steep = ("optimizer.lr=1e30", "optimizer.name=sgd", "--run-dir", "runs/too steep")
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", *steep)
    assert code == 2
    assert err.startswith("functrain: error: the ")
    assert "at step 2 (epoch 1, batch 2)" in err
    assert "Try a smaller learning rate" in err
    assert err.endswith(
        "or a warm-up. The last good state was saved (status NONFINITE)\n"
        "To find the module it comes from: functrain hunt 'runs/too steep'\n"
    ), err
    assert "stopped (not finite): step 1" in functrain("show", "runs/too steep")[1]


def test_without_a_compiler_the_message_says_what_to_do(functrain, monkeypatch):
    monkeypatch.setattr("functrain.compiler.backends.build", _no_compiler)
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", "compile.enabled=true")
    assert code == 2
    assert "needs a C++ compiler" in err


def _no_compiler(*arguments, **keywords):
    raise FunctrainError("compiling a step needs a C++ compiler, and none was found")


def test_a_bug_keeps_its_traceback_and_debug_shows_every_one(project):
    with pytest.raises(KeyError, match="no such key"):
        main(["train", "tiny.yaml", "data.name=tiny_project:buggy"])
    with pytest.raises(Exception, match="there is no configuration file"):
        main(["train", "nope.yaml", "--debug"])
