"""Donated steps as CUDA graphs: the bits of the same steps without, and nothing that a caller keeps is overwritten.

Without a GPU a stand-in records: its graph, too, reads and writes the addresses it was recorded with, and only those.
"""

import functools

import pytest
import torch

import functrain as ft
from functrain.compiler import CompilingRunner, cuda_graphs
from functrain.foundation import trees

MODE = "reduce-overhead"


def step_with(**options):
    return functools.partial(ft.train_step, run=CompilingRunner(donate=True, backend="aot_eager", **options))


@pytest.fixture
def recordings(monkeypatch):
    """CUDA graphs that are none; a list of what was recorded: how often each was replayed."""
    counts = []

    def capture(program, inputs):
        results = program([tensor.clone() for tensor in inputs])  # recording executes nothing
        counts.append(0)
        number = len(counts) - 1

        def replay():
            counts[number] += 1
            for static, result in zip(results, program(list(inputs)), strict=True):
                static.copy_(result)

        return results, replay

    monkeypatch.setattr(cuda_graphs, "wanted", lambda mode, device: mode in cuda_graphs.MODES)
    monkeypatch.setattr(cuda_graphs, "capture", capture)
    return counts


def copied(state):
    return trees.copy_tensors(state)


def test_a_run_of_replays_has_the_bits_of_a_run_without(perceptron_state, vectors, bits, recordings):
    original = perceptron_state(accumulate=2, ema_decay=0.5, optimizer=ft.optim.adamw(0.01))
    graphs, usual = step_with(mode=MODE), step_with()
    ours, expected = copied(original), copied(original)
    for seed in range(9):
        ours, metrics = graphs(ours, vectors(seed))
        expected, expected_metrics = usual(expected, vectors(seed))
        assert bits((ours, metrics)) == bits((expected, expected_metrics))
    # Of 5 accumulating and 4 updating calls the first of each ran as it is.
    assert sorted(recordings) == [3, 4]


def test_what_a_caller_keeps_is_never_overwritten(perceptron_state, vectors, bits, recordings):
    step, state, kept = step_with(mode=MODE), copied(perceptron_state()), []
    for seed in range(6):
        batch = vectors(seed)
        state, metrics = step(state, batch)
        kept.append((metrics, batch, bits((metrics, batch))))
    assert all(bits((metrics, batch)) == before for metrics, batch, before in kept)
    assert recordings == [5]


def test_a_state_at_other_addresses_is_recorded_anew(perceptron_state, vectors, bits, recordings):
    original = perceptron_state()
    step, usual = step_with(mode=MODE), step_with()
    first, other, expected = copied(original), copied(original), copied(original)
    for seed in range(3):
        first, _ = step(first, vectors(seed))
    before = bits(first)
    for seed in range(3):
        other, _ = step(other, vectors(seed))
        expected, _ = usual(expected, vectors(seed))
    assert bits(other) == bits(expected)
    assert bits(first) == before
    assert recordings == [2, 3]


def test_another_size_of_batch_is_a_graph_of_its_own(perceptron_state, vectors, bits, recordings):
    step, usual = step_with(mode=MODE), step_with()
    state, expected = copied(perceptron_state()), copied(perceptron_state())
    for size in (6, 4, 6, 4, 6, 4):
        state, _ = step(state, vectors(size=size))
        expected, _ = usual(expected, vectors(size=size))
    assert bits(state) == bits(expected)
    assert recordings == [2, 2]


@pytest.mark.usefixtures("recordings")
def test_what_a_graph_would_get_wrong_is_refused_and_the_state_is_whole(perceptron_state, vectors, bits):
    random = perceptron_state(dropout=0.5)
    before = bits(random)
    with pytest.raises(ValueError, match=r"draws random numbers.*mode='default'"):
        step_with(mode=MODE)(random, vectors())
    assert bits(random) == before
    keeping = functools.partial(ft.train_step, run=CompilingRunner(mode=MODE, backend="aot_eager"))
    with pytest.raises(ValueError, match="give donate=True, or mode='default'"):
        keeping(perceptron_state(), vectors())
    # An evaluation is no such step.
    ft.eval_step(random, vectors(), run=CompilingRunner(donate=True, mode=MODE, backend="aot_eager"))


def test_on_a_cpu_there_are_none():
    assert not cuda_graphs.wanted(MODE, torch.device("cpu"))
    assert cuda_graphs.wanted("max-autotune", torch.device("cuda"))
    assert not cuda_graphs.wanted("max-autotune-no-cudagraphs", torch.device("cuda"))


@pytest.mark.gpu
def test_on_a_gpu_a_run_of_replays_has_the_bits_of_a_run_without(perceptron_state, vectors):
    def run(mode):
        state = perceptron_state(precision="fp32", device="cuda", accumulate=2)
        step, seen = ft.compile(ft.train_step, donate=True, mode=mode), []
        for seed in range(8):
            state, metrics = step(state, tuple(tensor.cuda() for tensor in vectors(seed)))
            seen.append(metrics)
        return [leaf.cpu() for leaf in trees.tensors((state, seen))]

    assert all(map(torch.equal, run(MODE), run("default")))
