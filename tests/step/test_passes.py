"""A pass over batches: several at a time give the bits of one at a time, and the state is prepared once."""

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.compiler import CompilingRunner
from functrain.evaluation import evaluate, metrics, predict, prediction
from functrain.foundation.torch_internals import own_parameters
from functrain.metrics.ones import are_ones, ones
from functrain.metrics.totals import sum_of
from functrain.objectives import losses
from functrain.step import Evaluation
from functrain.step import evaluate as evaluate_module
from functrain.step.execution import Runner, eager


class Sampling(nn.Module):
    """Draws in evaluation mode: for each batch, or only for those with a large number."""

    def __init__(self, above):
        super().__init__()
        self.head, self.above = nn.Linear(25, 4), above

    def forward(self, x):
        x = x.flatten(1)
        return self.head(x + torch.rand_like(x)) if x.max() > self.above else self.head(x)


class Counting(nn.Module):
    """Changes its buffers and the places of its parameters in evaluation mode, and gives several outputs."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(25, 4)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("level", torch.zeros(25))

    def forward(self, x):
        x = x.flatten(1)
        self.seen = self.seen + 1
        self.level.mul_(0.5).add_(x.mean(0))
        own_parameters(self.head)["weight"] = self.head.weight * 1.5
        return {"logits": self.head(x - self.level) * self.seen, "level": self.level}


class OfLists(nn.Module):
    """Images of several sizes in a list."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 4)

    def forward(self, *images):
        return self.head(torch.stack([image.mean() for image in images])[:, None])


def of_lists():
    def objective(model, batch):
        images, labels = batch
        return ft.classification()(model, (images, torch.stack(labels)))

    objective.takes_lists = True
    return objective


def by_class(outputs, targets):
    return (outputs.argmax(1) == targets).double() * (targets == 2)


def images(seed, size=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 1, 5, 5, generator=generator), torch.randint(4, (size,), generator=generator)


def padded(batch):
    return (*batch, torch.tensor([1.0, 1.0, 0.5, 1.0, 0.0, 0.0]))


PLAIN = [images(seed) for seed in range(5)]
BATCHES = {
    "tuples": PLAIN,
    "ragged": [*PLAIN, images(9, 4)],
    "weighted": [*PLAIN, padded(images(9))],
    "whole weights": [(*batch, ones(torch.Size([6]), torch.device("cpu"))) for batch in PLAIN],
    "labels ignored": [(x, torch.where(y == 1, -100, y)) for x, y in PLAIN],
    "mappings": [{"inputs": x, "targets": y} for x, y in PLAIN],
    "named": [{"x": x, "labels": y} for x, y in PLAIN],
    "float64": [(x.double(), y) for x, y in PLAIN],
    "nothing counts": [(x, torch.full_like(y, -100)) for x, y in PLAIN],
}


def state_of(model, objective=None, **options):
    return ft.init_state(model, objective or ft.classification(), ft.optim.sgd(0.1), **options)


RUNNERS = {"eager": lambda: eager, "aot_eager": lambda: CompilingRunner(backend="aot_eager")}
every_runner = pytest.mark.parametrize("runner", RUNNERS)


def assert_law(bits, state, batches, runner, **options):
    run = RUNNERS[runner]()
    single = [ft.eval_step(state, batch, run=run, **options) for batch in batches]
    together = Evaluation(state, run=run, **options).each(batches)
    assert bits(together) == bits(single)
    assert [totals.names for totals in together] == [totals.names for totals in single]
    assert bits(sum_of(together)) == bits(sum(single[1:], single[0]))


@every_runner
@pytest.mark.parametrize("kind", BATCHES)
def test_batches_together_give_the_bits_of_single_ones(kind, runner, everything_state, bits):
    assert_law(bits, everything_state(), BATCHES[kind], runner)


@every_runner
@pytest.mark.parametrize(
    ("objective", "options"),
    [
        (ft.supervised(nn.functional.cross_entropy, {"two": by_class}), {}),
        (ft.classification("focal", class_weights=(1.0, 2.0, 3.0, 4.0)), {"precision": "bf16"}),
        (ft.classification("dice"), {"precision": "fp64"}),
    ],
)
def test_so_they_do_with_any_objective_and_the_average(objective, options, runner, everything_state, bits):
    state, _ = ft.train_step(everything_state(objective=objective, ema_decay=0.5, **options), images(7))
    assert_law(bits, state, BATCHES["weighted"], runner, ema=True)


def test_so_they_do_with_lists_of_images(bits):
    batches = [([image[:, : 3 + i % 3] for i, image in enumerate(x)], list(y)) for x, y in PLAIN]
    assert_law(bits, state_of(OfLists(), of_lists()), batches, "eager")


@pytest.mark.parametrize("model", [Counting, lambda: Sampling(-9), lambda: Sampling(2.5), lambda: Sampling(9)])
def test_so_they_do_with_a_model_that_draws_or_changes_itself_in_evaluation_mode(model, bits):
    state = state_of(model())
    before, generator = bits(state), torch.get_rng_state()
    assert_law(bits, state, BATCHES["tuples"], "eager")
    assert bits(state) == before
    assert torch.equal(torch.get_rng_state(), generator)


def test_inductors_program_does_too(everything_state, bits):
    run, state = CompilingRunner(), everything_state()
    single = [ft.eval_step(state, batch, run=run) for batch in PLAIN]
    assert bits(Evaluation(state, run=run).each(PLAIN)) == bits(single)


@pytest.mark.parametrize("compile", [False, True])
def test_a_list_is_evaluated_and_predicted_as_an_iterable_one_by_one(compile, everything_state, monkeypatch, bits):
    for module in (metrics, prediction):
        monkeypatch.setattr(module, "runner_for", lambda compile: RUNNERS["aot_eager" if compile else "eager"]())
    state = everything_state()
    for kind in ("tuples", "ragged", "named"):
        batches = BATCHES[kind]
        assert evaluate(state, batches, compile=compile) == evaluate(state, iter(batches), compile=compile)
        found, expected = (predict(state, each, compile=compile) for each in (batches, iter(batches)))
        assert bits(found) == bits(expected)


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(25, 4)

    def forward(self, x):
        if x.shape[0] == 5:
            self.head.weight = None
            raise ValueError("five of them")
        return self.head(x.flatten(1))


def test_a_model_that_raises_in_a_later_batch_changes_nothing(bits):
    state, batches = state_of(Failing()), [*PLAIN[:3], images(5, 5), images(6)]
    before, generator, good = bits(state), torch.get_rng_state(), evaluate(state, PLAIN)
    with pytest.raises(ValueError, match="five of them") as caught:
        Evaluation(state).each(batches)
    assert caught.value.__context__ is None
    assert bits(state) == before
    assert torch.equal(torch.get_rng_state(), generator)
    assert evaluate(state, PLAIN) == good


def test_the_batch_that_an_objective_cannot_take_is_named(everything_state):
    with pytest.raises(ft.errors.BatchError, match="list of 2"):
        Evaluation(everything_state()).each([PLAIN[0], (["a", "b"], PLAIN[1][1])])


def test_it_ends_before_the_batch_for_which_it_is_told_to(everything_state):
    answers = iter([True, True, True, False])
    assert len(Evaluation(everything_state()).each(PLAIN, lambda: next(answers, False))) == 3


@pytest.mark.parametrize("compile", [False, True])
def test_a_pass_prepares_its_state_once(compile, everything_state, monkeypatch):
    prepared, examined = [], []
    plain, examine = evaluate_module.to_evaluate, CompilingRunner._examine
    monkeypatch.setattr(evaluate_module, "to_evaluate", lambda *a, **k: prepared.append(1) or plain(*a, **k))
    monkeypatch.setattr(CompilingRunner, "_examine", lambda *a, **k: examined.append(1) or examine(*a, **k))
    monkeypatch.setattr(metrics, "runner_for", lambda compile: RUNNERS["aot_eager" if compile else "eager"]())
    evaluate(everything_state(), PLAIN, compile=compile)
    assert (len(prepared), len(examined)) == (1, int(compile))


def test_a_function_in_place_of_a_runner_is_called_for_each_batch(everything_state, bits):
    called = []

    def run(*arguments, **options):
        called.append(1)
        return eager(*arguments, **options)

    state = everything_state()
    assert bits(Evaluation(state, run=run).each(PLAIN)) == bits(Evaluation(state).each(PLAIN))
    assert len(called) == len(PLAIN)
    assert not isinstance(run, Runner)


# What is known to be 1, and labels that are known to count, need no arithmetic: the bits are the same.


class Head(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.head, self.name = nn.Linear(4, 8), name

    def forward(self, x):
        return self.head(x).unflatten(1, (4, 2)) if self.name in losses.CLASSES else self.head(x)


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("name", sorted({*losses.CLASSES, *losses.BINARY, *losses.VALUES}))
def test_weights_that_are_known_to_be_1_change_no_bit_of_an_update(name, ignored, monkeypatch, bits):
    x, known = torch.randn(6, 4), ones(torch.Size([6]), torch.device("cpu"))
    y = torch.randint(4, (6, 2)) if name in losses.CLASSES else torch.randint(2, (6, 8)).float()
    if ignored:
        y[0] = -100
    if name in losses.CLASSES:
        objective = ft.classification(name)
    else:
        objective = ft.binary_classification(name) if name in losses.BINARY else ft.supervised(name)
    state = ft.init_state(Head(name), objective, ft.optim.sgd(0.1))
    quick = ft.train_step(state, (x, y, known)), ft.eval_step(state, (x, y, known))
    assert are_ones(known)
    monkeypatch.setattr("functrain.objectives.losses.labels.is_readable", lambda _: False)
    slow = ft.train_step(state, (x, y, known.clone())), ft.eval_step(state, (x, y, known.clone()))
    assert bits(quick) == bits(slow)


class Writing(nn.Module):
    """Writes into its inputs."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(25, 4)

    def forward(self, x):
        return self.head(x.add_(1.0).flatten(1))


@pytest.mark.parametrize("compiled", [{"compile": False}, {"compile": True, "backend": "aot_eager"}])
def test_a_model_that_writes_into_its_inputs_changes_no_batch_of_the_caller(compiled, bits):
    batches = [images(0), images(1)]
    before = bits(batches)
    torch.manual_seed(0)
    state = ft.init_state(Writing(), ft.classification(), ft.optim.sgd(0.1))
    state = ft.fit(state, batches, eval_loader=batches, epochs=2, progress=False, **compiled).state
    found = [[function(state, batches) for _ in range(2)] for function in (evaluate, predict)]
    assert bits(batches) == before
    assert all(bits(first) == bits(second) for first, second in found)
