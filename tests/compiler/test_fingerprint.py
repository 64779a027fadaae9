"""A program's key changes with everything that the program depends on, and with nothing else."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from functrain.compiler.fingerprint import graph_digest, program_key


def graph(fn=lambda x, y: x + y, *inputs):
    return make_fx(fn)(*inputs or (torch.zeros(2, 3), torch.zeros(2, 3)))


def key(fn=lambda x, y: x + y, inputs=None, mode="default", donate=False):
    inputs = inputs or (torch.zeros(2, 3), torch.zeros(2, 3))
    return program_key(graph_digest(graph(fn, *inputs)), list(inputs), mode, donate=donate)


def test_the_same_computation_has_the_same_key_whatever_the_values():
    assert key() == key(inputs=(torch.ones(2, 3), torch.ones(2, 3)))


@pytest.mark.parametrize(
    "other",
    [
        {"fn": lambda x, y: x - y},
        {"fn": lambda x, y: torch.add(x, y, alpha=2)},
        {"inputs": (torch.zeros(3, 2), torch.zeros(3, 2))},
        {"inputs": (torch.zeros(3, 2).T, torch.zeros(3, 2).T)},
        {"inputs": (torch.zeros(2, 3).double(), torch.zeros(2, 3).double())},
        {"mode": "max-autotune"},
        {"donate": True},
    ],
    ids=["operation", "constant", "shape", "strides", "dtype", "mode", "donation"],
)
def test_another_graph_layout_or_mode_has_another_key(other):
    assert key(**other) != key()


def test_a_tensor_within_the_graph_counts_by_its_value():
    def adding(constant):
        return key(lambda x, y: x + y + constant)

    assert adding(torch.tensor([1.0, 2.0, 3.0])) == adding(torch.tensor([1.0, 2.0, 3.0]))
    assert adding(torch.tensor([1.0, 2.0, 3.0])) != adding(torch.tensor([1.0, 2.0, 4.0]))


def test_threads_and_flags_and_the_compilers_settings_count(monkeypatch):
    import torch._inductor.config as inductor_config

    keys = {key()}
    torch.set_num_threads(2)
    keys.add(key())
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    keys.add(key())
    torch.use_deterministic_algorithms(False)
    with inductor_config.patch({"cpp.simdlen": 8}):
        keys.add(key())
    monkeypatch.setenv("TORCHINDUCTOR_FREEZING", "1")
    keys.add(key())
    monkeypatch.delenv("TORCHINDUCTOR_FREEZING")
    assert len(keys) == 5
    assert key() in keys


def test_what_inductor_writes_down_about_a_package_does_not_count():
    import torch._inductor.config as inductor_config

    before = key()
    with inductor_config.patch({"aot_inductor.metadata": {"AOTI_CPU_ISA": "AVX2"}}):  # as a compilation leaves it
        assert key() == before
