"""A batch that an objective cannot compute with is told in words, whichever way it comes in."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import functrain as ft
from functrain.errors import BatchError

X, Y = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1])


class Image:
    """As PIL's: an object without tensors."""


UNFIT = {
    "texts as targets": (
        (X, ["a", "b", "a", "b"]),
        r"targets, at '0', hold a str \('a'\).*tensor \[4, 3\] float32, list",
    ),
    "no inputs": ((None, Y), r"inputs are None.*a tuple of \d \(None, tensor \[4\] int64"),
    "no targets": ((X, None), "needs targets, and the batch's are None"),
    "text as inputs": (("a", Y), r"inputs hold a str \('a'\).*tokenizer"),
    "nested lists": (([[X]], Y), "inputs are a list, which the model gets as 1 argument.*torch.stack"),
    "a list of examples": (([X[:2], X[2:]], Y), "inputs are a list, which the model gets as 2 arguments"),
    "texts beside labels": (
        {"input": X, "labels": Y, "text": ["a"] * 4},
        r"inputs, at 'text/0', hold a str.*'text': list of 4",
    ),
    "objects": ((X, np.array(["a"] * 4, dtype=object)), "targets hold a NumPy array of object"),
    "an image": ((Image(), Y), "inputs hold an Image"),
    "a set": (({1, 2}, Y), "inputs hold a set"),
    "a number": ((X, 3), r"targets hold an int \(3\)"),
    "a 0-d target": ((X, torch.tensor(1)), "targets are a 0-d tensor.*a row for each example"),
    "numbers": ((X, [0, 1, 0, 1]), r"targets, at '0', hold an int \(0\)"),
}
CASES = pytest.mark.parametrize("name", UNFIT)


def init(objective=None):
    torch.manual_seed(0)
    return ft.init_state(nn.Linear(3, 2), objective or ft.classification(), ft.optim.sgd(0.1))


WAYS = {
    "train_step": lambda state, batch: ft.train_step(state, batch),
    "eval_step": lambda state, batch: ft.eval_step(state, batch),
    "fit": lambda state, batch: ft.fit(state, [batch], epochs=1, compile=False, progress=False),
    "evaluate": lambda state, batch: ft.evaluate(state, [batch]),
    "find_lr": lambda state, batch: ft.find_lr(state, [batch]),
    "compiled": lambda state, batch: ft.compile(ft.train_step, backend="eager")(state, batch),
    "fit compiled": lambda state, batch: ft.fit(
        state, [batch], epochs=1, compile=True, backend="eager", progress=False
    ),
}


@CASES
@pytest.mark.parametrize("way", WAYS)
def test_what_was_given_is_told_with_its_place(way, name):
    batch, message = UNFIT[name]
    with pytest.raises(BatchError, match=message) as caught:
        WAYS[way](init(), batch)
    assert "Allowed are (inputs, targets)" in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("objective", [ft.regression(), ft.supervised(nn.functional.cross_entropy)])
@pytest.mark.parametrize("name", ["no targets", "texts as targets", "text as inputs"])
def test_other_objectives_tell_it_too(objective, name):
    batch, message = UNFIT[name]
    with pytest.raises(BatchError, match=message):
        ft.train_step(init(objective), batch)


@pytest.mark.parametrize("compile", [False, True])
def test_predict_tells_it_of_the_inputs(compile):
    with pytest.raises(BatchError, match="inputs are a list, which the model gets as 2 arguments"):
        ft.predict(init(), iter([([X[:2], X[2:]], None)]), compile=compile)


def test_a_step_names_the_way_to_make_tensors_of_arrays():
    with pytest.raises(BatchError, match=r"inputs hold a NumPy array of float32.*to_device\(batch, device\)"):
        ft.train_step(init(), (X.numpy(), Y.numpy()))


def test_other_errors_stay_what_they_are():
    def objective(model, batch):
        raise AttributeError("mine")

    for takes in (False, True):
        objective.takes_weight = takes
        with pytest.raises(AttributeError, match=r"^mine$"):
            ft.train_step(init(objective), (X, Y))
    objective.takes_weight = False
    with pytest.raises(AttributeError, match=r"^mine$"):
        ft.train_step(init(objective), (X, ["a"]))


@pytest.mark.parametrize("batch", [None, (X, Y, Y, Y), {"x": X}, {1, 2}])
def test_a_batch_of_another_form_is_described(batch):
    with pytest.raises(TypeError, match="a batch"):
        ft.train_step(init(), batch)


def test_a_dataclass_is_told_from_a_batch():
    @dataclasses.dataclass
    class Pair:
        x: torch.Tensor
        y: torch.Tensor

    with pytest.raises(TypeError, match=r"a batch is .*; got a Pair"):
        ft.train_step(init(), Pair(X, Y))
