"""A step that is compiled for shape after shape says so, and keeps a bounded number of programs."""

import warnings

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.compiler import runner
from functrain.compiler.shapes import ShapeWarning


def squares(model, batch):
    return ft.Loss(model(batch).square().sum(), float(len(batch)))


@pytest.fixture
def state():
    return ft.init_state(nn.Linear(4, 3), squares, ft.optim.sgd(0.1))


def test_the_third_shape_of_a_batch_is_warned_of_once_for_each_step(state):
    step, evaluate = (ft.compile(function, backend="eager") for function in (ft.train_step, ft.eval_step))
    for compiled, name in [(step, "update"), (evaluate, "evaluate")]:
        for length in (1, 2, 1):
            compiled(state, torch.ones(length, 4))
        with pytest.warns(
            ShapeWarning, match=rf"the {name}\w* step .*\[1, 4\]; \[2, 4\]; \[3, 4\].*pad_to.*compile=False"
        ):
            compiled(state, torch.ones(3, 4))
        compiled(state, torch.ones(4, 4))


def test_other_structures_types_and_strides_are_no_other_shapes(state):
    step = ft.compile(ft.train_step, backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ShapeWarning)
        for batch in (torch.ones(2, 4), torch.ones(4, 2).T, torch.ones(2, 8)[:, ::2], torch.ones(2, 4).half()):
            step(state, batch)
    assert step.runner.compilations["update"] == 4


@pytest.mark.filterwarnings("ignore::functrain.compiler.shapes.ShapeWarning")
def test_beyond_the_limit_the_program_unused_for_longest_is_dropped(state, monkeypatch):
    monkeypatch.setattr(runner, "LIMIT", 3)
    step = ft.compile(ft.train_step, backend="eager")

    def compiled(*lengths):
        before = step.runner.compilations["update"]
        for length in lengths:
            step(state, torch.ones(length, 4))
        return step.runner.compilations["update"] - before

    assert compiled(1, 2, 3, 1) == 3
    assert compiled(4) == 1  # in place of 2
    assert compiled(1, 3, 4) == 0
    assert compiled(2) == 1  # in place of 1
    assert len(step.runner._programs) == 3
    expected = ft.train_step(state, torch.ones(1, 4))[0]
    torch.testing.assert_close(step(state, torch.ones(1, 4))[0].params, expected.params)
