"""Steps in several threads have the bits of the same steps one after the other."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.foundation.keys import root_key, torch_seed
from functrain.foundation.summation import repeatable_sums
from functrain.step.network import Network

THREADS, UPDATES = 3, 4


@pytest.fixture(autouse=True)
def _often_interrupted():
    """Python changes threads 500 times as often as it would."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def in_threads(fn, arguments):
    def run(argument):
        torch.set_num_threads(1)
        return fn(argument)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, arguments))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 8)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.3)) for _ in range(2)))
        self.norm, self.head = nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.table(x).sum(1))))


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(7, (12, 4), generator=generator), torch.randint(3, (12,), generator=generator)


def states(**options):
    first = ft.init_state(Net(), ft.classification(), ft.optim.adamw(1e-2), **options)
    return [
        first.replace(params={name: p * (1 + 0.1 * i) for name, p in first.params.items()}, key=root_key(i))
        for i in range(THREADS)
    ]


def trained(step, state):
    for i in range(UPDATES):
        state, metrics = step(state, batch(i))
    return state, metrics, ft.eval_step(state, batch(9)).sums


OPTIONS = [
    {},
    {"precision": "bf16", "activation_checkpointing": "blocks.*"},
    {"statistics": "module", "activations": True, "accumulate": 2, "ema_decay": 0.9},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["dropout", "bf16, checkpointed", "watched"])
def test_eager_steps(options):
    begin = states(**options)
    before = torch.get_rng_state()
    expected = [trained(ft.train_step, state) for state in begin]
    found = in_threads(lambda state: trained(ft.train_step, state), begin)
    assert [ft.diff_states(*pair) for pair in zip(found, expected)] == [[]] * THREADS
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_one_compiled_step_that_several_threads_call_is_compiled_once():
    begin, shared = states(), ft.compile(ft.train_step, backend="aot_eager")
    found = in_threads(lambda state: trained(shared, state), begin)
    expected = [trained(shared, state) for state in begin]
    assert [ft.diff_states(*pair) for pair in zip(found, expected)] == [[]] * THREADS
    assert shared.runner.compilations == {"update": 1}


def test_steps_that_are_compiled_at_the_same_time_beside_an_eager_one():
    begin = states(precision="bf16")

    def run(number):
        step = ft.train_step if not number else ft.compile(ft.train_step, backend="eager", donate=number == 1)
        return trained(step, ft.train_step(begin[number], batch(8))[0])

    expected = [run(number) for number in range(THREADS)]
    found = in_threads(run, range(THREADS))
    assert [ft.diff_states(*pair) for pair in zip(found, expected)] == [[]] * THREADS


def test_calls_of_a_network_at_the_same_time_each_have_their_own_tensors():
    network, together = Network(nn.Linear(2, 2)), threading.Barrier(2)

    def objective(net, x):
        together.wait()
        out = net(x), net.weight
        together.wait()
        return out

    def call(scale):
        params = {name: torch.full_like(p, scale, device="cpu") for name, p in nn.Linear(2, 2).named_parameters()}
        return network.apply(objective, params, {}, torch.ones(2), training=True)[0]

    for scale, (out, weight) in zip((1.0, 2.0), in_threads(call, (1.0, 2.0))):
        assert out.tolist() == [3 * scale] * 2
        assert weight.unique().tolist() == [scale]
    assert all(p.is_meta for _, module in network.running() for p in module.parameters())


def test_a_call_within_a_call_has_its_own_tensors():
    network = Network(nn.Linear(1, 1, bias=False))

    def apply(weight, then):
        objective = lambda net, x: (net(x), then(), net(x))  # noqa: E731
        return network.apply(objective, {"weight": torch.full((1, 1), weight)}, {}, torch.ones(1), training=True)[0]

    first, (second, _, third), fourth = apply(1.0, lambda: apply(2.0, lambda: None))
    assert [x.item() for x in (first, second, third, fourth)] == [1.0, 2.0, 2.0, 1.0]


def test_who_has_seeded_the_generator_is_alone_until_it_is_put_back():
    def draw():
        with torch_seed(8):
            return torch.rand(3)

    expected = draw()
    with ThreadPoolExecutor(1) as pool:
        with torch_seed(7):
            first, other = torch.rand(3), pool.submit(draw)
            with pytest.raises(TimeoutError):
                other.result(timeout=0.1)
            second = torch.rand(3)
        assert torch.equal(other.result(), expected)
    with torch_seed(7):
        assert torch.equal(torch.cat([first, second]), torch.rand(6))


def test_sums_stay_repeatable_until_the_last_thread_is_done():
    device, inside, left = torch.device("cpu"), threading.Event(), threading.Event()

    def last():
        with repeatable_sums(device):
            inside.set()
            left.wait()
            return torch.are_deterministic_algorithms_enabled()

    with ThreadPoolExecutor(1) as pool:
        with repeatable_sums(device):
            job = pool.submit(last)
            inside.wait()
        left.set()
        assert job.result()
    assert not torch.are_deterministic_algorithms_enabled()
