"""What cannot be one fixed graph is refused, with the user's line and the way out."""

from pathlib import Path

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.foundation.errors import TracingError


class Model(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.register_buffer("counter", torch.tensor(0))
        self.rule = forward

    def forward(self, x):
        return self.rule(self, x)


def branch(model, x):
    if x.sum() > 0:  # branch
        x = x * 2
    return model.head(x)


def item(model, x):
    return model.head(x) * x.sum().item()  # item


def mask(model, x):
    return model.head(x[x[:, 0] > -9])  # mask


def loop(model, x):
    for _ in range(int(x.abs().max())):  # loop
        x = x + 1
    return model.head(x)


def numpy(model, x):
    return model.head(x) * float(x.detach().numpy().sum())  # numpy


def to_list(model, x):
    return model.head(x) * sum(x[0].tolist())  # to_list


@pytest.mark.parametrize("rule", [branch, item, mask, loop, numpy, to_list])
def test_data_dependence_is_refused_with_the_users_line_and_the_way_out(rule, vectors):
    state = ft.init_state(Model(rule), ft.classification(), ft.optim.sgd(0.1))
    step = ft.compile(ft.train_step, backend="aot_eager")
    with pytest.raises(TracingError) as caught:
        step(state, vectors())
    message = str(caught.value)
    source = Path(__file__).read_text().splitlines()
    line = next(n for n, text in enumerate(source, 1) if text.endswith(f"# {rule.__name__}"))
    assert message.startswith("the update step cannot be compiled: ")
    assert f"{__file__}, line {line}, " in message
    assert "torch.where" in message
    assert "compile=False" in message
    assert not step.runner.compilations
    if rule not in (numpy, to_list):  # to which torch.func.grad itself says no
        assert ft.train_step(state, vectors())[0].step == 1  # without compiling it runs


def test_a_line_of_torchs_optimizer_is_named_where_no_line_is_the_users(vectors):
    optimizer = ft.optim.from_torch(torch.optim.Adafactor, eps=(1e-30, 1e-3))
    state = ft.init_state(nn.Linear(4, 3), ft.classification(), optimizer)
    with pytest.raises(TracingError, match=r"cannot be compiled: \S*_adafactor.py, line \d+, .* needs the value of a"):
        ft.compile(ft.train_step, backend="aot_eager")(state, vectors())


def test_a_line_of_the_objective_is_named_too(vectors):
    def objective(model, batch):
        loss = model(batch[0]).sum()
        return ft.Loss(loss if loss > 0 else -loss, 6.0)  # objective

    state = ft.init_state(nn.Linear(4, 3), objective, ft.optim.sgd(0.1))
    for step in (ft.train_step, ft.eval_step):
        with pytest.raises(TracingError, match=r"test_trace.py, line \d+, .*# objective"):
            ft.compile(step, backend="aot_eager")(state, vectors())


def test_a_batchs_python_number_cannot_be_read_and_the_message_says_to_make_it_a_tensor(vectors):
    def objective(model, batch):
        return ft.Loss((model(batch["x"]) ** 2).sum() * batch["factor"], 6.0)

    state = ft.init_state(nn.Linear(4, 3), objective, ft.optim.sgd(0.1))
    step = ft.compile(ft.train_step, backend="aot_eager")
    with pytest.raises(TracingError, match="a value of the batch that is no tensor"):
        step(state, {"x": vectors()[0], "factor": 2.0})
    x = vectors()[0]
    tensor = step(state, {"x": x, "factor": torch.tensor(2.0)})[1]["loss"].item()
    assert tensor == pytest.approx(ft.train_step(state, {"x": x, "factor": 2.0})[1]["loss"].item())


def test_a_batchs_names_and_ids_are_let_through(vectors):
    def objective(model, batch):
        return ft.Loss((model(batch["x"]) ** 2).sum(), 6.0)

    state = ft.init_state(nn.Linear(4, 3), objective, ft.optim.sgd(0.1))
    step = ft.compile(ft.train_step, backend="aot_eager")
    for name in ("first", "second"):
        state, _ = step(state, {"x": vectors()[0], "name": name})
    assert step.runner.compilations["update"] == 1


def test_a_buffer_that_changes_its_type_is_refused_by_name(vectors):
    def rule(model, x):
        model.counter = model.counter + 0.5
        return model.head(x)

    state = ft.init_state(Model(rule), ft.classification(), ft.optim.sgd(0.1))
    with pytest.raises(
        TracingError, match=r"turns 'buffers/counter' from torch.int64 \[\] on cpu into torch.float32 \[\]"
    ):
        ft.compile(ft.train_step, backend="aot_eager")(state, vectors())


def test_an_error_of_the_model_itself_comes_through_as_it_is(vectors):
    def rule(model, x):
        raise KeyError("mine")

    state = ft.init_state(Model(rule), ft.classification(), ft.optim.sgd(0.1))
    with pytest.raises(KeyError, match="mine"):
        ft.compile(ft.train_step, backend="aot_eager")(state, vectors())


def test_tensors_that_a_model_closes_over_become_constants(vectors):
    factor = torch.tensor([1.0, 2.0, 3.0])
    state = ft.init_state(Model(lambda model, x: model.head(x) * factor), ft.classification(), ft.optim.sgd(0.1))
    compiled, _ = ft.compile(ft.train_step, backend="aot_eager")(state, vectors())
    eager, _ = ft.train_step(state, vectors())
    torch.testing.assert_close(compiled.params, eager.params)
