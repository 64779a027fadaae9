"""The promises of a run on each device: compiled is eager, donation changes no bit, a stopped run resumes.

On a CPU the graph is traced and not compiled, so that the tests themselves are tried out everywhere.
"""

import pytest
import torch
from torch import nn

import functrain as ft

on_each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
BACKEND = {"cpu": "aot_eager", "cuda": "inductor"}
EXAMPLES, WIDTH, CLASSES = 48, 8, 4


def network():
    torch.manual_seed(0)
    convolution = [nn.Unflatten(1, (1, WIDTH)), nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*convolution, nn.Linear(4 * (WIDTH - 2), CLASSES))


def state(device, precision="fp32", dropout=False, **options):
    model = network()
    if dropout:
        model.append(nn.Dropout(0.1))
    optimizer = ft.optim.adamw(1e-2)
    return ft.init_state(
        model,
        ft.classification(),
        optimizer,
        precision=precision,
        device=device,
        clip_norm=1.0,
        ema_decay=0.9,
        **options,
    )


def examples():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(EXAMPLES, WIDTH, generator=generator), torch.randint(CLASSES, (EXAMPLES,), generator=generator)


def batches(device, size=16):
    return [tuple(part.to(device) for part in pair) for pair in zip(*(part.split(size) for part in examples()))]


def trained(first, step, device):
    for batch in batches(device):
        first, _ = step(first, batch)
    return first


@on_each_device
@pytest.mark.parametrize("accumulate", [1, 3])
def test_compiled_is_eager_in_float64(device, accumulate):
    start = state(device, "fp64", accumulate=accumulate)
    eager = trained(start, ft.train_step, device)
    compiled = trained(start, ft.compile(ft.train_step, backend=BACKEND[device]), device)
    for name, expected in eager.params.items():
        # Three updates of about 50 sums of 16 terms each, through Adam's quotient: some 1e-14.
        torch.testing.assert_close(compiled.params[name], expected, rtol=1e-10, atol=1e-12)


@on_each_device
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_donated_step_has_the_bits_of_one_that_is_not(device, precision):
    def run(donate):
        step = ft.compile(ft.train_step, donate=donate, backend=BACKEND[device])
        return trained(state(device, precision, dropout=True), step, device)

    assert not ft.diff_states(run(False), run(True))


@on_each_device
@pytest.mark.parametrize("compile", [False, True])
def test_a_stopped_run_resumes_bit_for_bit(device, compile, tmp_path):
    data = ft.data.Loader(ft.data.Arrays(*examples()), 16)

    def run(folder, steps):
        return ft.fit(
            state(device, dropout=True),
            data,
            steps=steps,
            run_dir=tmp_path / folder,
            deterministic=True,
            compile=compile,
            backend=BACKEND[device],
            progress=False,
        ).state

    whole = run("whole", 8)
    run("stopped", 4)
    assert not ft.diff_states(whole, run("stopped", 8))


@on_each_device
def test_evaluation_and_prediction_see_the_devices_state(device):
    trained_state = trained(state(device), ft.train_step, device)
    data = ft.data.Loader(ft.data.Arrays(*examples()), 16, shuffle=False)
    accuracy = ft.evaluate(trained_state, data)["accuracy"]
    outputs = ft.predict(trained_state, data)
    assert outputs.device.type == "cpu"
    assert (outputs.argmax(1) == examples()[1]).double().mean().item() == accuracy


@pytest.mark.gpu
def test_a_cuda_graph_has_the_bits_of_the_compiled_step():
    def run(mode):
        step = ft.compile(ft.train_step, donate=True, mode=mode)
        return trained(state("cuda"), step, "cuda")

    assert not ft.diff_states(run("default"), run("reduce-overhead"))
