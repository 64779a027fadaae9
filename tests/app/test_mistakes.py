"""Errors: one message and exit code 2 for what the user can put right, a traceback for a bug."""

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
    (["train", "tiny.yaml", "training.device=cuda:9"], "training.device: 'cuda:9' is not there: torch sees "),
    (["train", "tiny.yaml", "training.device=toaster"], "training.device: 'toaster' cannot be used: "),
    (["train", "tiny.yaml", "training.watch=eval_f1"], "watch must be one of train_loss, "),
    (["train", "tiny.yaml", "training.compile=true", "training.backend=x"], "backend must be one of "),
    (
        ["train", "tiny.yaml", "--run-dir", "tiny.yaml"],
        "the run directory tiny.yaml cannot be written to: tiny.yaml is a file; choose another one with --run-dir\n",
    ),
    (
        ["train", "tiny.yaml", "--run-dir", "tiny.yaml/x"],
        "the run directory tiny.yaml/x cannot be written to: tiny.yaml is a file; choose another",
    ),
    (["train", "tiny.yaml", "--resume", "nope"], "there is no checkpoint 'nope'"),
    (
        ["train", "tiny.yaml", "optimizer.schedule={name: cosine, warmup_steps: 6}"],
        "optimizer.schedule.warmup_steps: 6 updates of warm-up do not fit into a run of 6; give fewer",
    ),
    (
        ["train", "tiny.yaml", "optimizer.schedule={name: step, step_size: 2, warmup_steps: 7}"],
        "optimizer.schedule.warmup_steps: 7 updates of warm-up do not fit into a run of 6; give fewer",
    ),
    (["evaluate", "nope"], "there is no run directory nope"),
    (["evaluate", "."], ". is no run directory: there is no config.yaml in it"),
    (["show", "nope"], "nope is neither a run directory nor a checkpoint: there is no such directory"),
    (["show", "."], ". is neither a run directory nor a checkpoint: it holds neither config.yaml nor functrain.json"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_of_the_users_is_one_message_and_exit_code_2(functrain, arguments, message):
    if arguments[0] == "train":
        arguments = [*arguments, "--no-progress"]
    code, _, err = functrain(*arguments)
    assert code == 2
    assert err.startswith(f"functrain: error: {message}")
    assert "Traceback" not in err
    assert "previous-N" not in err  # advice for a directory that holds another run


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
    monkeypatch.setattr("functrain.compiler.runner.backends.build", _no_compiler)
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", "training.compile=true")
    assert code == 2
    assert "needs a C++ compiler" in err


def _no_compiler(*arguments, **keywords):
    raise FunctrainError("compiling a step needs a C++ compiler, and none was found")


def test_a_bug_keeps_its_traceback_and_debug_shows_every_one(project):
    with pytest.raises(KeyError, match="no such key"):
        main(["train", "tiny.yaml", "data.name=tiny_project:buggy"])
    with pytest.raises(Exception, match="there is no configuration file"):
        main(["train", "nope.yaml", "--debug"])
