"""A compiled step is the step: same results, one program, compiled once."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import functrain as ft
from functrain.compiler import backends, runner
from functrain.compiler.packages import Loaded
from functrain.foundation import trees
from functrain.foundation.errors import FunctrainError
from functrain.step.execution import eager
from functrain.step.scaling import LossScale

BACKEND = "aot_eager"
SETTINGS = {
    "window": {"accumulate": 2, "ema_decay": 0.9, "clip_norm": 0.5, "clip_value": 0.3},
    "dropout": {"dropout": 0.4},
    "adamw": {"optimizer": ft.optim.adamw(0.01)},
}


@pytest.fixture(scope="module")
def plain(perceptron_state):
    """A state and its compiled step, shared by the tests that need nothing special."""
    return perceptron_state(), ft.compile(ft.train_step, backend=BACKEND)


@pytest.fixture(scope="module")
def random(perceptron_state):
    """The same with dropout."""
    return perceptron_state(dropout=0.4), ft.compile(ft.train_step, backend=BACKEND)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_compiled_run_is_the_eager_run(settings, perceptron_state, vectors, assert_close):
    eager_state = state = perceptron_state(**settings)
    step = ft.compile(ft.train_step, backend=BACKEND)
    for seed in range(6):
        state, metrics = step(state, vectors(seed))
        eager_state, eager_metrics = ft.train_step(eager_state, vectors(seed))
        assert_close((state, metrics), (eager_state, eager_metrics))
    assert dict(step.runner.compilations) == {"update": 1} | ({"accumulate": 1} if "accumulate" in settings else {})


def test_batches_that_differ_in_which_part_is_a_tensor_have_programs_of_their_own(perceptron_state, vectors):
    def objective(model, batch):
        return ft.classification()(model, next(part for part in batch if isinstance(part, tuple)))

    state = perceptron_state(objective=objective)
    step = ft.compile(ft.train_step, backend="eager")
    step(state, (vectors(), "first"), examples=6)
    step(state, ("last", vectors()), examples=6)
    assert step.runner.compilations["update"] == 2


def test_compiled_fp16_scales_refuses_and_counts_as_eager_does(perceptron_state, vectors, assert_close):
    state = eager_state = perceptron_state(precision="fp16")
    step = ft.compile(ft.train_step, backend=BACKEND)
    for seed, scale in enumerate([2.0**10, 2.0**100, 2.0**10]):
        loss_scale = LossScale(torch.tensor(scale), torch.tensor(1999, dtype=torch.int32))
        state, metrics = step(state.replace(loss_scale=loss_scale), vectors(seed))
        eager_state, eager_metrics = ft.train_step(eager_state.replace(loss_scale=loss_scale), vectors(seed))
        assert metrics["skipped"].item() == eager_metrics["skipped"].item() == float(scale == 2.0**100)
        assert_close(state.loss_scale, eager_state.loss_scale, 0)
        assert_close(state, eager_state, 2**-9)  # half precision may round on either side of a tie
    assert step.runner.compilations["update"] == 1


def test_the_same_arguments_give_the_same_bits_from_run_to_run(random, vectors, bits):
    first, step = random
    again = ft.compile(ft.train_step, backend=BACKEND)
    runs = []
    for compiled in (step, step, again):
        state = first
        for seed in range(3):
            torch.manual_seed(len(runs))
            state, metrics = compiled(state, vectors(seed))
        runs.append(bits((state, metrics)))
    assert runs[0] == runs[1] == runs[2]


def test_a_compiled_step_changes_neither_its_arguments_nor_the_global_generator(random, vectors, bits):
    state, step = random
    batch = vectors()
    before = bits(state), bits(batch), torch.get_rng_state().tolist()
    step(state, batch)
    fresh = ft.compile(ft.train_step, backend=BACKEND)
    fresh(state, batch)  # nor does the compilation
    assert (bits(state), bits(batch), torch.get_rng_state().tolist()) == before


def test_other_seeds_and_steps_draw_other_dropout_from_the_same_program(random, vectors):
    state, step = random
    losses = {step(s, vectors())[1]["loss"].item() for s in (state, state.replace(step=7), state.replace(key=5))}
    assert len(losses) == 3
    assert step.runner.compilations["update"] == 1


def test_one_compilation_serves_every_value(plain, vectors):
    state, step = plain
    first = state
    rates = set()
    for seed in range(12):
        state, metrics = step(state, vectors(seed))
        rates.add(metrics["lr"].item())
    assert len(rates) == 12
    step(first.replace(step=1000, epoch=3, batch_idx=8), vectors())
    leaf_list, spec = trees.flatten(state)
    step(trees.unflatten(spec, leaf_list), vectors())
    step(trees.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, state), vectors())
    assert dict(step.runner.compilations) == {"update": 1}


def test_a_new_shape_is_a_second_compilation_and_an_old_one_is_none(perceptron_state, vectors):
    state, step = perceptron_state(), ft.compile(ft.train_step, backend="eager")
    for size, count in [(6, 1), (4, 2), (6, 2), (4, 2)]:
        state, _ = step(state, vectors(0, size))
        assert step.runner.compilations["update"] == count
    state, _ = step(state, (*vectors(), torch.ones(6)))  # a weight is another structure
    assert step.runner.compilations["update"] == 3
    inputs, targets = vectors()
    step(state, (inputs.half(), targets))  # and what is cast, another program
    assert step.runner.compilations["update"] == 4


def test_a_batch_that_lies_otherwise_in_memory_is_computed_right(perceptron_state, vectors, assert_close):
    """What was traced as a view of contiguous memory would read a transposed batch wrongly."""
    step = ft.compile(ft.train_step, backend=BACKEND)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    state = ft.init_state(model, ft.classification(), ft.optim.sgd(0.1), precision="fp64")
    y = torch.tensor([0, 1])
    for x in (
        torch.randn(2, 2, 3),
        torch.randn(2, 3, 2).mT,
        torch.randn(2, 2, 6)[..., ::2],
        torch.randn(2, 3).expand(2, 2, 3),
        torch.randn(2, 2, 3),
    ):
        assert_close(step(state, (x, y)), ft.train_step(state, (x, y)))
    assert step.runner.compilations["update"] == 4


def test_a_state_that_lies_otherwise_in_memory_is_computed_right(vectors, assert_close):
    model = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 4, 2), nn.Flatten(), nn.Linear(4, 3))
    state = ft.init_state(model, ft.classification(), ft.optim.sgd(0.1, momentum=0.9), precision="fp64")
    step = ft.compile(ft.train_step, backend=BACKEND)
    state, _ = step(state, vectors())
    strange = state.params["3.weight"].t().contiguous().t()
    for weight in (strange, torch.ones(1, dtype=torch.float64).expand(3, 4), torch.randn(3, 8).double()[:, ::2]):
        changed = state.replace(params={**state.params, "3.weight": weight})
        new, _ = step(changed, vectors())
        assert_close(new, ft.train_step(changed, vectors())[0])
        assert_close(step(new, vectors()), ft.train_step(new, vectors()))


def test_a_leaf_that_comes_back_transposed_is_put_as_it_was(vectors, assert_close):
    """The next step's program was compiled for the layout of the state, and is not asked about it again."""

    class Transposing(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3)
            self.register_buffer("sums", torch.zeros(4, 3))

        def forward(self, x):
            out = self.head(x)
            self.sums = self.sums + (out.detach().t() @ x).t()
            self.sums = self.sums.t().contiguous().t()
            return out

    state = ft.init_state(Transposing(), ft.classification(), ft.optim.sgd(0.1), precision="fp64", accumulate=3)
    step = ft.compile(ft.train_step, backend="eager")
    expected = state
    for seed in range(4):
        state, _ = step(state, vectors(seed))
        expected, _ = ft.train_step(expected, vectors(seed))
        assert state.accumulator.buffers["sums"].stride() == state.buffers["sums"].stride() == (3, 1)
        assert_close(state, expected)
    assert dict(step.runner.compilations) == {"accumulate": 1, "update": 1}


def test_accumulation_has_exactly_two_kinds_of_program(perceptron_state, vectors):
    state, step = perceptron_state(accumulate=3), ft.compile(ft.train_step, backend="eager")
    for seed in range(7):
        state, _ = step(state, vectors(seed), end_window=seed == 4)
    assert dict(step.runner.compilations) == {"accumulate": 1, "update": 1}
    assert (state.step, state.micro_step) == (2, 2)


def test_forward_backward_and_update_are_one_program_that_is_called_once_per_step(
    perceptron_state, vectors, monkeypatch
):
    graphs, calls = [], []
    build = backends.build

    def counting(graph, examples, **options):
        graphs.append(graph)
        program, how = build(graph, examples, **options)

        def run(tensors):
            calls.append(len(tensors))
            return program(tensors)

        return Loaded(run, how)

    monkeypatch.setattr(backends, "build", counting)
    state, step = perceptron_state(), ft.compile(ft.train_step, backend=BACKEND)
    for seed in range(4):
        state, _ = step(state, vectors(seed))
    assert len(graphs) == 1
    assert calls == [len(trees.tensors((state, vectors())))] * 4
    operations = " ".join(str(node.target) for node in graphs[0].graph.nodes)
    for part in ("addmm", "native_batch_norm_backward", "_log_softmax_backward_data", "where"):
        assert part in operations


def test_generators_are_seeded_only_for_programs_that_draw(perceptron_state, vectors, monkeypatch):
    seeded = []
    torch_seed = runner.torch_seed
    monkeypatch.setattr(runner, "torch_seed", lambda key, device: seeded.append(key) or torch_seed(key, device))
    for dropout in (0.0, 0.4):
        step, evaluate = (ft.compile(f, backend="eager") for f in (ft.train_step, ft.eval_step))
        state = perceptron_state(dropout=dropout)
        state, _ = step(state, vectors())
        evaluate(state, vectors())
        assert len(seeded) == (1 if dropout else 0)


def test_a_random_branch_makes_a_program_random(vectors, bits):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(torch.cond(x.sum() > -1e9, lambda x: F.dropout(x, 0.5), lambda x: x + 1, (x,)))

    state = ft.init_state(Branching(), ft.classification(), ft.optim.sgd(0.1))
    evaluate = ft.compile(ft.eval_step, backend="eager")
    before = torch.get_rng_state()
    first = evaluate(state, vectors())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert bits(evaluate(state, vectors())) == bits(first)


def test_compiled_evaluation_is_eager_evaluation_from_one_program(perceptron_state, vectors, assert_close):
    state = perceptron_state(dropout=0.4, ema_decay=0.5, accumulate=2)
    for seed in range(3):
        state, _ = ft.train_step(state, vectors(seed))
    evaluate = ft.compile(ft.eval_step, donate=True, backend=BACKEND)
    for ema in (False, True):
        assert_close(evaluate(state, vectors(), ema=ema), ft.eval_step(state, vectors(), ema=ema))
    assert dict(evaluate.runner.compilations) == {"evaluate": 1}
    assert state.step == 1  # evaluation donates nothing


class Odd(nn.Module):
    """What functional code finds hard: tied weights, in-place operations, hooks, buffers that forward re-assigns."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 5)
        self.mix = nn.Sequential(nn.Linear(5, 5), nn.ReLU(inplace=True), nn.BatchNorm1d(5))
        self.decoder = nn.Linear(5, 7, bias=False)
        self.decoder.weight = self.embed.weight
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("average", torch.zeros(5))
        self.mix[0].register_forward_hook(lambda module, inputs, output: output.mul_(1.5))

    def forward(self, tokens):
        self.calls = self.calls + 1
        h = self.embed(tokens)
        h = h + self.average
        self.average = 0.9 * self.average + 0.1 * h.mean((0, 1)).detach()
        b, t, c = h.shape
        return self.decoder(self.mix(h.view(b * t, c)).view(b, t, c))


@pytest.mark.parametrize("donate", [False, True])
def test_odd_models_train_compiled_as_they_do_in_plain_torch(donate):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Odd().double()
    state = ft.init_state(model, ft.language_modelling(), ft.optim.sgd(0.5), precision="fp64")
    step = ft.compile(ft.train_step, donate=donate, backend=BACKEND)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(4):
        tokens = torch.randint(7, (3, 6))
        optimizer.zero_grad()
        F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()
        state, _ = step(state, (tokens, tokens))
    assert set(state.params) == {name for name, _ in model.named_parameters()}
    for name, p in model.named_parameters():
        torch.testing.assert_close(state.params[name], p.detach(), rtol=1e-11, atol=1e-13, msg=name)
    for name, b in model.named_buffers():
        torch.testing.assert_close(state.buffers[name], b, rtol=1e-11, atol=1e-13, msg=name)
    assert state.buffers["calls"].item() == 4


def test_a_step_of_ones_own_over_several_states_is_compiled_by_its_parts(perceptron_state, vectors, assert_close):
    def both(states, batch, *, run=eager):
        (left, left_metrics), (right, _) = (ft.train_step(state, batch, run=run) for state in states)
        return (left, right), left_metrics

    states = perceptron_state(), perceptron_state(optimizer=ft.optim.sgd(0.01))
    compiled = ft.compile(both, backend=BACKEND)
    assert_close(compiled(states, vectors()), both(states, vectors()))
    compiled(compiled(states, vectors())[0], vectors(1))
    assert compiled.runner.compilations["update"] == 2


def test_a_compiled_step_looks_like_the_step(plain):
    _, step = plain
    assert step.__name__ == "train_step"
    assert step.__doc__ == ft.train_step.__doc__
    assert list(inspect.signature(step).parameters)[:2] == ["state", "batch"]


def test_whoever_waits_for_a_compilation_is_told_before_it_starts(perceptron_state, vectors):
    step = ft.compile(ft.train_step, backend="eager")
    told = []
    step.runner.on_compile = lambda name: told.append((name, step.runner.compilations[name]))
    state = perceptron_state(accumulate=2)
    for seed in range(4):
        state, _ = step(state, vectors(seed))
    assert told == [("accumulate", 0), ("update", 0)]


def test_a_compiled_step_within_autocast_is_refused(plain, vectors):
    state, step = plain
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(FunctrainError, match=r"outside of torch\.autocast"):
        step(state, vectors())


@pytest.mark.parametrize("not_a_step", [lambda state, batch: None, nn.Linear(1, 1), "train_step"])
def test_what_is_no_step_is_refused(not_a_step):
    with pytest.raises(TypeError, match="compile takes train_step, eval_step or a step with a keyword argument `run`"):
        ft.compile(not_a_step)


def test_a_python_number_as_weight_or_metric_is_compiled(vectors, assert_close):
    def objective(model, batch):
        values = F.cross_entropy(model(batch[0]), batch[1], reduction="none")
        return ft.Loss(values.sum(), len(values), {"two": (2.0, 1), "half": 0.5 * len(values)})

    state = ft.init_state(nn.Linear(4, 3), objective, ft.optim.sgd(0.1), precision="fp64")
    step = ft.compile(ft.train_step, backend=BACKEND)
    new, metrics = step(state, vectors())
    assert_close((new, metrics), ft.train_step(state, vectors()))
    assert metrics["two"].item() == 2.0
    assert metrics["half"].item() == 0.5
