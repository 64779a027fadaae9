"""Windows, ragged batches and loaders of other kinds."""

from typing import Any

import pytest
import torch
from loop_helpers import EXAMPLES, assert_same_bits, make_loader, make_state, quick_fit
from torch import Tensor
from torch.utils.data import DataLoader

import functrain as ft
from functrain.data import Arrays, Loader
from functrain.foundation.errors import DataError
from functrain.foundation.trees import leaves_with_paths


@pytest.mark.parametrize(("tail", "micro_batches", "updates"), [("extend", 8, 2), ("short", 6, 2), ("drop", 4, 1)])
def test_tail_decides_what_becomes_of_the_last_window(tail: str, micro_batches: int, updates: int) -> None:
    seen: list[Tensor] = []

    @ft.on("process_batch")
    def keep(event: ft.Event) -> None:
        seen.append(event.batch[0])

    loader = DataLoader(make_loader().dataset, batch_size=4)
    result = quick_fit(make_state(accumulate=4), loader, epochs=1, tail=tail, callbacks=[keep])
    assert (len(seen), result.state.step, result.state.micro_step) == (micro_batches, updates, 0)
    if tail == "extend":
        assert torch.equal(seen[6], seen[0])
        assert torch.equal(seen[7], seen[1])


def test_a_tail_that_drops_everything_is_refused_with_the_numbers() -> None:
    with pytest.raises(DataError, match=r"an epoch has 6 batches, fewer than the 7 of an update .* tail='extend'"):
        quick_fit(make_state(accumulate=7), make_loader(), epochs=1, tail="drop")


@pytest.mark.parametrize("tail", ["extend", "short", "drop"])
def test_a_run_resumed_anywhere_in_a_window_ends_with_the_same_bits(tail: str) -> None:
    options = {"epochs": 2, "tail": tail}
    whole = quick_fit(make_state(accumulate=4), make_loader(), **options).state
    for stop in (1, 3, 5, 6, 7, 8, 9):

        @ft.on("process_batch")
        def at(event: ft.Event, seen: list[int] = [0], stop: int = stop) -> ft.Stop | None:  # noqa: B006
            seen[0] += 1
            return ft.Stop() if seen[0] == stop else None

        part = quick_fit(make_state(accumulate=4), make_loader(), callbacks=[at], **options).state
        assert_same_bits(quick_fit(part, make_loader(), **options).state, whole)


def test_an_iterable_of_unknown_length_extends_its_last_window() -> None:
    class Batches:
        def __iter__(self) -> Any:
            yield from DataLoader(make_loader().dataset, batch_size=4)

    result = quick_fit(make_state(accumulate=4), Batches(), epochs=1)
    assert (result.state.batch_idx, result.state.step, result.state.samples_seen) == (0, 2, EXAMPLES + 8)
    with pytest.raises(ValueError, match="tail='drop' needs a loader of known length"):
        quick_fit(make_state(accumulate=4), Batches(), epochs=1, tail="drop")


def test_one_compilation_serves_a_ragged_last_batch_and_a_changing_learning_rate(capsys: Any) -> None:
    state = make_state(optimizer=ft.optim.adamw(ft.schedules.cosine(1e-2, 12)))
    options = {"epochs": 2, "eval_loader": make_loader(), "progress": None}
    compiled = quick_fit(state, make_loader(), compile=True, backend="aot_eager", **options)
    said = capsys.readouterr().err
    assert said.count("compiling the update step") == 1
    assert said.count("compiling the evaluate step") == 1
    eager = quick_fit(state, make_loader(), **options)
    for (path, left), (_, right) in zip(leaves_with_paths(compiled.state), leaves_with_paths(eager.state), strict=True):
        torch.testing.assert_close(left, right, msg=path)


def test_donation_changes_no_bit_and_spares_the_callers_state() -> None:
    options = {"epochs": 2, "compile": True, "backend": "aot_eager"}
    state = make_state(ema_decay=0.9)
    donated = quick_fit(state, make_loader(), donate=True, **options).state
    assert_same_bits(donated, quick_fit(state, make_loader(), **options).state)


@pytest.mark.parametrize("loader", [Loader(Arrays(torch.randn(10, 4), torch.zeros(10).long()), 4), None])
def test_other_loaders_train(loader: Any) -> None:
    batches = loader or [(torch.randn(4, 4), torch.zeros(4).long())] * 3
    assert quick_fit(make_state(), batches, epochs=2).state.step == 6
