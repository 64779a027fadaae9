"""Callbacks and losses of the user's own, named in a configuration."""

import sys

import pytest

CODE = """
import torch
from pathlib import Path

import functrain
from functrain.metrics.weighted_sums import PerExample


@functrain.on("after_epoch")
def plain(event):
    Path("plain.txt").write_text(str(event.state.epoch))


def counting(file: str, every: int = 1):
    @functrain.on("after_step")
    def count(event):
        if event.state.step % every == 0:
            Path(file).write_text((Path(file).read_text() if event.state.step > every else "") + "x")

    return count


def no_callback(width: int = 1):
    return width


def cubed(logits, targets, power: int = 3):
    return PerExample(logits.abs().pow(power).sum(1), torch.ones(len(logits)))


def points(split, country="ch", flags=(), sure: bool = True, text: str = ""):
    from tiny_project import points

    return points(split)


def mean_loss(outputs, targets):
    return torch.nn.functional.cross_entropy(outputs, targets)
"""


@pytest.fixture
def train(functrain, project):
    (project / "own.py").write_text(CODE)
    yield lambda *arguments: functrain("train", "tiny.yaml", "--no-progress", *arguments)
    sys.modules.pop("own", None)


def test_callbacks_are_called_with_their_parameters(train, project):
    code, _, err = train("callbacks=[{name: own:plain}, {name: own:counting, file: n.txt, every: 2}]")
    assert code == 0, err
    assert (project / "plain.txt").read_text() == "1"  # the last epoch, counted from 0
    assert (project / "n.txt").read_text() == "xxx"  # of 6 updates
    assert "callbacks:\n- name: own:plain\n- name: own:counting\n" in (project / "runs/tiny/config.yaml").read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[{name: own:counting, fil: x}]", "unknown key 'fil' in callbacks.0 (own:counting); did you mean 'file'?"),
        ("[{name: own:plain}, {name: own:counting}]", "missing key 'file' in callbacks.1: own:counting has no default"),
        ("[{name: own:counting, file: 3}]", "callbacks.0.file must be text (put it in quotes); got 3"),
        ("[{name: own:plain, x: 3}]", "unknown key 'x' in callbacks.0 (own:plain)"),
        ("[{name: own:no_callback}]", "callbacks.0 (own:no_callback): a callback is a function that names its scopes"),
        ("[{name: report}]", "unknown callback 'report'; give your own as package.module:function"),
        ("[{nam: own:plain}]", "missing key 'name' in callbacks.0"),
        ("[own:plain]", "callbacks.0 must be a section with keys of its own (name); got 'own:plain'"),
        ("own:plain", "callbacks must be a list; got 'own:plain'"),
    ],
)
def test_a_wrong_callback_is_told_before_training(train, project, given, message):
    code, _, err = train(f"callbacks={given}")
    assert code == 2
    assert message in err
    assert not (project / "runs").exists()


def test_losses_are_taken_by_their_place(train):
    for objective in ("{name: classification, loss: own:cubed}", "{name: supervised, loss_fn: own:mean_loss}"):
        code, _, err = train(f"objective={objective}", "--resume", "never")
        assert code == 0, err
    code, _, err = train("objective={name: classification, loss: own:nope}")
    assert code == 2
    assert "': module 'own' (" in err
    assert "has no 'nope'" in err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("country: no", "data.country must be true or false, or text in quotes; got no"),
        ("flags: [x, {a: Off}]", "data.flags must be true or false, or text in quotes; got Off"),
        ("flags: [1, yes]", "data.flags must be true or false, or text in quotes; got yes"),
        ("text: no", "data.text must be text (put it in quotes); got no"),
        ("country: 'no', flags: [true, False], sure: no", None),
    ],
)
def test_no_is_never_a_silent_false(train, given, message):
    code, _, err = train(f"data={{name: own:points, {given}}}")
    assert code == (0 if message is None else 2), err
    assert message is None or message in err
