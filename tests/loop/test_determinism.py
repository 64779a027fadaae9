"""deterministic=True: settings within, restored afterwards; callbacks' draws repeat after a resume."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loop_helpers import assert_same_bits, make_loader, make_state, quick_fit

import functrain as ft
from functrain.checkpoint import read_info
from functrain.foundation.errors import FunctrainError
from functrain.loop.process.determinism import deterministic_run


@ft.on("process_batch")
def noise(event: ft.Event) -> ft.Event:
    inputs, *rest = event.batch
    assert torch.are_deterministic_algorithms_enabled()
    factor = 1 + 0.1 * random.random() + 0.1 * float(np.random.rand())
    return event.replace(batch=(inputs * factor + 0.1 * torch.randn(inputs.shape), *rest))


def settings() -> tuple[Any, ...]:
    cudnn = torch.backends.cudnn
    flags = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    draws = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    return flags, draws, os.environ.get("CUBLAS_WORKSPACE_CONFIG")


@pytest.mark.parametrize("compiled", [{}, {"compile": True, "backend": "aot_eager"}], ids=["eager", "compiled"])
def test_callbacks_may_draw_from_the_global_generators_and_a_resume_repeats_it(
    tmp_path: Path, compiled: dict[str, Any]
) -> None:
    before = settings()
    whole = quick_fit(make_state(), make_loader(), epochs=2, callbacks=[noise], deterministic=True, **compiled)
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    for steps in (4, 9, 99):
        resumed = quick_fit(
            make_state(),
            make_loader(),
            epochs=2,
            steps=steps,
            callbacks=[noise],
            deterministic=True,
            run_dir=tmp_path,
            **compiled,
        )
    assert_same_bits(whole.state, resumed.state)
    assert read_info(tmp_path / "checkpoints" / "last").metadata["environment"]["deterministic"] is True
    assert settings()[0] == before[0]
    assert settings()[2] == before[2]


def test_everything_is_put_back_after_an_error() -> None:
    state = make_state()
    before = settings()

    @ft.on("before_step")
    def fail(event: ft.Event) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        quick_fit(state, make_loader(), epochs=1, callbacks=[fail], deterministic=True)
    assert settings() == before


def test_a_cublas_workspace_that_is_not_reproducible_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with pytest.raises(FunctrainError, match="needs CUBLAS_WORKSPACE_CONFIG to be :4096:8 or :16:8"):
        deterministic_run(torch.device("cuda")).__enter__()
    with deterministic_run(torch.device("cpu")):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":0:0"
