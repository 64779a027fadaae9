"""A model's summary: layers, operations and memory, without a value computed."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.diagnostics.flops import count_flops
from functrain.diagnostics.without_values import LiveMemory
from functrain.foundation.trees import nbytes, tensors
from functrain.foundation.units import size


def image_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))


def image_batch() -> tuple[Tensor, Tensor]:
    return torch.randn(6, 1, 8, 8), torch.zeros(6, dtype=torch.int64)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block = nn.Embedding(11, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 11)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.block(self.embed(tokens)))


def text_batch() -> tuple[Tensor, Tensor]:
    return torch.randint(0, 11, (3, 5)), torch.randint(0, 11, (3, 5))


STATES = [
    (image_model, ft.classification, image_batch, {}),
    (image_model, ft.classification, image_batch, {"accumulate": 3, "ema_decay": 0.9, "clip_norm": 1.0}),
    (image_model, ft.classification, image_batch, {"precision": "bf16"}),
    (image_model, ft.classification, image_batch, {"precision": "fp64"}),
    (Attention, ft.language_modelling, text_batch, {}),
]


def state_of(model: Any, objective: Any, options: dict[str, Any]) -> ft.TrainState:
    return ft.init_state(model(), objective(), ft.optim.adamw(1e-3), **options)


@pytest.mark.parametrize(("model", "objective", "batch", "options"), STATES)
def test_operations_and_memory_are_those_of_a_real_step(model: Any, objective: Any, batch: Any, options: Any) -> None:
    state, given = state_of(model, objective, options), batch()
    summary = ft.model_summary(state, given)
    memory = LiveMemory()
    memory.count(tensors((state, given)))
    with memory:
        ft.train_step(state, given, end_window=True)
    window = count_flops(state, given, end_window=True)
    within = count_flops(state, given) if state.recipe.accumulate > 1 else 0
    assert summary.problem == ""
    assert summary.flops == window + (state.recipe.accumulate - 1) * within
    assert summary.memory is not None
    assert summary.memory.step == memory.peak
    assert summary.memory.state == nbytes(state)
    assert summary.memory.gradients == sum(p.nbytes for p in state.params.values())


def test_layers_have_the_shapes_of_a_real_forward_pass() -> None:
    model, shapes = image_model(), {}
    for path, module in model.named_modules():
        module.register_forward_hook(lambda _, __, output, path=path: shapes.__setitem__(path, str(list(output.shape))))
    model(image_batch()[0])
    summary = ft.model_summary(image_model(), image_batch()[0])
    assert {layer.path: layer.output for layer in summary.layers} == shapes
    assert [layer.parameters for layer in summary.layers] == [1498, 40, 8, 0, 0, 1450]


class Odd(nn.Module):
    """Takes two arguments, calls one layer twice and another never, and returns a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.never, self.lazy = nn.Linear(4, 4), nn.Linear(3, 3), nn.LazyLinear(7)
        self.same = nn.Linear(4, 4, bias=False)
        self.same.weight = self.twice.weight
        self.twice.bias.requires_grad_(False)

    def forward(self, x: Tensor, *, y: Tensor) -> dict[str, Any]:
        return {"out": self.lazy(self.same(self.twice(self.twice(x)))), "both": (x, y)}


def test_unusual_models_are_summarised_and_not_changed() -> None:
    model = Odd()
    summary = ft.model_summary(model, {"x": torch.ones(2, 4), "y": torch.ones(3)})
    found = {layer.path: layer for layer in summary.layers}
    assert summary.problem == ""
    assert nn.parameter.is_lazy(model.lazy.weight)
    assert (summary.parameters, summary.trainable) == (16 + 4 + 12 + 35, 16 + 12 + 35)
    assert (found["twice"].calls, found["never"].calls, found["same"].tied) == (2, 0, ("twice.weight",))
    assert found[""].output == "both/0 [2, 4], both/1 [3], out [2, 7]"
    text = str(summary)
    for words in ("called 2 times", "not called", "tied to twice.weight", "67, 63 of them trainable"):
        assert words in text


def test_nothing_is_allocated_for_a_model_without_memory() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(100_000, 100_000), nn.ReLU())
    summary = ft.model_summary(model, torch.empty(64, 100_000, device="meta"))  # 40 GB of parameters
    assert summary.problem == ""
    assert summary.flops == 2 * 64 * 100_000**2
    assert summary.layers[1].output == "[64, 100000]"


def test_a_model_that_asks_for_values_is_told_with_its_line() -> None:
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if x.sum().item() > 0 else self.layer(-x)

    state = ft.init_state(Asks(), ft.classification(), ft.optim.sgd(0.1))
    batch = (torch.ones(2, 4), torch.zeros(2, dtype=torch.int64))
    for summary in (ft.model_summary(state, batch), ft.model_summary(Asks(), torch.ones(2, 4))):
        assert "does not run on tensors without values" in summary.problem
        assert 'x.sum().item() > 0 else self.layer(-x)"' in summary.problem
        assert (summary.flops, summary.parameters) == (None, 15)
        assert "not known: the model does not run" in str(summary)
    assert ft.train_step(state, batch)[0].step == 1  # nothing of the trial is left in the model


def test_a_model_keeps_nothing_of_the_trial() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.kept = nn.Linear(4, 3), None

        def forward(self, x: Tensor) -> Tensor:
            self.kept = torch.ones(4) if self.kept is None else self.kept
            return self.layer(x * self.kept)

    model = Keeps()
    ft.model_summary(model, torch.ones(2, 4))
    assert model.kept is None
    state = ft.init_state(model, ft.classification(), ft.optim.sgd(0.1))
    batch = (torch.ones(2, 4), torch.zeros(2, dtype=torch.int64))
    ft.model_summary(state, batch)
    assert ft.train_step(state, batch)[1]["loss"].item() > 0


def test_only_so_many_levels_are_shown() -> None:
    nested = nn.Sequential(nn.Sequential(nn.Sequential(nn.Linear(2, 2))))
    lines = {depth: str(ft.model_summary(nested, depth=depth)).partition("\n\n")[0].count("\n") for depth in range(5)}
    assert lines == {0: 1, 1: 2, 2: 3, 3: 4, 4: 4}
    assert len(json.dumps(ft.model_summary(nested, depth=0).to_json()["layers"])) > 100
    with pytest.raises(ValueError, match="depth must be a whole number, 0 or more; got -1"):
        ft.model_summary(nested, depth=-1)
    with pytest.raises(TypeError, match="takes a module or a TrainState, got int"):
        ft.model_summary(3)  # type: ignore[arg-type]


def test_parts_of_a_batch_take_less_memory() -> None:
    state, batch = state_of(image_model, ft.classification, {}), (torch.ones(64, 1, 8, 8), torch.zeros(64).long())
    whole, parts = (ft.model_summary(state, batch, micro_batch=rows).memory for rows in (None, 2))
    assert whole is not None
    assert parts is not None
    assert whole.step is not None
    assert parts.step is not None
    assert parts.step < whole.step
    assert size(whole.state).endswith("kB")
