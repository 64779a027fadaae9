"""A model that calls `torch.utils.checkpoint` itself trains with the bits of one that does not, dropout included."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import functrain as ft
from functrain.compiler.draws import KeptDraws
from functrain.compiler.layout import Layout
from functrain.compiler.trace import trace
from functrain.foundation.errors import FunctrainError
from functrain.foundation.trees import flatten, tensors
from functrain.step.train import UPDATE


class Net(nn.Module):
    """Checkpoints as transformers does: a method switches it on, and each block calls a partial function."""

    def __init__(self, norm=False):
        super().__init__()
        self.first, self.head, self.dropout = nn.Linear(3, 8), nn.Linear(8, 1), nn.Dropout(0.3)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8) if norm else nn.Dropout(0.4), nn.Tanh()) for _ in range(2)
        )
        self.run = None

    def gradient_checkpointing_enable(self, use_reentrant):
        self.run = partial(checkpoint, use_reentrant=use_reentrant)
        return self

    def forward(self, x):
        x = self.dropout(self.first(x))
        for block in self.blocks:
            x = block(x) if self.run is None or not self.training else self.run(block, x)
            x = self.dropout(x)
        return self.head(x)


X = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
BATCH = X, X.sum(1, keepdim=True)
VARIANTS = [False, True]


def make_state(model, **options):
    return ft.init_state(model, ft.regression(), ft.optim.adamw(1e-2), **options)


def make_net(**options):
    torch.manual_seed(0)
    return Net(**options)


def update_after_two(step, state):
    for _ in range(2):
        state, metrics = step(state, BATCH)
    return state.replace(recipe=None), metrics


@pytest.mark.parametrize("options", [{}, {"precision": "bf16"}, {"accumulate": 2, "activations": True}], ids=str)
@pytest.mark.parametrize("use_reentrant", VARIANTS)
def test_eager_steps_have_the_bits_of_steps_without(use_reentrant, options):
    model = make_net()
    expected = update_after_two(ft.train_step, make_state(model, **options))
    state = make_state(copy.deepcopy(model).gradient_checkpointing_enable(use_reentrant), **options)
    assert ft.diff_states(update_after_two(ft.train_step, state), expected) == []


@pytest.mark.parametrize("use_reentrant", VARIANTS)
def test_traced_steps_too(use_reentrant):
    model, step = make_net(), ft.compile(ft.train_step, backend="eager")
    expected = update_after_two(step, make_state(model))
    state = make_state(copy.deepcopy(model).gradient_checkpointing_enable(use_reentrant))
    assert ft.diff_states(update_after_two(step, state), expected) == []


@pytest.mark.parametrize("use_reentrant", VARIANTS)
def test_buffers_are_torchs_which_counts_the_second_run(use_reentrant):
    model = make_net(norm=True).gradient_checkpointing_enable(use_reentrant)
    model.dropout.p = 0.0
    state, reference = make_state(model, precision="fp64"), copy.deepcopy(model).double()
    after, _ = ft.train_step(state, BATCH)
    traced, _ = ft.compile(ft.train_step, backend="eager")(state, BATCH)
    nn.functional.mse_loss(reference(BATCH[0].double()), BATCH[1].double()).backward()
    for name, expected in reference.named_buffers():
        torch.testing.assert_close(after.buffers[name], expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(traced.buffers[name], expected, rtol=1e-12, atol=1e-12)
    assert after.buffers["blocks.0.1.num_batches_tracked"].item() == 2


def test_a_checkpointed_part_whose_inputs_need_no_gradient_is_unused_as_in_torch():
    """With use_reentrant=True torch gives its parameters no gradient, and warns."""

    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x):
            return self.head(checkpoint(self.body, x, use_reentrant=True))

    state = make_state(First())
    with pytest.warns(UserWarning, match="None of the inputs have requires_grad=True"):
        after, _ = ft.train_step(state, BATCH)
    assert torch.equal(after.params["body.weight"], state.params["body.weight"])
    assert not torch.equal(after.params["head.weight"], state.params["head.weight"])


@pytest.mark.parametrize("use_reentrant", VARIANTS)
def test_within_a_vmap_it_is_refused_by_name(use_reentrant):
    state = make_state(make_net().gradient_checkpointing_enable(use_reentrant))
    with pytest.raises(FunctrainError, match=r"^Net has code that torch\.func cannot differentiate"):
        torch.func.vmap(lambda x: ft.train_step(state, (x, BATCH[1]))[1]["loss"], randomness="different")(
            X.expand(2, 8, 3)
        )


@pytest.mark.slow
def test_a_sequence_in_segments_is_compiled_by_inductor():
    class Sequence(nn.Module):
        def __init__(self, segments):
            super().__init__()
            self.segments = segments
            self.layers = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 4), nn.Dropout(0.5))

        def forward(self, x):
            return checkpoint_sequential(self.layers, self.segments, x, use_reentrant=False).sum(1, keepdim=True)

    torch.manual_seed(0)
    model = Sequence(2)
    expected, _ = ft.train_step(make_state(model), BATCH)
    other = copy.deepcopy(model)
    other.segments = 1
    steps = [ft.compile(ft.train_step)(make_state(each), BATCH)[0].params for each in (model, other)]
    for name in expected.params:
        torch.testing.assert_close(steps[0][name], steps[1][name], rtol=1e-6, atol=1e-7)


def test_draws_that_do_not_come_again_are_not_kept_in_the_graph():
    state = make_state(make_net())
    state_leaves, spec = flatten(state)
    batch_leaves, batch_spec = flatten(BATCH)
    layouts = Layout.of(state_leaves, spec), Layout.of(batch_leaves, batch_spec)
    graph = trace(UPDATE, *layouts, tensors(state) + tensors(BATCH), donate=False).module.graph
    drawn = [node for node in graph.nodes if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())]
    assert len(drawn) == 5
    assert not any(user.target is torch.ops.aten.clone.default for node in drawn for user in node.users)


def test_a_generator_put_back_gives_the_first_draws_again():
    with torch.random.fork_rng(), KeptDraws("update"):
        before = torch.get_rng_state()
        first, second = torch.rand(3), torch.rand(3)
        torch.set_rng_state(before)
        assert torch.equal(torch.rand(3), first)
        assert torch.equal(torch.rand(3), second)
        assert not torch.equal(torch.rand(3), second)
